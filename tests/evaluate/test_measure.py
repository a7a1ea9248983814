from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pld.calibration import fit_batch
from pld.config.composition import compose
from pld.distill.calibrating import Part
from pld.distill.render import prompt_messages
from pld.evaluate.measure import Answers, answers_of, answers_of_twin, asked_of, evaluation_report, twin_of
from pld.evaluate.systems import Prompted, Replies, System
from pld.ports import Generation
from pld.records import Calibration, Example, Message, Task
from pld.reports import SystemCost, TrainingCost
from support.artifact_tree import resolution_report

LABELS = ("a", "b")
COST = SystemCost(tokens_per_request=7, training=TrainingCost(), readable="all of it")


@pytest.fixture(scope="module")
def config():
    composed = compose(Path("conf"), Path("params.yaml"))
    changed = composed.model_copy(update={"task": composed.task.model_copy(update={"labels": LABELS})})
    return with_method(changed, "none")


TEST = [Example(id=f"e{i}", inputs={"sentence": str(i)}, label="ab"[i % 2], split="test") for i in range(40)]


def with_method(config, method):
    return config.model_copy(update={"calibration": config.calibration.model_copy(update={"method": method})})


def answers(right, shift=0.0, examples=TEST, calibrated=True):
    """Scores that choose the gold label for the first `right` examples; `shift` favours label b everywhere."""
    scores = np.array(
        [[-1.0, -2.0] if (e.label == "a") == (i < right) else [-2.0, -1.0] for i, e in enumerate(examples)]
    )
    scores[:, 1] += shift
    calibration = fit_batch(scores, LABELS) if calibrated else None
    return Answers(examples, scores, calibration, prompt_tokens=10 * right, cost=COST)


def report_of(config, resolution=None, **changed):
    given = {
        "zero_shot": answers(10),
        "few_shot": answers(20),
        "tfidf_logreg": answers(15, calibrated=False),
        "clustered": answers(36),
        "distilled": answers(40),
    } | changed
    return evaluation_report(
        config, "sha", TEST, given, {"engine": "plain prefix cache"}, resolution or resolution_report(config)
    )


def test_every_system_and_its_calibrated_variant_are_reported(config):
    report, predictions = report_of(config)
    names = {"zero_shot", "few_shot", "clustered", "distilled"}
    assert set(report.systems) == names | {f"{name}_calibrated" for name in names} | {"tfidf_logreg"}
    assert {item.system for item in predictions} == set(report.systems)
    assert len(predictions) == 9 * len(TEST)
    assert report.student == {"engine": "plain prefix cache"}
    assert {(c.a, c.b) for c in report.comparisons} == {
        (f"distilled{kind}", f"{rival}{kind}")
        for kind in ("", "_calibrated")
        for rival in ("zero_shot", "few_shot", "clustered")
    } | {("distilled", "tfidf_logreg"), ("distilled_calibrated", "tfidf_logreg")}


def test_inputs_longer_than_the_embedders_window_are_counted_in_a_finding(config):
    given = {"zero_shot": answers(10), "clustered": answers(36), "distilled": answers(40)}
    report, _ = evaluation_report(config, "sha", TEST, given, {}, resolution_report(config), 3)
    assert report.findings[-1].startswith(f"3 of {len(TEST)} test inputs are longer than the embedder's window: ")


def test_systems_are_compared_on_the_examples_that_both_answered(config):
    part = TEST[5:15]
    report, predictions = report_of(
        config, distilled=answers(8), chain_of_thought=answers(10, examples=part, calibrated=False)
    )
    assert report.systems["chain_of_thought"].n == 10
    assert report.systems["distilled"].n == report.n == 40
    (found,) = (c for c in report.comparisons if (c.a, c.b) == ("distilled", "chain_of_thought"))
    # of the ten, the distilled prompt has examples 5, 6 and 7 right and the chain of thought all
    assert (found.fixed, found.broken) == (0, 7)
    answered = [item.example_id for item in predictions if item.system == "chain_of_thought"]
    assert answered == [example.id for example in part]


def test_the_report_says_when_a_system_without_an_llm_wins(config):
    assert report_of(config)[0].findings == ()  # of the loop neither: test shows the gain of validation
    (sentence,) = report_of(config, clustered=answers(2), distilled=answers(5))[0].findings
    assert sentence.startswith("tfidf_logreg, which needs no LLM, does better than distilled")


def test_the_report_says_which_system_has_unparsable_answers(config):
    cut = answers(20)
    cut.scores[:3] = np.nan
    (sentence,) = report_of(config, few_shot=cut)[0].findings
    assert sentence.startswith("few_shot has no answer to 3 of 40 test examples")


def test_the_loop_effect_has_the_gain_on_validation_and_on_test(config):
    loop = report_of(config, resolution_report(config, rounds=2, accepted=1, gain=0.12))[0].loop
    assert (loop.rounds, loop.candidates, loop.accepted) == (2, 6, 1)
    assert loop.validation.macro_f1_delta.value == 0.12
    assert (loop.test.a, loop.test.b) == ("distilled", "clustered")
    assert (loop.test.fixed, loop.test.broken) == (4, 0)


def test_the_gain_on_test_is_that_of_what_ships(config):
    batch = with_method(config, "batch")
    loop = report_of(batch)[0].loop
    assert (loop.test.a, loop.test.b) == ("distilled_calibrated", "clustered_calibrated")


def test_the_loop_effect_is_measured_before_review(config):
    loop = report_of(config, unreviewed=answers(38))[0].loop
    assert (loop.test.a, loop.test.b) == ("unreviewed", "clustered")
    assert (loop.test.fixed, loop.test.broken) == (2, 0)


def test_without_a_loop_there_is_no_loop_effect(config):
    none = resolution_report(config, rounds=0, accepted=0, gain=0.0)
    report, _ = report_of(config, none, clustered=answers(40))
    assert report.loop is None
    assert report.systems["clustered"] == report.systems["distilled"]
    assert report.findings == ()


def test_a_gain_that_was_only_on_validation_is_a_finding_of_the_report(config):
    (sentence,) = report_of(config, clustered=answers(40))[0].findings
    assert sentence.startswith("What the loop accepted gained nothing on examples that it had not seen")


def test_what_ships_follows_the_setting(config):
    assert report_of(config)[0].shipped == "distilled"
    batch = with_method(config, "batch")
    assert report_of(batch)[0].shipped == "distilled_calibrated"


def test_calibration_corrects_scores_that_favour_one_label(config):
    report, _ = report_of(config, distilled=answers(40, shift=5.0))
    assert report.systems["distilled"].accuracy.value == 0.5
    assert report.systems["distilled_calibrated"].accuracy.value == 1.0


def test_stored_scores_choose_the_stored_label(config):
    _, predictions = report_of(config, distilled=answers(17, shift=0.4))
    for item in predictions:
        assert item.predicted == "ab"[int(np.argmax(item.scores))]


class WordCounter:
    """As much of a Student as counting takes."""

    def count_tokens(self, messages):
        return sum(len(message.content.split()) for message in messages)


def thinker(**changes):
    """A system whose chats and chains grow with the example's number; every second chain is cut."""

    def answer(examples, on_progress=None):
        numbers = [int(example.inputs["sentence"]) for example in examples]
        chats = [(Message(role="user", content="word " * number),) for number in numbers]
        chains = [Generation(text="so", tokens=number, finished=number % 2 == 0) for number in numbers]
        return Replies(np.array([[-1.0 - number, -2.0] for number in numbers]), chats, chains)

    beginning = (Message(role="system", content="think about it"),)
    return System("thinker", answer, readable="chains", student=WordCounter(), beginning=beginning, **changes)


def test_tokens_per_request_are_the_median_of_tokens_read_and_written(config):
    found = answers_of(thinker(), TEST[:5], config)
    assert (found.cost.tokens_per_request, found.prompt_tokens) == (2, 3)
    assert [message.content for message in found.beginning] == ["think about it"]


def test_truncated_chains_are_counted_and_every_chain_is_kept(config):
    found = answers_of(thinker(), TEST[1:4], config)
    assert found.cost.cut_share == 2 / 3
    assert [(chain.example_id, chain.tokens, chain.finished) for chain in found.chains] == [
        ("e1", 1, False), ("e2", 2, True), ("e3", 3, False),
    ]  # fmt: skip


def test_a_system_is_calibrated_on_its_answers_to_training_examples_or_not_at_all(config):
    batch = with_method(config, "batch")
    assert answers_of(thinker(), TEST[:3], batch).calibration is None
    parts = [Part(thinker().beginning, tuple(TEST[10:13]))]
    found = answers_of(thinker(calibration_parts=parts), TEST[:3], batch)
    assert (found.calibration.bias, found.calibration.examples) == ((12.0, 2.0), 3)
    assert (len(found.scores), len(found.chains), found.cost.tokens_per_request) == (3, 3, 1), "of test alone"
    assert (found.cost.labels_used, found.cost.labels_used_calibrated) == (0, 3)
    # one that is given is what ships, and nothing is asked for it
    given = thinker(calibration=CALIBRATION, calibration_parts=[Part(thinker().beginning, tuple(TEST[:2]))])
    found = answers_of(given, TEST[:3], batch)
    assert found.calibration == CALIBRATION
    assert found.cost.labels_used_calibrated == 2


def prompted(text="be brief", calibration=None, student=None):
    task = Task(name="t", labels=LABELS, fields=("sentence",), input_template="{{ sentence }}", base_instruction="a, b")
    beginning = prompt_messages(text)
    student = student or WORD_COUNTER
    return System(
        "own", Prompted(task, student, beginning), "1 line", student, beginning,
        TrainingCost(teacher_calls=3), calibration=calibration,
    )  # fmt: skip


WORD_COUNTER = WordCounter()
CALIBRATION = Calibration(method="batch", labels=LABELS, scale=1.0, bias=(1.0, 2.0), examples=3)


def test_systems_with_the_same_student_and_messages_are_twins():
    system = prompted(calibration=CALIBRATION)
    twin = prompted(calibration=CALIBRATION)
    assert twin_of(system, [prompted("be long", CALIBRATION), twin]) is twin
    assert twin_of(system, [prompted("be brief ", CALIBRATION)]) is None, "byte for byte"
    assert twin_of(system, [prompted(calibration=CALIBRATION, student=WordCounter())]) is None
    assert twin_of(system, [replace(twin, sample=5)]) is None


def test_a_twin_keeps_its_own_calibration_and_cost():
    shifted = CALIBRATION.model_copy(update={"bias": (3.0, 4.0)})
    found = answers_of_twin(prompted(calibration=shifted), answers(10))
    assert found.calibration == shifted
    assert found.scores is not None
    assert found.prompt_tokens == 100
    assert (found.cost.readable, found.cost.training.teacher_calls, found.cost.tokens_per_request) == ("1 line", 3, 7)


def test_a_slow_system_answers_a_seeded_sample_in_test_order():
    drawn = asked_of(thinker(sample=10), TEST, 0)
    assert len(drawn) == 10
    assert drawn == [example for example in TEST if example in drawn]
    assert drawn == asked_of(thinker(sample=10), TEST[::-1], 0)[::-1]
    assert drawn != asked_of(thinker(sample=10), TEST, 1)
    assert asked_of(thinker(), TEST, 0) == asked_of(thinker(sample=99), TEST, 0) == TEST
