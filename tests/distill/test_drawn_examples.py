"""Which training examples the Teacher is asked about (extraction.examples), and what the summary says of the others."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.distill import extract
from pld.errors import ExtractionError
from pld.ports import TeacherAnswer
from pld.records import Example, Task
from support.extraction import DRAWS, PARAMS, TASK, Correcting, Playback, example

SOME = st.lists(st.sampled_from(["red", "blue", "grey"]), max_size=24).map(
    lambda labels: [example(number, label) for number, label in enumerate(labels)]
)
THREE = TASK.model_copy(update={"labels": ("red", "blue", "grey")})


def drawn(number: int | None, examples: Sequence[Example], task: Task = THREE) -> list[str]:
    params = PARAMS.model_copy(update={"examples": number})
    return [item.id for item in extract.asked_about(task, examples, params)]


@given(SOME, st.integers(1, 26))
def test_a_larger_number_of_examples_keeps_the_ones_that_a_smaller_one_had(examples, number):
    fewer, more = drawn(number, examples), drawn(number + 1, examples)
    assert len(fewer) == min(number, len(examples))
    assert set(fewer) <= set(more)


@given(SOME, st.integers(1, 26))
def test_as_many_of_each_label_are_drawn_as_can_be_and_room_that_is_left_goes_to_labels_that_have_more(
    examples, number
):
    there = Counter(item.label for item in examples)
    counts = Counter(item.label for item in examples if item.id in drawn(number, examples))
    wanted = dict.fromkeys(THREE.labels, 0)
    while sum(wanted.values()) < min(number, len(examples)):
        open_to = [label for label in THREE.labels if wanted[label] < there[label]]
        wanted[min(open_to, key=lambda label: (wanted[label], THREE.labels.index(label)))] += 1
    assert counts == Counter(wanted)


@given(SOME, st.integers(1, 26), st.randoms(use_true_random=False))
def test_the_order_of_the_file_is_no_matter_and_is_kept(examples, number, random):
    mixed = random.sample(examples, len(examples))
    assert set(drawn(number, mixed)) == set(drawn(number, examples))
    assert drawn(number, mixed) == [item.id for item in mixed if item.id in drawn(number, mixed)]


@given(SOME, st.integers(1, 26), st.sampled_from(THREE.labels))
def test_an_added_example_takes_the_place_of_one_other_at_most(examples, number, label):
    before, after = set(drawn(number, examples)), set(drawn(number, [example(99, label), *examples]))
    assert after <= before | {"e99"}
    assert len(before - after) <= 1


def test_without_a_number_or_with_a_larger_one_the_teacher_is_asked_about_all():
    examples = [example(number) for number in range(5)]
    assert drawn(None, examples) == drawn(5, examples) == drawn(6, examples) == ["e0", "e1", "e2", "e3", "e4"]


def test_which_examples_are_drawn_never_changes():
    """Answers are paid for by example: another draw would ask about others."""
    examples = [example(number, ("red", "blue")[number % 2]) for number in range(30)]
    assert drawn(5, examples, TASK) == ["e1", "e2", "e5", "e8", "e16"]


def test_the_teacher_is_asked_about_the_drawn_examples_alone_and_the_summary_says_of_how_many():
    examples = [example(number, ("red", "blue")[number % 2]) for number in range(30)]
    params = DRAWS.model_copy(update={"examples": 4, "draws": 2})
    teacher = Correcting("red " * 31, "If it is warm, answer red.")
    done: list[int] = []
    _, _, summary = extract.extract(TASK, examples, params, teacher, 1, done.append)
    assert [request.key for request in teacher.requests] == [
        request.key for request in extract.extraction_requests(TASK, examples, params)
    ]
    assert len({request.key.partition("/")[0] for request in teacher.requests}) == 4
    assert (len(teacher.requests), sum(done), summary.examples, summary.not_asked) == (8, 8, 4, 26)
    assert list(summary.model_dump(mode="json"))[-1] == "not_asked"
    assert extract.coverage(summary) == (
        "asked about 4 of 30 training examples (extraction.examples), of which 4 have an answer"
    )


def test_of_the_drawn_examples_those_without_a_recorded_answer_are_told_apart_from_those_not_asked_about():
    examples = [example(number, "red") for number in range(30)]
    params = PARAMS.model_copy(update={"examples": 3})
    key = extract.asked_about(TASK, examples, params)[0].id
    answers = [TeacherAnswer(key, {"rationale": "w", "rule": "If warm, answer red.", "label": "red"}, recorded=True)]
    _, _, summary = extract.extract(TASK, examples, params, Playback(answers), 1)
    assert extract.coverage(summary) == (
        "asked about 3 of 30 training examples (extraction.examples), of which 1 has a recorded answer; the other 2 "
        "are left out"
    )
    _, rejections, nothing = extract.extract(TASK, examples, params, Playback([]), 1)
    with pytest.raises(ExtractionError, match=r"got none \(conf/teacher/, extraction\.examples\); "):
        extract.check_answers(nothing, rejections, params)
