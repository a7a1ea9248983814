import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.distill.render import frame_system_prompt
from pld.params import RenderingParams
from pld.records import Example, Instruction, Task
from pld.resolve.blame import blame, most_blamed
from pld.resolve.proposer import Answered

LABELS = ("a", "b", "c")


def instruction(name, label="a"):
    return Instruction(id=name, text=f"If so, answer {label}.", label=label, rule_ids=(), support=0, origin="t")


def failure(i, gold, said):
    return Answered(Example(id=f"e{i}", inputs={"x": str(i)}, label=gold, split="train"), said, 1.0)


class Pulled:
    """Scores as if each instruction pulled every failure to labels by what `pulls` says; keeps what it is asked."""

    def __init__(self, failures, pulls):
        self.failures = failures
        self.pulls = pulls
        self.asked = []

    def __call__(self, instructions):
        self.asked.append([one.id for one in instructions])
        scores = np.zeros((len(self.failures), len(LABELS)))
        for one in instructions:
            for label, pull in self.pulls.get(one.id, {}).items():
                scores[:, LABELS.index(label)] += pull
        return scores - 5.0


@given(st.integers(1, 6), st.data())
def test_the_instruction_that_pulls_a_label_astray_is_blamed_first(n, data):
    planted = data.draw(st.integers(0, n - 1))
    weak = st.dictionaries(st.sampled_from(LABELS), st.floats(-0.3, 0.3), max_size=3)
    pulls = {f"i{at}": data.draw(weak) for at in range(n)} | {f"i{planted}": {"b": 3.0}}
    failures = [failure(i, "a", "b") for i in range(3)]
    found = blame([instruction(f"i{at}") for at in range(n)], failures, Pulled(failures, pulls), LABELS)
    assert [one.instruction_id for one in found] == [f"i{at}" for at in range(n)]
    assert most_blamed(found)[0] == most_blamed(found, "a -> b")[0] == f"i{planted}"
    assert found[planted].rise > 0


def test_a_rise_is_in_nats_of_the_normalised_probability_over_all_failures_and_per_cell():
    failures = [failure(0, "a", "b"), failure(1, "a", "b"), failure(2, "c", "b"), failure(3, "b", None)]
    (found,) = blame([instruction("i")], failures, Pulled(failures, {"i": {"b": np.log(2)}}), LABELS)
    # with it a has 1/4 and b 1/2 of the probability, without it 1/3 each
    up, down = np.log(4 / 3), np.log(2 / 3)
    assert found.by_cell == pytest.approx({"a -> b": up, "c -> b": up, "b -> None": down}, abs=1e-6)
    assert found.rise == pytest.approx((3 * up + down) / 4, abs=1e-6)


def test_each_list_is_asked_once_and_the_shared_beginnings_grow_shorter():
    failures = [failure(0, "a", "b")]
    score = Pulled(failures, {})
    blame([instruction(name) for name in "xyz"], failures, score, LABELS)
    assert score.asked == [["x", "y", "z"], ["x", "y"], ["x", "z"], ["y", "z"]]


def test_an_only_instruction_is_blamed_against_a_prompt_without_any():
    task = Task(name="t", labels=LABELS, fields=("x",), input_template="{{ x }}", base_instruction="Answer a, b or c.")
    failures = [failure(0, "a", "b")]
    score = Pulled(failures, {"i": {"b": 1.0}})
    (found,) = blame([instruction("i")], failures, score, LABELS)
    assert score.asked[-1] == []
    assert found.rise > 0
    for frame in ("list", "rules_first"):
        for per in ("instruction", "label"):
            params = RenderingParams(
                frame=frame, order="support", exemplars=2, exemplars_per=per, exemplars_as="inline", token_budget=None
            )
            assert task.base_instruction in frame_system_prompt(task, [], {}, params, len).text


@pytest.mark.filterwarnings("error")
def test_failures_that_cannot_be_scored_are_left_out_of_the_means():
    failures = [failure(0, "a", "b"), failure(1, "a", "b"), failure(2, "c", None)]
    pulled = Pulled(failures, {"i": {"b": 1.0}, "j": {"b": 1.0}})

    def score(instructions):
        scores = pulled(instructions)
        scores[2] = np.nan
        if [one.id for one in instructions] == ["i"]:
            scores[0] = np.nan
        return scores

    found = blame([instruction("i"), instruction("j")], failures, score, LABELS)
    assert found[0].rise == found[0].by_cell["a -> b"] == found[1].by_cell["a -> b"] > 0
    assert found[0].by_cell["c -> None"] == 0.0


def test_without_failures_nobody_is_to_blame_and_nothing_is_asked():
    score = Pulled([], {})
    found = blame([instruction("i"), instruction("j")], [], score, LABELS)
    assert [(one.instruction_id, one.rise, one.by_cell) for one in found] == [("i", 0.0, {}), ("j", 0.0, {})]
    assert score.asked == []


def test_equal_blame_keeps_the_order_of_the_list_and_an_unseen_cell_blames_nobody_more():
    failures = [failure(0, "a", "b")]
    found = blame([instruction(name) for name in "zyx"], failures, Pulled(failures, {"x": {"b": 1.0}}), LABELS)
    assert most_blamed(found) == ["x", "z", "y"]
    assert most_blamed(found, "c -> a") == ["z", "y", "x"]
