"""The closing table: what the run reached against its baselines, and where the winner stands."""

from pathlib import Path

import click

from pld.artifacts import read_record
from pld.method.baselines import CALIBRATED
from pld.records import Comparison, EvaluationReport, Interval, LatencyReport, TrialReport

FOLDER = Path("artifacts/evaluation")


@click.command()
def summary() -> None:
    """Print the table of the last evaluation (quality on test, latency, tokens) and the verdicts."""
    from rich.console import Console
    from rich.table import Table

    report = read_record(FOLDER / "report.json", EvaluationReport)
    latency = read_record(FOLDER / "latency.json", LatencyReport)
    trial = read_record(Path("artifacts/best/trial.json"), TrialReport)
    table = Table(title=f"{report.task}: {report.n} test examples, the same for all", title_justify="left")
    for column in (
        "system",
        "macro-F1 [95 %]",
        "accuracy",
        "calibrated macro-F1",
        "accuracy",
        "p50 ms",
        "p95 ms",
        "tokens",
    ):
        table.add_column(column, justify="left" if column == "system" else "right")
    for name, system in report.systems.items():
        if name.endswith(CALIBRATED):
            continue
        calibrated, timing = report.systems[name + CALIBRATED], latency.systems[name]
        table.add_row(
            name,
            _interval(system.macro_f1),
            f"{system.accuracy.value:.3f}",
            _interval(calibrated.macro_f1),
            f"{calibrated.accuracy.value:.3f}",
            f"{timing.p50_ms:.0f}",
            f"{timing.p95_ms:.0f}",
            str(system.prompt_tokens),
        )
    console = Console(width=None if Console().is_terminal else 120)
    console.print()
    console.print(table)
    for comparison in report.comparisons:
        console.print(_verdict(comparison), highlight=False)
    console.print(
        f"shipped: {report.shipped}, prompt {report.prompt_sha256[:12]}, {trial.instructions} instructions, "
        f"trial {trial.trial_id}: artifacts/best/system_prompt.md",
        highlight=False,
    )
    console.print(f"latency: one request at a time, prompt cache held; {latency.machine}", highlight=False)


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _verdict(comparison: Comparison) -> str:
    delta = comparison.macro_f1_delta
    word = "better than" if delta.low > 0 else "worse than" if delta.high < 0 else "not clearly different from"
    return (
        f"{comparison.a} is {word} {comparison.b}: macro-F1 {delta.value:+.3f} [{delta.low:+.3f}, {delta.high:+.3f}], "
        f"{comparison.fixed} fixed, {comparison.broken} broken, McNemar p = {comparison.mcnemar_p:.2g}"
    )
