"""Instructions and answers of two prompts compared, from made-up lists."""

import re
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pld.records import Instruction, Prediction, content_id
from pld.reporting.diff import compare_answers, compare_lists, word_diff

LABELS = ("red", "green")
WORDS = st.sampled_from(["if", "it", "is", "warm", "cold", "answer", "red"])
TEXTS = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)


def instruction(text, label="red", rules=()):
    identity = content_id({"label": label, "text": text}, 12)
    return Instruction(id=identity, text=text, label=label, rule_ids=tuple(rules), support=1, origin="medoid")


LISTS = st.lists(st.builds(instruction, TEXTS, st.sampled_from(LABELS), st.lists(st.sampled_from("abc"), unique=True)))


def row(number, label, predicted):
    return Prediction(example_id=f"e{number}", system="s", label=label, predicted=predicted, scores=())


def answers(before, after, groups=None):
    return compare_answers("test", ("a", "b"), before, after, LABELS, groups or {}, 200, 7)


ANSWER = st.sampled_from([*LABELS, None])
PAIRS = st.lists(st.tuples(st.sampled_from(LABELS), ANSWER, ANSWER), min_size=1, max_size=30)


@given(LISTS)
def test_a_list_does_not_differ_from_itself(instructions):
    found = compare_lists(instructions, instructions)
    assert (found.added, found.removed, found.reworded) == ((), (), ())
    assert len(found.unchanged) == len(instructions)


@given(LISTS, LISTS)
def test_every_instruction_of_either_list_is_reported_once(before, after):
    found = compare_lists(before, after)

    def counted(*kinds):
        return Counter((own.label, own.text, own.rule_ids) for kind in kinds for own in kind)

    assert counted(found.added, found.unchanged, [pair.after for pair in found.reworded]) == counted(after)
    texts = Counter((own.label, own.text) for own in (*found.removed, *found.unchanged))
    texts += Counter((pair.before.label, pair.before.text) for pair in found.reworded)
    assert texts == Counter((own.label, own.text) for own in before)


@given(TEXTS, TEXTS)
@example("answer red if warm", "if warm answer red")
def test_the_words_of_either_text_can_be_read_from_the_diff(before, after):
    words = word_diff(before, after)
    for marks, dropped in ((r"\[-(.*?)-\]", r"\{\+.*?\+\}"), (r"\{\+(.*?)\+\}", r"\[-.*?-\]")):
        text = re.sub(marks, r"\1", re.sub(dropped, "", words))
        assert text.split() == (before if marks.startswith(r"\[") else after).split()


@pytest.mark.parametrize(
    ("text", "label", "rules", "reworded"),
    [
        ("if it burns answer red", "red", "ab", True),
        ("if it burns answer red", "red", "abcd", True),
        ("if it burns answer red", "red", "abcde", False),
        ("if it burns answer red", "red", "", False),
        ("if it burns answer red", "green", "ab", False),
    ],
)
def test_an_instruction_is_reworded_if_it_keeps_its_label_and_half_of_its_rules(text, label, rules, reworded):
    old, new = instruction("if it is very warm answer red", rules="ab"), instruction(text, label, rules)
    found = compare_lists([old], [new])
    assert bool(found.reworded) == reworded
    assert bool(found.added) == bool(found.removed) == (not reworded)


def test_of_several_candidates_the_one_with_most_rules_in_common_was_reworded():
    far, near = instruction("one", rules="abcd"), instruction("two", rules="abc")
    found = compare_lists([far, near], [instruction("three", rules="abc")])
    assert [pair.before.text for pair in found.reworded] == ["two"]
    assert [own.text for own in found.removed] == ["one"]


@settings(deadline=None)  # the first call imports scipy
@given(PAIRS)
def test_no_answer_differs_from_itself(rows):
    before = [row(number, label, predicted) for number, (label, predicted, _) in enumerate(rows)]
    found = answers(before, before)
    assert (found.fixed, found.broken, found.other, found.left_out) == ((), (), (), 0)
    assert found.comparison.macro_f1_delta.value == 0
    assert found.n == len(rows)


@settings(deadline=None)  # the first call imports scipy
@given(PAIRS)
def test_swapping_the_sides_swaps_fixed_and_broken(rows):
    before, after = ([row(n, own[0], own[side]) for n, own in enumerate(rows)] for side in (1, 2))
    there, back = answers(before, after), answers(after, before)

    def ids(changes):
        return [(change.example_id, change.label) for change in changes]

    assert (ids(there.fixed), ids(there.broken), ids(there.other)) == (
        ids(back.broken), ids(back.fixed), ids(back.other)
    )  # fmt: skip
    one, other = there.comparison, back.comparison
    assert (one.fixed, one.broken, one.mcnemar_p) == (other.broken, other.fixed, other.mcnemar_p)
    assert one.macro_f1_delta.value == pytest.approx(-other.macro_f1_delta.value)
    assert one.macro_f1_delta.low == pytest.approx(-other.macro_f1_delta.high)
    assert (one.fixed, one.broken) == (len(there.fixed), len(there.broken))
    for label in there.per_label:
        assert label.n == sum(own[0] == label.label for own in rows)
    assert sum(label.fixed + label.broken + label.other for label in there.per_label) == sum(
        own[1] != own[2] for own in rows
    )


def test_examples_that_only_one_side_answered_or_with_different_gold_labels_are_left_out():
    before = [row(1, "red", "red"), row(2, "red", "red"), row(3, "red", "green")]
    after = [row(2, "red", "green"), row(3, "green", "green"), row(4, "red", "red")]
    found = answers(before, after)
    assert (found.n, found.left_out, [change.example_id for change in found.broken]) == (1, 3, ["e2"])
    assert answers(before[:1], after) is None


def test_the_bootstrap_draws_whole_groups():
    before = [row(number, "red", "red" if number < 10 else "green") for number in range(20)]
    after = [row(number, "red", "green" if number < 10 else "red") for number in range(20)]
    alone, grouped = answers(before, after), answers(before, after, {f"e{n}": f"g{n // 10}" for n in range(20)})
    assert alone.comparison.macro_f1_delta.high < grouped.comparison.macro_f1_delta.high == 0.5
