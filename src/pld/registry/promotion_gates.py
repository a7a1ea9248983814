"""The gates that a candidate must pass to become production, judged on stored measurements."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pld.evaluate.findings import standing
from pld.evaluate.verdict import comparison_with
from pld.metrics import compare, indices
from pld.params import EvaluationParams, PromotionParams
from pld.records import CALIBRATED, ZERO_SHOT, Prediction, Record
from pld.reports import EvaluationReport, LatencyReport, SystemReport
from pld.review.decisions import ReviewStanding

REVIEWED = "reviewed"
"""The gate that `--force` can't override."""


class Verdict(Record):
    """Whether one gate `holds`, and the `figures` behind that, as text."""

    gate: str
    holds: bool
    figures: str

    def __str__(self) -> str:
        return f"{self.gate} {'holds' if self.holds else 'failed'}: {self.figures}"


@dataclass(frozen=True)
class Evidence:
    """A version's measurement on test. `rows` are the predictions of every system, `test_digest` names the test set's
    content, `groups` maps each example id → group where the data set has groups."""

    report: EvaluationReport
    latency: LatencyReport
    rows: Sequence[Prediction]
    test_digest: str
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def predictions(self) -> list[Prediction]:
        """Those of the shipped system."""
        return [row for row in self.rows if row.system == self.report.shipped]


Production = Evidence | str | None
"""The measurement of the version in production, why there is none, or None: nothing is in production yet."""


def judge(
    gates: PromotionParams,
    evaluation: EvaluationParams,
    candidate: Evidence,
    production: Production,
    review: ReviewStanding | None = None,
) -> tuple[Verdict, ...]:
    """The verdict of each configured gate. `review`: what the review log says about the candidate's prompt."""
    shipped = candidate.report.systems[candidate.report.shipped]
    verdicts = []
    if gates.better_than_zero_shot:
        verdicts.append(better_than_zero_shot(candidate.report))
    verdicts += [not_worse_than(candidate.report, rival) for rival in gates.rivals]
    if gates.not_worse_than_production:
        verdicts.append(not_worse_than_production(candidate, production, evaluation))
    if gates.max_p95_ms is not None:
        verdicts.append(_p95_within(gates.max_p95_ms, candidate))
    if (most := gates.max_prompt_tokens) is not None:
        figures = f"{shipped.prompt_tokens} tokens, limit {most}"
        verdicts.append(_verdict("max_prompt_tokens", shipped.prompt_tokens <= most, figures))
    if (highest := gates.max_unparsable_rate) is not None:
        rate = shipped.unparsable / shipped.n if shipped.n else 0.0
        figures = f"{shipped.unparsable} of {shipped.n} test examples without an answer ({rate:.3g}), limit {highest:g}"
        verdicts.append(_verdict("max_unparsable_rate", rate <= highest, figures))
    if gates.min_label_recall is not None:
        verdicts.append(min_label_recall(shipped, gates.min_label_recall))
    if gates.require_review:
        approved = review is not None and review.approved
        verdicts.append(_verdict(REVIEWED, approved, review.words if review else "there is no review log"))
    return tuple(verdicts)


def _verdict(gate: str, holds: bool, figures: str) -> Verdict:
    return Verdict(gate=gate, holds=holds, figures=figures)


def min_label_recall(shipped: SystemReport, floor: float) -> Verdict:
    """Holds when no declared label's recall on test is below `floor`. Labels without test examples are named; if no
    label has any, the gate fails."""
    judged = {label: score.recall for label, score in shipped.per_label.items() if score.support}
    unjudged = [label for label in shipped.per_label if label not in judged]
    low = {label: recall for label, recall in judged.items() if recall < floor}
    shown = low or dict([min(judged.items(), key=lambda item: item[1])] if judged else [])
    words = [f"recall of {label} {recall:.3f}" for label, recall in shown.items()]
    words += [f"{label} has no test example" for label in unjudged]
    return _verdict("min_label_recall", bool(judged) and not low, f"{', '.join(words)}, floor {floor:g}")


def base_name(system: str) -> str:
    """The uncalibrated variant of the system: the same prompt, so the same latency."""
    return system.removesuffix(CALIBRATED)


def zero_shot_of(shipped: str) -> str:
    """The zero-shot system with the same calibration as the shipped one."""
    return ZERO_SHOT + (CALIBRATED if shipped.endswith(CALIBRATED) else "")


def better_than_zero_shot(report: EvaluationReport) -> Verdict:
    """Holds when the 95 % interval of the paired macro-F1 difference to zero-shot lies above 0."""
    gate, found = "better_than_zero_shot", comparison_with(report, ZERO_SHOT)
    if found is None:
        return _verdict(gate, False, f"the report compares {report.shipped} with no {zero_shot_of(report.shipped)}")
    figures = f"macro-F1 {found.macro_f1_delta.signed} against {found.b}, expected the interval above 0"
    return _verdict(gate, standing(found) == "better", figures)


def not_worse_than(report: EvaluationReport, rival: str) -> Verdict:
    """Fails when the 95 % interval of the paired macro-F1 difference to `rival`, under the same calibration, lies
    wholly below 0, and when it was not measured."""
    gate, found = f"not_worse_than_{rival}", comparison_with(report, rival)
    if found is None:
        return _verdict(
            gate,
            False,
            f"{rival} was not measured beside {report.shipped}; switch it on under baselines and run `dvc repro`, or "
            "take it out of promotion.rivals",
        )
    figures = f"macro-F1 {found.macro_f1_delta.signed} against {found.b}, expected the interval to reach 0"
    return _verdict(gate, standing(found) != "worse", figures)


def not_worse_than_production(candidate: Evidence, production: Production, evaluation: EvaluationParams) -> Verdict:
    """Fails when the candidate is worse by more than noise: the whole 95 % interval of the paired macro-F1 difference
    lies below 0. Both must have answered the same examples; otherwise it fails and says so."""
    gate = "not_worse_than_production"
    if production is None:
        return _verdict(gate, True, "nothing is in production yet")
    if isinstance(production, str):
        return _verdict(gate, False, production)
    if candidate.report.labels != production.report.labels:
        return _verdict(gate, False, "production was evaluated with other labels")
    if candidate.test_digest != production.test_digest:
        return _verdict(
            gate,
            False,
            f"production was evaluated on another test set ({production.test_digest[:12]}, "
            f"the candidate's is {candidate.test_digest[:12]}); run `dvc repro`, then `pld promote`",
        )
    own = candidate.predictions
    theirs = {row.example_id: row.predicted for row in production.predictions}
    if set(theirs) != {row.example_id for row in own}:
        return _verdict(gate, False, "production's stored predictions are of other examples")
    labels = candidate.report.labels
    delta = compare(
        "candidate",
        "production",
        indices([row.label for row in own], labels),
        indices([row.predicted for row in own], labels),
        indices([theirs[row.example_id] for row in own], labels),
        len(labels),
        [candidate.groups[row.example_id] for row in own] if candidate.groups else None,
        evaluation.resamples,
        evaluation.seed,
    ).macro_f1_delta
    figures = f"macro-F1 {delta.signed} against production on {len(theirs)} test examples, expected the interval to"
    return _verdict(gate, delta.high >= 0, f"{figures} reach 0")


def _p95_within(limit: float, candidate: Evidence) -> Verdict:
    shipped = candidate.report.shipped
    measured = candidate.latency.systems.get(shipped) or candidate.latency.systems.get(base_name(shipped))
    if measured is None:
        return _verdict(
            "max_p95_ms",
            False,
            f"no latency was measured for {shipped}; run `dvc repro -f -s evaluate`, then `dvc repro`",
        )
    figures = f"p95 {measured.p95_ms:.1f} ms on {candidate.latency.machine}, limit {limit:g} ms"
    return _verdict("max_p95_ms", measured.p95_ms <= limit, figures)
