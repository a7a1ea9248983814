"""Static pictures of the main figures, the same bytes for the same figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pld.artifacts import atomic_path
from pld.records import SystemReport

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_confusion(path: Path, report: SystemReport, labels: Sequence[str], title: str) -> None:
    """Gold labels down, answers across; shade by the share of the gold label."""
    figure = _figure(1.1 * len(labels) + 2.5, 1.0 * len(labels) + 2)
    axes = figure.subplots()
    shares = [
        [cell / max(1, report.per_label[labels[i]].support) for cell in row] for i, row in enumerate(report.confusion)
    ]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(report.confusion):
        for j, cell in enumerate(row):
            axes.text(j, i, str(cell), ha="center", va="center", color="white" if shares[i][j] > 0.5 else "black")
    axes.set(xticks=range(len(labels)), yticks=range(len(labels)), xlabel="answered", ylabel="gold", title=title)
    axes.set_xticklabels(labels, rotation=30, ha="right")
    axes.set_yticklabels(labels)
    _save(figure, path)


def draw_f1_against_tokens(path: Path, trials: Sequence[Mapping[str, str]], winner: str) -> None:
    """Every trial's macro-F1 on validation with its interval against its prompt's tokens (rows of trials.csv)."""
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    for row in trials:
        if not row["macro_f1"]:
            continue
        value, low, high = (float(row[key]) for key in ("macro_f1", "low", "high"))
        won = row["trial_id"] == winner
        axes.errorbar(
            int(row["prompt_tokens"]),
            value,
            yerr=[[value - low], [high - value]],
            fmt="*" if won else "o",
            markersize=14 if won else 5,
            color="#d1495b" if won else "#30638e",
            elinewidth=0.6,
            label="winner" if won else None,
        )
    axes.set(xlabel="prompt tokens", ylabel="macro-F1 on validation (95 % interval)", title="Trials of the sweep")
    axes.grid(visible=True, alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()
    _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    with atomic_path(path) as temporary:
        # a version or a date in the file would change its hash
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
