from collections.abc import Sequence

import numpy as np
import pytest

from pld.metrics import indices, system_report
from pld.params import EvaluationParams, PromotionParams
from pld.records import Prediction
from pld.registry.promotion_gates import (
    Evidence,
    Verdict,
    better_than_zero_shot,
    judge,
    not_worse_than,
    not_worse_than_production,
    zero_shot_of,
)
from pld.reports import Comparison, EvaluationReport, Interval, Latency, LatencyReport
from pld.review.decisions import ReviewStanding

LABELS = ("yes", "no")
EVALUATION = EvaluationParams(seed=0, resamples=400)


def gates(**changes: object) -> PromotionParams:
    off = dict.fromkeys(PromotionParams.model_fields) | {
        "better_than_zero_shot": False,
        "not_worse_than_production": False,
        "require_review": False,
        "rivals": (),
    }
    return PromotionParams.model_validate({**off, **changes})


def evidence(
    wrong: Sequence[int] = (),
    low: float = 0.01,
    shipped: str = "distilled",
    rival: str = "zero_shot",
    digest: str = "d" * 32,
    labels: tuple[str, ...] = LABELS,
    groups: dict[str, str] | None = None,
    timed: tuple[str, ...] = ("distilled",),
    first: int = 0,
    unanswered: int = 0,
) -> Evidence:
    """200 examples of the first two labels in turn, those at `wrong` answered wrongly, the last ones `unanswered`."""
    rows = [
        Prediction(
            example_id=f"e{n + first}",
            system=shipped,
            label=labels[n % 2],
            predicted=labels[(n + (n in wrong)) % 2] if n < 200 - unanswered else None,
            scores=(-1.0, -2.0),
        )
        for n in range(200)
    ]
    gold = indices([row.label for row in rows], labels)
    report = system_report(gold, indices([row.predicted for row in rows], labels), labels, None, 100, 0, 60)
    delta = Interval(value=low + 0.1, low=low, high=low + 0.2)
    comparison = Comparison(a=shipped, b=rival, macro_f1_delta=delta, fixed=1, broken=0, mcnemar_p=0.5)
    latency = Latency(p50_ms=10, p95_ms=20, prefill_ms=5, requests=50)
    return Evidence(
        report=EvaluationReport(
            task="t",
            split="test",
            n=len(rows),
            labels=labels,
            prompt_sha256="0" * 64,
            shipped=shipped,
            systems={shipped: report},
            comparisons=(comparison,),
        ),
        latency=LatencyReport(machine="a test", systems=dict.fromkeys(timed, latency)),
        rows=rows,
        test_digest=digest,
        groups=groups or {},
    )


def not_worse(candidate: Evidence, production: Evidence | str | None) -> Verdict:
    return not_worse_than_production(candidate, production, EVALUATION)


@pytest.mark.parametrize(("low", "holds"), [(0.001, True), (0.0, False), (-0.2, False)])
def test_better_than_zero_shot_needs_the_whole_interval_above_zero(low: float, holds: bool) -> None:
    verdict = better_than_zero_shot(evidence(low=low).report)
    assert verdict.holds is holds
    assert f"[{low:+.3f}, " in verdict.figures


def test_a_calibrated_prompt_is_compared_with_the_calibrated_zero_shot_and_with_no_other() -> None:
    calibrated = "distilled_calibrated"
    assert zero_shot_of(calibrated) == "zero_shot_calibrated"
    assert better_than_zero_shot(evidence(shipped=calibrated, rival="zero_shot_calibrated").report).holds
    unfair = better_than_zero_shot(evidence(shipped=calibrated, rival="zero_shot").report)
    assert not unfair.holds
    assert "no zero_shot_calibrated" in unfair.figures


@pytest.mark.parametrize(("low", "holds"), [(0.1, True), (-0.2, True), (-0.21, False)])
def test_a_prompt_fails_only_if_the_whole_interval_to_a_rival_is_below_zero(low: float, holds: bool) -> None:
    verdict = not_worse_than(evidence(low=low, rival="few_shot").report, "few_shot")
    assert (verdict.gate, verdict.holds) == ("not_worse_than_few_shot", holds)
    assert verdict.figures.startswith(f"macro-F1 {low + 0.1:+.3f} [{low:+.3f}, ")
    assert verdict.figures.endswith("against few_shot, expected the interval to reach 0")


def test_a_calibrated_prompt_meets_its_rivals_calibrated_where_they_can_be() -> None:
    calibrated = "distilled_calibrated"
    assert not_worse_than(evidence(shipped=calibrated, rival="few_shot_calibrated").report, "few_shot").holds
    unfair = not_worse_than(evidence(shipped=calibrated, rival="few_shot").report, "few_shot")
    assert not unfair.holds
    assert not_worse_than(evidence(shipped=calibrated, rival="tfidf_logreg").report, "tfidf_logreg").holds


def test_a_rival_that_was_not_measured_fails_and_says_what_to_do() -> None:
    (verdict,) = judge(gates(rivals=("lora",)), EVALUATION, evidence(), None)
    assert (verdict.gate, verdict.holds) == ("not_worse_than_lora", False)
    assert verdict.figures == (
        "lora was not measured beside distilled; switch it on under baselines and run `dvc repro`, or take it out of "
        "promotion.rivals"
    )


def test_the_first_version_is_not_worse_than_an_empty_production() -> None:
    assert not_worse(evidence(), None).holds


def test_a_candidate_that_is_worse_within_noise_is_not_worse() -> None:
    assert not_worse(evidence(wrong=range(21)), evidence(wrong=range(10, 30))).holds


def test_a_candidate_that_is_clearly_worse_is_worse_with_its_figures() -> None:
    verdict = not_worse(evidence(wrong=range(60)), evidence())
    assert not verdict.holds
    assert "macro-F1 -0.300 [" in verdict.figures
    assert "200 test examples" in verdict.figures


def test_examples_are_matched_by_id_and_not_by_the_order_of_rows() -> None:
    production = evidence(wrong=range(60))
    shuffled = [production.predictions[n] for n in np.random.default_rng(0).permutation(200)]
    again = Evidence(production.report, production.latency, shuffled, production.test_digest)
    assert not_worse(evidence(), again) == not_worse(evidence(), production)


def test_with_groups_the_interval_is_that_of_whole_groups() -> None:
    # all 12 broken examples are of one group: over examples that is beyond noise, over five groups it is not
    wrong = range(12)
    groups = {f"e{n}": f"g{n // 40}" for n in range(200)}
    assert not not_worse(evidence(wrong=wrong), evidence()).holds
    assert not_worse(evidence(wrong=wrong, groups=groups), evidence()).holds


@pytest.mark.parametrize(
    ("production", "why"),
    [
        (evidence(digest="e" * 32), "another test set (eeeeeeeeeeee, the candidate's is dddddddddddd)"),
        (evidence(labels=("no", "yes")), "other labels"),
        (evidence(first=1), "other examples"),
        ("its run was deleted", "its run was deleted"),
    ],
)
def test_what_was_not_measured_on_the_same_examples_fails_and_says_why(production: Evidence | str, why: str) -> None:
    verdict = not_worse(evidence(), production)
    assert not verdict.holds
    assert why in verdict.figures


@pytest.mark.parametrize(("limit", "holds"), [(20, True), (19.9, False)])
def test_the_latency_limit_may_be_reached_but_not_passed(limit: float, holds: bool) -> None:
    (verdict,) = judge(gates(max_p95_ms=limit), EVALUATION, evidence(), None)
    assert (verdict.gate, verdict.holds) == ("max_p95_ms", holds)
    assert "p95 20.0 ms on a test" in verdict.figures


def test_a_calibrated_system_has_the_latency_of_its_prompt() -> None:
    candidate = evidence(shipped="distilled_calibrated", timed=("distilled",))
    assert judge(gates(max_p95_ms=20), EVALUATION, candidate, None)[0].holds


def test_a_latency_limit_without_a_measurement_fails() -> None:
    (verdict,) = judge(gates(max_p95_ms=1e9), EVALUATION, evidence(timed=()), None)
    assert not verdict.holds
    assert verdict.figures == (
        "no latency was measured for distilled; run `dvc repro -f -s evaluate`, then `dvc repro`"
    )


@pytest.mark.parametrize(("limit", "holds"), [(60, True), (59, False)])
def test_the_token_limit_may_be_reached_but_not_passed(limit: int, holds: bool) -> None:
    (verdict,) = judge(gates(max_prompt_tokens=limit), EVALUATION, evidence(), None)
    assert (verdict.holds, verdict.figures) == (holds, f"60 tokens, limit {limit}")


@pytest.mark.parametrize(("limit", "holds"), [(0.01, True), (0.005, False)])
def test_the_share_without_an_answer_may_reach_its_limit_but_not_pass_it(limit: float, holds: bool) -> None:
    (verdict,) = judge(gates(max_unparsable_rate=limit), EVALUATION, evidence(unanswered=2), None)
    assert (verdict.gate, verdict.holds) == ("max_unparsable_rate", holds)
    assert verdict.figures == f"2 of 200 test examples without an answer (0.01), limit {limit:g}"


@pytest.mark.parametrize(("floor", "holds"), [(0.9, True), (0.91, False)])
def test_no_labels_recall_may_be_below_the_floor(floor: float, holds: bool) -> None:
    # ten of the hundred "yes" are answered wrongly, and none of the "no"
    (verdict,) = judge(gates(min_label_recall=floor), EVALUATION, evidence(wrong=range(0, 20, 2)), None)
    assert (verdict.gate, verdict.holds) == ("min_label_recall", holds)
    assert verdict.figures == f"recall of yes 0.900, floor {floor:g}"


def test_a_label_without_test_examples_is_named_and_not_judged() -> None:
    (verdict,) = judge(gates(min_label_recall=0.5), EVALUATION, evidence(labels=("yes", "no", "maybe")), None)
    assert verdict.holds
    assert verdict.figures == "recall of yes 1.000, maybe has no test example, floor 0.5"


def test_a_required_review_needs_an_approval_of_this_prompt() -> None:
    asked = gates(require_review=True)
    approved = ReviewStanding(approved=True, words="2 of 2 approved", entries=1, head="a")
    (verdict,) = judge(asked, EVALUATION, evidence(), None, approved)
    assert (verdict.gate, verdict.holds, verdict.figures) == ("reviewed", True, "2 of 2 approved")
    missing = ReviewStanding(approved=False, words="1 of 2 approved", entries=1, head="a")
    for review in (missing, None):
        assert not judge(asked, EVALUATION, evidence(), None, review)[0].holds


def test_only_the_gates_that_are_asked_for_are_judged() -> None:
    assert judge(gates(), EVALUATION, evidence(low=-1), None) == ()
    both = gates(better_than_zero_shot=True, not_worse_than_production=True)
    asked = judge(both, EVALUATION, evidence(), None)
    assert [verdict.gate for verdict in asked] == ["better_than_zero_shot", "not_worse_than_production"]
