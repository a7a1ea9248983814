"""What the report shows: its figures in one sentence, and rows for systems, trials, instructions and clusters."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pld.data.splits import SplitSummary
from pld.distill.trial import objective
from pld.evaluate.findings import Standing, compared_as, comparisons_of_shipped, standing
from pld.evaluate.verdict import labels_used
from pld.records import (
    CALIBRATED,
    CHAIN_OF_THOUGHT,
    CLUSTERED,
    DISTILLED,
    FEW_SHOT,
    UNREVIEWED,
    ZERO_SHOT,
    Cluster,
    Instruction,
    Rule,
    content_id,
)
from pld.registry.promotion_gates import zero_shot_of
from pld.reports import (
    Comparison,
    CostReport,
    EvaluationReport,
    Interval,
    Latency,
    LatencyReport,
    SystemCost,
    SystemReport,
    TrialReport,
)
from pld.resolve.records import Descent, Effect, Step

MOST_RULES = 5_000
MOST_BYTES = 2_000_000
"""Size of the rules' texts as HTML, so that the page stays below 5 MB."""

_FIRST = (CHAIN_OF_THOUGHT, CLUSTERED, UNREVIEWED, DISTILLED)


@dataclass(frozen=True)
class SystemRow:
    """`comparison`: what ships minus this system (None: this one ships); `calibrated`: its calibrated variant, if any;
    `labels_used` by the variant that is compared; None elsewhere: not measured."""

    name: str
    ships: bool
    report: SystemReport
    calibrated: SystemReport | None
    comparison: Comparison | None
    labels_used: int | None
    latency: Latency | None
    cost: SystemCost | None
    training_seconds: float | None

    @property
    def standing(self) -> Standing | None:
        """Of what ships against this system."""
        return standing(self.comparison) if self.comparison else None


@dataclass(frozen=True)
class Confusion:
    """`same_as`: an earlier system in the list with the same confusion matrix."""

    name: str
    report: SystemReport
    same_as: str | None


@dataclass(frozen=True)
class TrialPoint:
    """`p50_ms` None: not timed. `whole`: it answered as many examples as any (a race drops the others before).
    `on_front`: no whole trial is at least as good in macro-F1, tokens and latency, and better in one of them."""

    trial: TrialReport
    whole: bool
    p50_ms: float | None
    on_front: bool
    won: bool


@dataclass(frozen=True)
class InstructionView:
    """`rules`: those of its `of_rules` rules that the page shows; `effect` None: not measured."""

    place: int
    own: Instruction
    descent: Descent | None
    effect: Effect | None
    rules: tuple[Rule, ...]
    of_rules: int


@dataclass(frozen=True)
class ClusterRow:
    """`instructions`: places (from 1) of the instructions that rest on a rule of the cluster."""

    cluster: Cluster
    instructions: tuple[int, ...]


@dataclass(frozen=True)
class Change:
    """What reviewers did to an instruction. `before` None: added; `after` None: removed; `step`: their last edit, if
    known."""

    before: Instruction | None
    after: Instruction | None
    step: Step | None = None


def in_figures(report: EvaluationReport) -> str:
    """One sentence: what ships against zero-shot, with interval and n, and every system that is clearly better."""
    own = report.systems[report.shipped].macro_f1
    said = f"On {report.n:,} test examples, what ships ({report.shipped}) reaches macro-F1 {_interval(own)}"
    against = comparisons_of_shipped(report)
    zero = against.pop(zero_shot_of(report.shipped), None)
    if zero is not None:
        rival = f"{zero.b} ({report.systems[zero.b].macro_f1.value:.3f})"
        said += {
            "better": f", {_away(zero)} more than {rival}",
            "worse": f", {_away(zero)} less than {rival}",
            "level": f", not clearly different from {rival}, {zero.macro_f1_delta.signed}",
        }[standing(zero)]
    ahead = sorted(
        (found for found in against.values() if standing(found) == "worse"), key=lambda it: it.macro_f1_delta.value
    )
    if not ahead:
        return f"{said}; nothing else that was measured does clearly better."
    named = [f"{found.b} (by {_away(found)}{_on(report, found.b)})" for found in ahead]
    return f"{said}; {_listed(named)} {'does' if len(named) == 1 else 'do'} better."


def data_findings(splits: SplitSummary) -> list[str]:
    """Caveats about the examples themselves."""
    cut = {split: count for split, count in splits.shortened.items() if count}
    if not cut:
        return []
    of = [f"{count:,} of {sum(splits.counts[split].values()):,} {split}" for split, count in cut.items()]
    return [
        f"A part of the text is left out in {_listed(of)} examples, as set in task.reader: neither the Student nor the "
        "Teacher saw it."
    ]


def system_rows(report: EvaluationReport, latency: LatencyReport, costs: CostReport) -> list[SystemRow]:
    """Prompted and distilled systems first, then all others in the report's order."""
    names = [name for name in report.systems if not name.endswith(CALIBRATED)]
    first = [ZERO_SHOT, *(name for name in names if name.startswith(FEW_SHOT)), *_FIRST]
    names.sort(key=lambda name: first.index(name) if name in first else len(first))
    against = {found.b.removesuffix(CALIBRATED): found for found in comparisons_of_shipped(report).values()}
    return [
        SystemRow(
            name=name,
            ships=name == report.shipped.removesuffix(CALIBRATED),
            report=report.systems[name],
            calibrated=report.systems.get(name + CALIBRATED),
            comparison=against.get(name),
            labels_used=labels_used(compared_as(name, report), costs.systems) if name in costs.systems else None,
            latency=latency.systems.get(name),
            cost=costs.systems.get(name),
            training_seconds=latency.training_seconds.get(name),
        )
        for name in names
    ]


def confusions(report: EvaluationReport) -> list[Confusion]:
    """Of zero-shot, the sweep's winner and what ships, all calibrated or none."""
    suffix = CALIBRATED if report.shipped.endswith(CALIBRATED) else ""
    shown: list[Confusion] = []
    for name in (ZERO_SHOT + suffix, CLUSTERED + suffix, report.shipped):
        if name not in report.systems:
            continue
        own = report.systems[name]
        same = next((earlier.name for earlier in shown if earlier.report.confusion == own.confusion), None)
        shown.append(Confusion(name, own, same))
    return shown


def trial_points(trials: Sequence[TrialReport], timed: Mapping[str, Latency], winner: str) -> list[TrialPoint]:
    """Those that answered most examples first, among these the best. The front is of those alone; it takes latency into
    account if every trial was timed; `timed`: by trial id."""
    most = max((trial.report.n for trial in trials), default=0)
    with_latency = all(trial.trial_id in timed for trial in trials)
    figures = {
        trial.trial_id: (
            -trial.report.macro_f1.value,
            float(trial.report.prompt_tokens),
            timed[trial.trial_id].p50_ms if with_latency else 0.0,
        )
        for trial in trials
        if trial.report.n == most
    }
    return [
        TrialPoint(
            trial=trial,
            whole=trial.report.n == most,
            p50_ms=timed[trial.trial_id].p50_ms if trial.trial_id in timed else None,
            on_front=trial.trial_id in figures
            and not any(_dominates(other, figures[trial.trial_id]) for other in figures.values()),
            won=trial.trial_id == winner,
        )
        for trial in sorted(trials, key=lambda trial: (-trial.report.n, objective(trial)))
    ]


def all_timed(points: Sequence[TrialPoint]) -> bool:
    """Whether the front takes latency into account."""
    return all(point.p50_ms is not None for point in points)


def shown_rules(rules: Sequence[Rule]) -> list[Rule]:
    """The rules that fit into the page, in order: all, or a sample by the hash of their ids."""
    kept: set[str] = set()
    room = MOST_BYTES
    for rule in sorted(rules, key=lambda rule: content_id(["report", rule.id])):
        room -= len(html.escape(rule.text).encode()) + 200  # and the markup around it
        if room < 0 or len(kept) == MOST_RULES:
            break
        kept.add(rule.id)
    return [rule for rule in rules if rule.id in kept]


def instruction_views(
    ships: Sequence[Instruction], descents: Sequence[Descent], effects: Sequence[Effect], shown: Sequence[Rule]
) -> list[InstructionView]:
    by_id = {rule.id: rule for rule in shown}
    descent_of = {own.instruction_id: own for own in descents}
    effect_of = {own.instruction_id: own for own in effects}
    return [
        InstructionView(
            place=place,
            own=own,
            descent=descent_of.get(own.id),
            effect=effect_of.get(own.id),
            rules=tuple(by_id[rule_id] for rule_id in own.rule_ids if rule_id in by_id),
            of_rules=len(own.rule_ids),
        )
        for place, own in enumerate(ships, 1)
    ]


def cluster_rows(clusters: Sequence[Cluster], ships: Sequence[Instruction]) -> list[ClusterRow]:
    """The largest first, as they are numbered; noise last."""
    places: dict[str, list[int]] = {}
    for place, own in enumerate(ships, 1):
        for rule_id in own.rule_ids:
            places.setdefault(rule_id, []).append(place)
    return [
        ClusterRow(cluster, tuple(sorted({place for rule_id in cluster.rule_ids for place in places.get(rule_id, ())})))
        for cluster in clusters
    ]


def behind_none(rules: Sequence[Rule], ships: Sequence[Instruction]) -> list[Rule]:
    """Rules that no instruction rests on."""
    used = {rule_id for own in ships for rule_id in own.rule_ids}
    return [rule for rule in rules if rule.id not in used]


def review_changes(
    came_in: Sequence[Instruction], ships: Sequence[Instruction], descents: Sequence[Descent]
) -> list[Change]:
    """Instructions that are in one list only; an added one that was made by editing a removed one is that one
    reworded."""
    gone = {own.id: own for own in came_in if own.id not in {new.id for new in ships}}
    edits = {own.instruction_id: own.edits for own in descents}
    changes = []
    for new in ships:
        if new.id not in {own.id for own in came_in}:
            steps = edits.get(new.id, ())
            was = next((step.from_id for step in reversed(steps) if step.from_id in gone), None)
            changes.append(Change(gone.pop(was) if was else None, new, steps[-1] if steps else None))
    return [*changes, *(Change(own, None) for own in gone.values())]


def _dominates(other: tuple[float, ...], own: tuple[float, ...]) -> bool:
    """Lower is better in all figures."""
    return other != own and all(theirs <= mine for theirs, mine in zip(other, own, strict=True))


def _interval(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _away(found: Comparison) -> str:
    """The absolute difference between two systems, with its interval."""
    delta = found.macro_f1_delta
    low, high = sorted((abs(delta.low), abs(delta.high)))
    return f"{abs(delta.value):.3f} [{low:.3f}, {high:.3f}]"


def _on(report: EvaluationReport, name: str) -> str:
    n = report.systems[name].n
    return "" if n == report.n else f" on the {n} that it answered"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
