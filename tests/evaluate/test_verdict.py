"""What the verdict advises, from made-up comparisons."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.evaluate.verdict import labels_used, recommendation
from pld.params import EvaluationParams, PromotionParams
from pld.registry.promotion_gates import Evidence, judge
from pld.reports import Comparison, EvaluationReport, Interval, LatencyReport, SystemCost, SystemReport, TrainingCost

N = 600
GATES = PromotionParams(
    better_than_zero_shot=True,
    rivals=("few_shot",),
    not_worse_than_production=False,
    max_p95_ms=None,
    max_prompt_tokens=None,
    max_unparsable_rate=None,
    min_label_recall=None,
    require_review=False,
)
BETTER, LEVEL, WORSE = 0.1, 0.0, -0.1
LABELS = {"zero_shot": 0, "few_shot": 12, "tfidf_logreg": 1000, "tfidf_logreg_explained": 349}
TOKENS = {"zero_shot": 60, "few_shot": 700, "few_shot_48": 2500, "lora": 60}


def report(shipped="distilled", sizes=None, **lead):
    """What ships reaches 0.8 and leads each system by so much, give or take 0.05; `sizes`: n where it is less."""

    def system(f1, n):
        own = Interval(value=f1, low=f1 - 0.02, high=f1 + 0.02)
        return SystemReport(
            macro_f1=own, accuracy=own, per_label={}, confusion=(), unparsable=0, n=n, prompt_tokens=100
        )

    sizes = {shipped: N, **dict.fromkeys(lead, N), **(sizes or {})}
    deltas = {name: Interval(value=own, low=own - 0.05, high=own + 0.05) for name, own in lead.items()}
    return EvaluationReport(
        task="mail",
        split="test",
        n=N,
        labels=("yes", "no"),
        prompt_sha256="0" * 64,
        shipped=shipped,
        systems={name: system(0.8 - lead.get(name, 0), n) for name, n in sizes.items()},
        comparisons=tuple(
            Comparison(a=shipped, b=name, macro_f1_delta=delta, fixed=1, broken=1, mcnemar_p=1.0)
            for name, delta in deltas.items()
        ),
    )


def costs(*names, tokens=300, labels=549):
    """Of what ships, which uses so many, and of the systems `names`."""

    def cost(tokens, labels):
        return SystemCost(tokens_per_request=tokens, training=TrainingCost(), readable="", labels_used=labels)

    found = {name: cost(TOKENS.get(name, 0), LABELS.get(name, 48)) for name in names}
    return {**found, "distilled": cost(tokens, labels)}


def advised(tokens=300, labels=549, sizes=None, **lead):
    return recommendation(report(sizes=sizes, **lead), costs(*lead, tokens=tokens, labels=labels), GATES)


def test_a_prompt_that_is_clearly_better_ships() -> None:
    found = advised(zero_shot=BETTER, few_shot=BETTER)
    assert (found.ships, found.better) == (True, None)
    assert found.decision == "Ship the distilled prompt."
    assert found.why == "On 600 test examples it is clearly better than zero_shot and few_shot."
    assert found.instead == "Nothing else that was measured is clearly better, or as good for less."


def test_a_prompt_that_is_level_with_a_longer_few_shot_prompt_ships() -> None:
    found = advised(zero_shot=BETTER, few_shot=LEVEL)
    assert (found.ships, found.better) == (True, None)
    assert found.why == "On 600 test examples it is clearly better than zero_shot, level with few_shot."


def test_few_shot_is_recommended_where_it_is_as_good_with_fewer_tokens_and_labels() -> None:
    found = advised(tokens=2900, zero_shot=BETTER, few_shot=LEVEL)
    assert (found.ships, found.better) == (True, "few_shot")
    assert found.decision == "The distilled prompt passes its gates, but few_shot does as well for less."
    assert found.instead == (
        "Use few_shot: it is not clearly different (macro-F1 +0.000), with 12 labels and 700 "
        "tokens a request against 549 and 2,900."
    )


def test_a_prompt_that_is_clearly_worse_than_few_shot_does_not_ship() -> None:
    found = advised(zero_shot=BETTER, few_shot=WORSE)
    assert (found.ships, found.better) == (False, "few_shot")
    assert found.decision == "Don't ship the distilled prompt."
    assert found.why == "On 600 test examples it is clearly better than zero_shot, clearly worse than few_shot."
    assert found.instead == (
        "Use few_shot: it is clearly better (macro-F1 +0.100) with 12 labels against 549, at 700 tokens a request "
        "against 300."
    )


def test_a_prompt_that_is_no_better_than_zero_shot_does_not_ship() -> None:
    found = advised(zero_shot=LEVEL, few_shot=BETTER)
    assert (found.ships, found.better) == (False, "zero_shot")


def test_a_classifier_that_is_clearly_better_with_as_many_labels_is_named_first() -> None:
    found = advised(zero_shot=BETTER, few_shot=WORSE, tfidf_logreg=WORSE, tfidf_logreg_explained=-0.08)
    assert found.better == "tfidf_logreg_explained"
    assert found.instead == (
        "Use tfidf_logreg_explained: it needs no LLM and is clearly better (macro-F1 +0.080) with 349 labels against "
        "549."
    )


def test_a_classifier_that_is_only_better_with_more_labels_is_named_and_not_recommended() -> None:
    found = advised(zero_shot=BETTER, few_shot=BETTER, tfidf_logreg=WORSE, tfidf_logreg_explained=LEVEL)
    assert (found.ships, found.better) == (True, None)
    assert found.decision == "Ship the distilled prompt."
    assert found.instead == (
        "Nothing does clearly better with as few labels (549), but tfidf_logreg does with 1,000 (macro-F1 +0.100)."
    )


def test_a_lead_on_a_part_of_the_test_set_says_so() -> None:
    found = advised(zero_shot=BETTER, few_shot=BETTER, chain_of_thought=WORSE, sizes={"chain_of_thought": 24})
    assert "(macro-F1 +0.100 on the 24 examples that it answered)" in found.instead


def test_a_missing_rival_keeps_a_prompt_from_shipping() -> None:
    found = advised(zero_shot=BETTER)
    assert not found.ships
    assert found.why == "On 600 test examples it is clearly better than zero_shot, not compared with few_shot."


def test_calibrated_systems_are_compared_and_count_the_labels_of_their_calibration() -> None:
    lead = {"zero_shot": WORSE, "zero_shot_calibrated": BETTER, "few_shot": WORSE, "few_shot_calibrated": LEVEL}
    spent = costs("zero_shot", "few_shot", tokens=700)
    for name, own in spent.items():
        spent[name] = own.model_copy(update={"labels_used_calibrated": own.labels_used + 200})
    found = recommendation(report("distilled_calibrated", **lead), spent, GATES)
    assert found.ships
    assert found.instead == (
        "Use few_shot: it is not clearly different (macro-F1 +0.000), with 212 labels and 700 "
        "tokens a request against 749 and 700."
    )
    assert labels_used("few_shot", spent) == 12


@pytest.mark.parametrize("shipped", ["distilled", "distilled_calibrated"])
@given(
    st.dictionaries(
        st.sampled_from([name + kind for name in ("zero_shot", "few_shot", "lora") for kind in ("", "_calibrated")]),
        st.sampled_from([BETTER, LEVEL, WORSE]),
    ),
    st.booleans(),
    st.sets(st.sampled_from(["few_shot", "lora"])),
)
def test_the_verdict_ships_exactly_what_the_gates_let_through(shipped, lead, better_than_zero_shot, rivals) -> None:
    gates = GATES.model_copy(update={"better_than_zero_shot": better_than_zero_shot, "rivals": tuple(sorted(rivals))})
    own = report(shipped, **lead)
    evidence = Evidence(own, LatencyReport(machine="", systems={}), [], "")
    verdicts = judge(gates, EvaluationParams(seed=0, resamples=100), evidence, None)
    found = recommendation(own, costs("zero_shot", "few_shot", "lora"), gates)
    assert found.ships == all(verdict.holds for verdict in verdicts)
