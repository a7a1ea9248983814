"""`pld monitor`: compare a serving log with the answers on the test set."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.table import Table

    from pld.registry.release import Reference
    from pld.serving.drift import MonitorReport, Window, WindowSize

DRIFTED = 3
"""Exit status with --fail-on-drift."""


@click.command()
@click.argument("logs", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--version", "number", type=int, help="Version whose answers to examine, by number.")
@click.option("--alias", help="Version by alias (default: production).")
@click.option(
    "--evaluation",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Compare with this folder's evaluation (artifacts/evaluation) instead, without a registry.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.01,
    show_default=True,
    help="Significance level over all tests (family-wise).",
)
@click.option(
    "--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="Only answers since this time (UTC)."
)
@click.option(
    "--window", type=click.Choice(["hour", "day", "week"]), help="Also print a row per period of this length."
)
@click.option("--fail-on-drift", is_flag=True, help=f"Exit with status {DRIFTED} where there is drift, for cron.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def monitor(
    logs: tuple[Path, ...],
    number: int | None,
    alias: str | None,
    evaluation: Path | None,
    alpha: float,
    since: datetime | None,
    window: WindowSize | None,
    fail_on_drift: bool,
    as_json: bool,
) -> None:
    """Compare what a version answered in serving (LOGS, JSON lines) with what it answered on the test set.

    Reports drift of the labels, the margins (best log-score minus the second) or the share of inputs without an answer
    where a difference is both significant and large enough to matter. Each distinct input counts once. Without labels,
    accuracy can't be seen: `pld data add-from-log` writes the least certain inputs for labelling.
    """
    if sum(choice is not None for choice in (number, alias, evaluation)) > 1:
        raise click.UsageError("expected one of --version, --alias and --evaluation, got several")
    from pld.config.settings import load_config
    from pld.registry.release import fetch_reference, read_reference
    from pld.serving.drift import monitor as compare
    from pld.serving.log import read

    if evaluation is not None:
        reference = read_reference(evaluation)
    else:
        reference = fetch_reference(load_config(), alias or str(number or "production"))
    report = compare(
        read(logs),
        reference.predictions,
        reference.labels,
        reference.prompt_sha256,
        alpha=alpha,
        since=None if since is None else since.replace(tzinfo=UTC),
        window=window,
    )
    if as_json:
        plain = report.model_dump(mode="json") | {"sentence": str(report)}
        click.echo(json.dumps({"measured": reference.name, **plain}, ensure_ascii=False, indent=2))
    else:
        _show(report, reference, logs)
    if fail_on_drift and report.verdict == "drift":
        sys.exit(DRIFTED)


def _show(report: MonitorReport, reference: Reference, logs: tuple[Path, ...]) -> None:
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 120)
    click.echo(_counted(report, reference))
    if report.inputs:
        console.print(_labels(report))
        console.print(_tests(report))
    if report.windows:
        console.print(_windows(report.windows))
    click.echo(str(report))
    if report.inputs:
        click.echo(f"next: `pld data add-from-log {' '.join(map(str, logs))} --out to_label.csv` for the least certain")


def _counted(report: MonitorReport, reference: Reference) -> str:
    parts = [f"{reference.name}, prompt {report.prompt_sha256[:12]}: {report.lines:,} answers"]
    if report.other_prompts:
        parts.append(f"{report.other_prompts:,} of other prompts left out")
    if report.earlier:
        parts.append(f"{report.earlier:,} before {report.since} left out")
    if report.first:
        parts.append(f"{report.first} to {report.last}")
    parts.append(f"{report.inputs:,} different inputs")
    if report.repeats:
        parts.append(f"{report.repeats:,} repeats counted once")
    if report.disagreeing:
        parts.append(f"{report.disagreeing:,} inputs with different answers, the latest taken")
    return "; ".join(parts)


def _labels(report: MonitorReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Answers by label", title_justify="left")
    for column in ("label", "test", "served", "served share [95 %]", "difference"):
        table.add_column(column, justify="left" if column == "label" else "right")
    for shift in report.labels:
        share = shift.served_share
        table.add_row(
            escape(shift.label),
            f"{shift.measured:,} ({shift.measured_share:.1%})",
            f"{shift.served:,}",
            f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]",
            f"{round(100 * shift.difference, 1) + 0.0:+.1f} points",  # no -0.0
        )
    return table


def _tests(report: MonitorReport) -> Table:
    from rich.table import Table

    table = Table(title=f"Tests (alpha {report.alpha}, p after Holm)", title_justify="left")
    for column in ("of", "test", "p", "effect", "matters from", "drift"):
        table.add_column(column, justify="right" if column in ("p", "matters from") else "left")
    for test in report.tests:
        p = "< 0.001" if test.p_adjusted < 0.001 else f"{test.p_adjusted:.3f}"
        effect = f"{test.effect_name} {test.effect:.3f}"
        verdict = "yes" if test.drift else "no" if test.p_adjusted >= report.alpha else "no, too small to matter"
        table.add_row(test.name, test.method, p, effect, f"{test.matters_from}", verdict)
    return table


def _windows(windows: tuple[Window, ...]) -> Table:
    from rich.table import Table

    table = Table(title="Over time (not tested)", title_justify="left")
    for column in ("from (UTC)", "inputs", "PSI", "without answer", "median margin"):
        table.add_column(column, justify="left" if column.startswith("from") else "right")
    for window in windows:
        margin = "" if window.median_margin is None else f"{window.median_margin:.3f}"
        table.add_row(window.start, f"{window.inputs:,}", f"{window.psi:.3f}", f"{window.unanswered_share:.1%}", margin)
    return table
