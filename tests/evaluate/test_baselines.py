from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.distill.extract import ExtractionSummary
from pld.distill.trial import groups_of, sample
from pld.evaluate.baselines.prompting import few_shot_examples, nearest_examples
from pld.evaluate.baselines.without_llm import majority_scores
from pld.evaluate.build_systems import distillation_cost, readable_prompt, resolution_cost
from pld.evaluate.findings import findings, loop_findings, rivals, shipped_system, unparsable_findings
from pld.params import RenderingParams
from pld.records import Example, Instruction, Task
from pld.reports import Comparison, Interval, LoopEffect, SystemReport, TrainingCost
from support.artifact_tree import composed, resolution_report

TASK = Task(
    name="t", labels=("a", "b", "c"), fields=("x",), input_template="{{ x }}", base_instruction="Say a, b or c."
)
TRAIN = [Example(id=f"e{i}", inputs={"x": str(i)}, label="abc"[i % 3], split="train") for i in range(60)]
MEASURED = ("majority", "zero_shot", "zero_shot_calibrated", "tfidf_logreg", "clustered",
            "clustered_calibrated", "distilled", "distilled_calibrated")  # fmt: skip


@given(st.integers(1, 30), st.integers(0, 3))
def test_few_shot_examples_are_balanced_over_labels_and_depend_only_on_the_seed(size, seed):
    drawn = few_shot_examples(TASK, TRAIN, size, seed)
    counts = Counter(example.label for example in drawn)
    assert len(drawn) == len({example.id for example in drawn}) == size
    assert max(counts.values()) - min(counts[label] for label in TASK.labels) <= 1
    assert drawn == few_shot_examples(TASK, TRAIN[::-1], size, seed)


@given(st.integers(1, 6), st.integers(0, 6), st.integers(0, 3))
def test_a_larger_few_shot_prompt_begins_with_the_smaller_one(rounds, more, seed):
    small, large = (few_shot_examples(TASK, TRAIN, 3 * n, seed) for n in (rounds, rounds + more))
    assert large[: len(small)] == small


def test_another_seed_draws_other_few_shot_examples():
    assert few_shot_examples(TASK, TRAIN, 6, 0) != few_shot_examples(TASK, TRAIN, 6, 1)


def test_a_label_with_too_few_examples_gives_all_of_them():
    rare = [example for example in TRAIN if example.label != "c"] + [TRAIN[2]]
    assert Counter(e.label for e in few_shot_examples(TASK, rare, 9, 0)) == {"a": 3, "b": 3, "c": 1}


def on_a_circle(degrees):
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_the_nearest_example_comes_last():
    vectors = on_a_circle([0, 90, 20, 40, 180])
    asked = [Example(id="new", inputs={"x": "?"}, label="a", split="test")]
    (shown,) = nearest_examples(TRAIN[:5], vectors, asked, on_a_circle([35]), 3)
    assert [example.id for example in shown] == ["e0", "e2", "e3"]


@given(st.lists(st.integers(0, 360), min_size=2, max_size=12), st.integers(1, 14))
def test_a_training_example_is_never_its_own_neighbour(degrees, size):
    train, vectors = TRAIN[: len(degrees)], on_a_circle(degrees)
    for own, shown in zip(train, nearest_examples(train, vectors, train, vectors, size), strict=True):
        assert own not in shown
        assert len(shown) == min(size, len(train) - 1)


def test_the_majority_is_the_most_frequent_label_and_no_label_is_impossible():
    scores = majority_scores([TRAIN[1], TRAIN[4], TRAIN[0]], TASK.labels)
    assert TASK.labels[int(scores.argmax())] == "b"
    np.testing.assert_allclose(np.exp(scores), [2 / 6, 3 / 6, 1 / 6])


def test_a_calibrated_system_is_compared_with_calibrated_rivals_if_there_are_any():
    assert rivals(shipped_system("none"), MEASURED) == ("majority", "zero_shot", "tfidf_logreg", "clustered")
    calibrated = rivals(shipped_system("batch"), MEASURED)
    assert calibrated == ("majority", "zero_shot_calibrated", "tfidf_logreg", "clustered_calibrated")


def report(f1):
    interval = Interval(value=f1, low=f1 - 0.1, high=f1 + 0.1)
    return SystemReport(
        macro_f1=interval, accuracy=interval, per_label={}, confusion=(), unparsable=0, n=9, prompt_tokens=0
    )


def compared(rival, value, low, high):
    delta = Interval(value=value, low=low, high=high)
    return Comparison(a="distilled", b=rival, macro_f1_delta=delta, fixed=1, broken=2, mcnemar_p=0.5)


def found(*comparisons):
    reports = {"distilled": report(0.6)} | {one.b: report(0.6 - one.macro_f1_delta.value) for one in comparisons}
    return findings("distilled", reports, comparisons, "mail")


def test_a_better_system_without_an_llm_is_named_in_one_plain_sentence():
    (sentence,) = found(compared("tfidf_logreg", -0.1, -0.15, -0.05), compared("majority", 0.3, 0.2, 0.4))
    assert sentence == (
        "tfidf_logreg, which needs no LLM, does better than distilled on mail: "
        "macro-F1 0.700 against 0.600, by 0.100 [0.050, 0.150]."
    )


def test_an_unclear_lead_without_an_llm_is_reported_as_possible_chance():
    (sentence,) = found(compared("embedding_logreg", -0.02, -0.08, 0.04))
    assert sentence.endswith("by 0.020 [-0.040, 0.080], which may be chance.")


def test_a_system_with_unparsable_answers_is_a_finding():
    lost = report(0.6).model_copy(update={"unparsable": 3})
    assert unparsable_findings({"zero_shot": report(0.5)}) == ()
    (sentence,) = unparsable_findings({"zero_shot": report(0.5), "few_shot": lost, "few_shot_calibrated": lost})
    assert sentence.startswith("few_shot has no answer to 3 of 9 test examples (unparsable, ")


def test_a_better_system_with_an_llm_is_not_a_finding():
    assert found(compared("few_shot", -0.1, -0.15, -0.05)) == ()


def loop(chosen, honest, accepted=2):
    validation, test = compared("clustered", chosen, 0.0, 0.1), compared("clustered", *honest)
    return LoopEffect(rounds=2, candidates=20, accepted=accepted, validation=validation, test=test)


def test_a_gain_that_holds_on_test_is_not_a_finding():
    assert loop_findings(loop(0.04, (0.02, -0.01, 0.05))) == ()


def test_a_gain_that_vanishes_on_test_is_a_finding_with_both_figures():
    (sentence,) = loop_findings(loop(0.04, (-0.01, -0.05, 0.06)))
    assert sentence == (
        "What the loop accepted gained nothing on examples that it had not seen: macro-F1 +0.040 on validation, where "
        "it was chosen, and -0.010 [-0.050, +0.060] on test."
    )


@pytest.mark.parametrize("honest", [(0.02, 0.01, 0.03), (0.08, 0.05, 0.11)])
def test_a_validation_gain_outside_the_test_interval_is_a_finding(honest):
    (sentence,) = loop_findings(loop(0.04, honest))
    assert sentence.startswith("The loop's gain on test is not the one that validation promised: macro-F1 +0.040")


def test_a_loop_that_accepted_nothing_is_not_a_finding():
    assert loop_findings(loop(0.0, (0.0, 0.0, 0.0), accepted=0)) == ()
    assert loop_findings(None) == ()


def instruction(name, label, rules, origin="medoid"):
    return Instruction(id=name, text=name, label=label, rule_ids=rules, support=len(rules), origin=origin)


@pytest.mark.parametrize(
    ("exemplars", "per", "told"),
    [
        (0, "label", "3 instructions"),
        (2, "instruction", "3 instructions with 5 examples"),
        (2, "label", "3 instructions with 3 examples"),  # two of a's three rules, and b's only one
    ],
)
def test_a_prompt_is_described_by_its_numbers_of_instructions_and_examples(exemplars, per, told):
    rendering = RenderingParams(
        frame="list", order="support", exemplars=exemplars, exemplars_per=per, exemplars_as="inline", token_budget=None
    )
    lines = [
        instruction("one", "a", ("r1", "r2", "r3")),
        instruction("two", "a", ("r1", "r3")),
        instruction("three", "b", ("r4",)),
    ]
    assert readable_prompt(lines, (), rendering) == told


def test_distillation_cost_counts_rules_merges_and_sweep_answers():
    summary = ExtractionSummary(
        teacher="t", examples=9, answered=7, recorded=False, rules=6, rejected=1, doubtful=0, rules_per_label={},
        rejected_by_reason={}, usage={"input_tokens": 1000, "output_tokens": 200},
    )  # fmt: skip
    lines = [
        instruction("one", "a", ("r1", "r2"), "merged"),
        instruction("two", "a", ("r3",), "medoid (merge refused: other_label)"),
        instruction("three", "b", ("r4",)),
    ]
    cost = distillation_cost(summary, lines, 500)
    assert (cost.teacher_calls, cost.teacher_tokens, cost.recorded, cost.student_answers) == (9, 1200, False, 500)


def test_the_cost_of_the_loop_adds_to_that_of_the_sweep():
    spent = TrainingCost(teacher_calls=9, teacher_tokens=1000, student_answers=500)
    found = resolution_report(composed()).model_copy(update={"teacher_calls": 2, "teacher_tokens": 300})
    total = resolution_cost(spent, found)
    assert (total.teacher_calls, total.teacher_tokens, total.student_answers) == (11, 1300, 807)
    # tokens that were paid for now are not told as played back
    recorded = TrainingCost(teacher_calls=9, recorded=True)
    assert not resolution_cost(recorded, found).recorded
    assert resolution_cost(recorded, resolution_report(composed())).recorded


@given(st.integers(0, 80), st.integers(0, 59))
def test_a_sample_hardly_changes_when_an_example_is_removed(size, gone):
    whole = sample(TRAIN, size, "p")
    assert len(whole) == min(size, 60)
    fewer = sample([example for example in TRAIN if example.id != f"e{gone}"], size, "p")
    assert len({e.id for e in whole} - {e.id for e in fewer}) <= 1


def test_an_example_without_a_group_is_a_group_of_its_own():
    grouped = [TRAIN[0].model_copy(update={"group": "g"}), TRAIN[1].model_copy(update={"group": "g"}), TRAIN[2]]
    first, second, third = groups_of(grouped) or []
    assert first == second != third
    assert groups_of(TRAIN) is None
