"""Static pictures of the main figures, the same bytes for the same figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pld.artifacts import atomic_path
from pld.records import CALIBRATED, EvaluationReport, SystemReport
from pld.resolve.ablation import FrontPoint
from pld.resolve.resolution import CAME_IN, LEFT

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


def draw_pareto(path: Path, points: Sequence[FrontPoint], title: str) -> None:
    """Lists of the loop: macro-F1 on validation with its interval against tokens; the front is a line of steps (so much
    can be had with at most so many tokens)."""
    figure = _figure(7, 4.5)
    axes = figure.subplots()
    front = sorted((point.tokens, point.macro_f1) for point in points if point.on_front)
    axes.step(*zip(*front, strict=True), where="post", color="#d1495b", linewidth=1, alpha=0.6, label="Pareto front")
    ends = {LEFT: ("*", 14, "#d1495b"), CAME_IN: ("D", 7, "#edae49")}
    for point in sorted(points, key=lambda point: (point.what == LEFT, point.what == CAME_IN)):
        marker, size, colour = ends.get(point.what, ("o", 5, "#30638e"))
        axes.errorbar(
            point.tokens,
            point.macro_f1,
            yerr=[[point.macro_f1 - point.low], [point.high - point.macro_f1]],
            fmt=marker,
            markersize=size,
            color=colour,
            markerfacecolor=colour if point.on_front or point.what in ends else "white",
            elinewidth=0.6,
            label=point.what if point.what in ends else None,
        )
    axes.set(
        xlabel="prompt tokens (hollow: not on the front)", ylabel="macro-F1 on validation (95 % interval)", title=title
    )
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3)  # inside it hides points
    _save(figure, path)


def draw_systems(path: Path, report: EvaluationReport) -> None:
    """Every system's macro-F1 on test with its interval, the shipped one marked; calibrated ones hollow beside."""
    names = [name for name in report.systems if not name.endswith(CALIBRATED)]
    figure = _figure(7, 0.45 * len(names) + 1.3)
    axes = figure.subplots()
    for place, name in enumerate(names):
        for variant, shift in ((name, -0.12), (name + CALIBRATED, 0.12)):
            if variant not in report.systems:
                continue
            found = report.systems[variant].macro_f1
            axes.errorbar(
                found.value,
                place + shift,
                xerr=[[found.value - found.low], [found.high - found.value]],
                fmt="*" if variant == report.shipped else "o",
                markersize=14 if variant == report.shipped else 5,
                color="#d1495b" if variant == report.shipped else "#30638e",
                markerfacecolor="white" if shift > 0 and variant != report.shipped else None,
                elinewidth=0.8,
            )
    axes.set(
        yticks=range(len(names)),
        xlabel="macro-F1 (95 % interval; hollow: calibrated; star: shipped)",
        title=f"{report.task}: {report.n} test examples",
    )
    axes.set_yticklabels([_with_n(name, report) for name in names])
    axes.invert_yaxis()
    axes.grid(visible=True, axis="x", alpha=0.3)
    _save(figure, path)


def _with_n(name: str, report: EvaluationReport) -> str:
    n = report.systems[name].n
    return name if n == report.n else f"{name} (on {n})"


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    with atomic_path(path) as temporary:
        # a version or a date in the file would change its hash
        figure.savefig(temporary, format="png", dpi=110, metadata={"Software": None})
