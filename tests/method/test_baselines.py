from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.method.baselines import few_shot_examples, rivals, shipped_system, systems
from pld.method.trial import groups_of, sample
from pld.records import Example, Task

TASK = Task(
    name="t", labels=("a", "b", "c"), fields=("x",), input_template="{{ x }}", base_instruction="Say a, b or c."
)
TRAIN = [Example(id=f"e{i}", inputs={"x": str(i)}, label="abc"[i % 3], split="train") for i in range(60)]


@given(st.integers(1, 30), st.integers(0, 3))
def test_few_shot_examples_are_balanced_over_the_labels_and_repeat_with_the_seed(size, seed):
    drawn = few_shot_examples(TASK, TRAIN, size, seed)
    counts = Counter(example.label for example in drawn)
    assert len(drawn) == len({example.id for example in drawn}) == size
    assert max(counts.values()) - min(counts[label] for label in TASK.labels) <= 1
    assert drawn == few_shot_examples(TASK, TRAIN[::-1], size, seed)


def test_another_seed_draws_others():
    assert few_shot_examples(TASK, TRAIN, 6, 0) != few_shot_examples(TASK, TRAIN, 6, 1)


def test_a_label_with_too_few_examples_gives_what_it_has():
    rare = [example for example in TRAIN if example.label != "c"] + [TRAIN[2]]
    assert Counter(e.label for e in few_shot_examples(TASK, rare, 9, 0)) == {"a": 3, "b": 3, "c": 1}


def test_each_system_begins_with_its_own_messages():
    found = systems(TASK, "the prompt", TRAIN[:2])
    assert [message.content for message in found["zero_shot"]] == ["Say a, b or c."]
    assert [message.content for message in found["few_shot"]] == ["Say a, b or c.", "0", "a", "1", "b"]
    assert [message.content for message in found["distilled"]] == ["the prompt"]


@pytest.mark.parametrize("method", ["none", "batch"])
def test_what_ships_is_compared_with_baselines_of_its_own_kind(method):
    shipped = shipped_system(method)
    assert all(rival.endswith("_calibrated") == shipped.endswith("_calibrated") for rival in rivals(shipped))


@given(st.integers(0, 80), st.integers(0, 59))
def test_a_sample_keeps_its_examples_when_another_one_leaves(size, gone):
    whole = sample(TRAIN, size, "p")
    assert len(whole) == min(size, 60)
    fewer = sample([example for example in TRAIN if example.id != f"e{gone}"], size, "p")
    assert len({e.id for e in whole} - {e.id for e in fewer}) <= 1


def test_examples_without_a_group_stand_alone_beside_those_with_one():
    grouped = [TRAIN[0].model_copy(update={"group": "g"}), TRAIN[1].model_copy(update={"group": "g"}), TRAIN[2]]
    first, second, third = groups_of(grouped) or []
    assert first == second != third
    assert groups_of(TRAIN) is None
