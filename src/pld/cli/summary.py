"""`pld summary`: quality of what ships against its baselines, what each costs, and the verdicts."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pld.artifacts import SHIPS, read_record
from pld.distill.sweep import DrawSpread
from pld.evaluate.findings import compared_as, comparisons_of_shipped, standing
from pld.evaluate.latency import read_latency
from pld.evaluate.verdict import labels_used
from pld.pricing import dollars, millions, tokens_read, tokens_written, total_usd
from pld.records import CALIBRATED, DISTILLED
from pld.registry.result import read_spending
from pld.reports import (
    CostReport,
    EvaluationReport,
    Interval,
    LatencyReport,
    LoopEffect,
    Spending,
    SystemCost,
    TrialReport,
)

if TYPE_CHECKING:
    from rich.table import Table

FOLDER = Path("artifacts/evaluation")
_VERDICTS = {"better": "better than", "level": "not clearly different from", "worse": "worse than"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each system instead of text.")
def summary(as_json: bool) -> None:
    """Print what the last evaluation found: quality on test, latency, tokens, cost, and the verdicts."""
    report = read_record(FOLDER / "report.json", EvaluationReport)
    latency = read_latency(FOLDER.parent)
    costs = read_record(FOLDER / "costs.json", CostReport)
    if as_json:
        click.echo(json.dumps(rows(report, latency, costs), ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    trial = read_record(Path("artifacts/best/trial.json"), TrialReport)
    console = Console(width=None if Console().is_terminal else 120)
    console.print()
    if report.verdict:
        verdict = report.verdict
        console.print(verdict.decision, style="bold", highlight=False)
        console.print(f"{verdict.why}\n{verdict.instead}\n", highlight=False)
    console.print(_quality(report))
    console.print(_cost(report, latency, costs))
    lines = [
        *report.findings,
        *_verdicts(report),
        *_chains(costs),
        _loop(report.loop),
        *_draws(Path("artifacts/best/draws.json")),
        _spent(read_spending(Path("artifacts")), recorded=costs.systems[DISTILLED].training.recorded),
        f"shipped: {report.shipped}, prompt {report.prompt_sha256[:12]}, {costs.systems[DISTILLED].readable}, "
        f"from trial {trial.trial_id}: artifacts/{SHIPS}/system_prompt.md",
        "the report, with every instruction and its evidence: artifacts/report/index.html",
        "where an instruction comes from: pld explain <id>; what each one does: pld ablate",
        f"latency: one request at a time, what all requests share in the cache; {latency.machine}",
    ]
    for line in lines:
        console.print(line, highlight=False)


def rows(report: EvaluationReport, latency: LatencyReport, costs: CostReport) -> list[dict[str, Any]]:
    """One row for each system, calibrated variants included, for `--json`."""
    found = []
    for name, system in report.systems.items():
        base = name.removesuffix(CALIBRATED)
        found.append(
            {
                "system": name,
                "n": system.n,
                "macro_f1": system.macro_f1.model_dump(),
                "accuracy": system.accuracy.model_dump(),
                "latency": latency.systems[name].model_dump() if name in latency.systems else None,
                **costs.systems[base].model_dump(exclude={"labels_used_calibrated"}),
                "labels_used": labels_used(name, costs.systems),
                "training_seconds": latency.training_seconds.get(base),
            }
        )
    return found


def _quality(report: EvaluationReport) -> "Table":
    title = (
        f"{report.task}: quality on {report.n} test examples, the same for all unless n says less; ahead: "
        f"{report.shipped} less the system"
    )
    table = _table(title, ("system", "n", "macro-F1 [95 %]", "accuracy", "calibrated", "ahead by [95 %]"))
    ahead = {
        found.b.removesuffix(CALIBRATED): found.macro_f1_delta for found in comparisons_of_shipped(report).values()
    }
    for name in _systems(report):
        system, calibrated = report.systems[name], report.systems.get(name + CALIBRATED)
        table.add_row(
            name,
            str(system.n),
            _interval(system.macro_f1),
            f"{system.accuracy.value:.3f}",
            _interval(calibrated.macro_f1) if calibrated else "not calibrated",
            ahead[name].signed if name in ahead else "–",
        )
    return table


def _cost(report: EvaluationReport, latency: LatencyReport, costs: CostReport) -> "Table":
    table = _table(
        "what it costs", ("system", "p50 ms", "p95 ms", "tokens", "labels used", "training", "a person can read")
    )
    for column in table.columns[-2:]:
        column.justify = "left"
    for name in _systems(report):
        cost, timing = costs.systems[name], latency.systems.get(name)
        table.add_row(
            name,
            "–" if timing is None else _milliseconds(timing.p50_ms),
            "–" if timing is None else _milliseconds(timing.p95_ms),
            f"{cost.tokens_per_request:,}",
            f"{labels_used(compared_as(name, report), costs.systems):,}",
            training(cost, latency.training_seconds.get(name)),
            cost.readable,
        )
    return table


def training(cost: SystemCost, seconds: float | None) -> str:
    """The one-time cost in words."""
    spent, parts = cost.training, []
    if spent.teacher_calls:
        tokens = f" of {_thousands(spent.teacher_tokens)} tokens" if spent.teacher_tokens else ""
        parts.append(f"{spent.teacher_calls:,} Teacher calls{tokens}{' (recorded)' if spent.recorded else ''}")
    if spent.student_answers:
        parts.append(f"{spent.student_answers:,} Student answers")
    if seconds is not None:
        parts.append(f"{seconds:.1f} s")
    return ", ".join(parts) or "none"


def _table(title: str, columns: Sequence[str]) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "system" else "right")
    return table


def _systems(report: EvaluationReport) -> list[str]:
    return [name for name in report.systems if not name.endswith(CALIBRATED)]


def _verdicts(report: EvaluationReport) -> list[str]:
    """A line for each standing that some system has."""
    named: dict[str, list[str]] = {}
    for found in comparisons_of_shipped(report).values():
        figures = f"{found.fixed} fixed, {found.broken} broken, McNemar p = {found.mcnemar_p:.2g}"
        named.setdefault(standing(found), []).append(f"{found.b} ({figures})")
    return [f"{report.shipped} is {words}: {', '.join(named[key])}" for key, words in _VERDICTS.items() if key in named]


def _loop(loop: LoopEffect | None) -> str:
    """The gain on validation, where it was selected, beside the gain on test."""
    if loop is None:
        return "the loop: none was run, the winner of the sweep ships as it is"
    chosen = " (optimistically biased by selection)" if loop.validation.macro_f1_delta.value > 0 else ""
    return (
        f"the loop: {_count(loop.rounds, 'round')}, {_count(loop.candidates, 'list')} tried on validation, "
        f"{_count(loop.accepted, 'Edit')} accepted; macro-F1 there {loop.validation.macro_f1_delta.signed}"
        f"{chosen}, on test {loop.test.macro_f1_delta.signed}"
    )


def _draws(path: Path) -> list[str]:
    """The spread over the Teacher's draws, if the sweep tried several."""
    return [f"draws: {read_record(path, DrawSpread)}"] if path.exists() else []


def _spent(spending: Sequence[Spending], *, recorded: bool) -> str:
    """What the Teacher's answers cost when they were paid for."""
    roles = [role for stage in spending for role in stage.roles]
    if not roles:
        return f"Teacher: {'recorded answers played back: nothing spent now' if recorded else 'nothing was asked'}"
    tokens = sum(tokens_read(role.tokens) + tokens_written(role.tokens) for role in roles)
    parts = [f"{stage.stage} {dollars(total_usd(stage.roles))}" for stage in spending if stage.roles]
    usd = total_usd(roles)
    cost = "price unknown (conf/prices.yaml)" if usd is None else dollars(usd)
    calls = _count(sum(role.calls for role in roles), "call")
    return f"Teacher: {calls}, {millions(tokens)} tokens, {cost} ({', '.join(parts)})"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _chains(costs: CostReport) -> list[str]:
    return [
        f"{name}: {cost.cut_share:.0%} of the chains were cut at the limit (baselines.chain_of_thought.max_tokens); "
        "all of them: artifacts/evaluation/chains.jsonl"
        for name, cost in costs.systems.items()
        if cost.cut_share is not None
    ]


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _thousands(tokens: int) -> str:
    return f"{tokens / 1000:,.0f}k" if tokens >= 10_000 else f"{tokens:,}"
