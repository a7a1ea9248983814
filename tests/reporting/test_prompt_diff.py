from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pld.records import Instruction, Prediction, content_id
from pld.reporting.diff import compare_answers, compare_lists, compare_settings, word_diff

LABELS = ("red", "green")
WORDS = st.sampled_from(["if", "it", "is", "warm", "cold", "answer", "red"])
TEXTS = st.lists(WORDS, min_size=1, max_size=8).map(" ".join)
PLACES = st.integers(0, 5)


def instruction(text, label="red", rules=()):
    identity = content_id({"label": label, "text": text}, 12)
    return Instruction(id=identity, text=text, label=label, rule_ids=tuple(rules), support=1, origin="medoid")


LISTS = st.lists(st.builds(instruction, TEXTS, st.sampled_from(LABELS), st.lists(st.sampled_from("abc"), unique=True)))


@st.composite
def two_lists(draw):
    """With Edits that link some of the one to some of the other, in either direction."""
    before, after = draw(LISTS), draw(LISTS)
    after += draw(st.lists(st.sampled_from(before))) if before else []
    earlier, later = (
        {own.id: (other.id,) for own in to for other in of if draw(st.booleans())}
        for to, of in ((after[:2], before[:2]), (before[2:4], after[2:4]))
    )
    return before, after, earlier, later


def row(number, label, predicted):
    return Prediction(example_id=f"e{number}", system="s", label=label, predicted=predicted, scores=())


def answers(before, after, groups=None):
    return compare_answers("test", ("a", "b"), before, after, LABELS, groups or {}, 200, 7)


ANSWER = st.sampled_from([*LABELS, None])
PAIRS = st.lists(st.tuples(st.sampled_from(LABELS), ANSWER, ANSWER), min_size=1, max_size=30)


@given(LISTS)
def test_a_list_does_not_differ_from_itself(instructions):
    found = compare_lists(instructions, instructions, {}, {})
    assert (found.added, found.removed, found.reworded, found.moved) == ((), (), (), 0)
    assert len(found.unchanged) == len(instructions)


@given(two_lists())
def test_each_instruction_of_either_list_stands_there_once(lists):
    before, after, earlier, later = lists
    found = compare_lists(before, after, earlier, later)
    pairs = (*found.reworded, *found.unchanged)
    there = Counter((own.place, own.text) for own in (*found.removed, *(pair.before for pair in pairs)))
    here = Counter((own.place, own.text) for own in (*found.added, *(pair.after for pair in pairs)))
    assert there == Counter((place, own.text) for place, own in enumerate(before, 1))
    assert here == Counter((place, own.text) for place, own in enumerate(after, 1))
    assert all(pair.before.text == pair.after.text for pair in found.unchanged)


@given(two_lists())
def test_the_other_way_round_it_is_the_mirror_image(lists):
    before, after, earlier, later = lists
    there, back = compare_lists(before, after, earlier, later), compare_lists(after, before, later, earlier)
    assert (there.added, there.removed) == (back.removed, back.added)

    def seen(pairs, mirrored=False):
        return {(p.after if mirrored else p.before, p.before if mirrored else p.after, p.moved) for p in pairs}

    assert seen(there.unchanged) == seen(back.unchanged, mirrored=True)
    assert seen(there.reworded) == seen(back.reworded, mirrored=True)
    assert Counter(pair.by for pair in there.reworded) == Counter(pair.by for pair in back.reworded)


@given(TEXTS, TEXTS)
@example("answer red if warm", "if warm answer red")
def test_the_words_of_a_text_are_those_that_stayed_and_those_that_went_or_came(before, after):
    pieces = word_diff(before, after)
    for text, op in ((before, "removed"), (after, "added")):
        assert " ".join(piece.words for piece in pieces if piece.op in ("same", op)) == text
    swapped = {"same": "same", "removed": "added", "added": "removed"}
    back = word_diff(after, before)
    assert Counter((swapped[p.op], p.words) for p in back) == Counter((p.op, p.words) for p in pieces)


def test_what_an_edit_links_is_reworded_however_little_is_left_of_it():
    old, new = instruction("one two three"), instruction("four five six", "green")
    assert compare_lists([old], [new], {}, {}).reworded == ()
    for earlier, later in (({new.id: [old.id]}, {}), ({}, {old.id: [new.id]})):
        assert [pair.by for pair in compare_lists([old], [new], earlier, later).reworded] == ["edit"]


@pytest.mark.parametrize(
    ("text", "label", "rules", "by"),
    [
        ("if it is warm answer red", "red", "a", "rules"),
        ("if it burns answer red", "red", "a", "rules"),
        ("if it burns answer red", "red", "b", None),
        ("something else of the same rule", "red", "a", None),
        ("when it is very warm answer red", "red", "b", "words"),
        ("when it is very warm answer red", "green", "b", None),
    ],
)
def test_other_words_of_the_same_label_are_known_by_common_rules_or_by_most_of_the_words(text, label, rules, by):
    old, new = instruction("if it is very warm answer red", rules="a"), instruction(text, label, rules)
    assert [pair.by for pair in compare_lists([old], [new], {}, {}).reworded] == ([by] if by else [])


def test_the_closest_of_several_is_the_one_that_was_reworded():
    old = instruction("if it is very warm answer red", rules="a")
    near, far = (instruction(text, rules="a") for text in ("if it is warm answer red", "if it burns answer red"))
    found = compare_lists([old], [far, near], {}, {})
    assert [pair.after.text for pair in found.reworded] == [near.text]
    assert [own.text for own in found.added] == [far.text]


def test_what_stands_elsewhere_among_those_of_both_lists_is_moved():
    one, two, three, new = (instruction(text) for text in ("one", "two", "three", "zero"))
    found = compare_lists([one, two, three], [new, three, two, one], {}, {})
    assert [(pair.before.text, pair.moved) for pair in found.unchanged] == [
        ("three", True), ("two", False), ("one", True)
    ]  # fmt: skip
    assert compare_lists([one, two, three], [new, one, three], {}, {}).moved == 0  # nothing but come and gone


def test_settings_of_either_side_that_differ_are_told_with_both_values():
    found = compare_settings({"a": "1", "b": "2", "c": "3"}, {"b": "2", "c": "4", "d": "5"})
    assert [(own.key, own.before, own.after) for own in found] == [("a", "1", None), ("c", "3", "4"), ("d", None, "5")]


@given(PAIRS)
def test_no_answer_differs_from_itself(rows):
    before = [row(number, label, predicted) for number, (label, predicted, _) in enumerate(rows)]
    found = answers(before, before)
    assert (found.fixed, found.broken, found.other, found.left_out) == ((), (), (), 0)
    assert found.comparison.macro_f1_delta.value == 0
    assert found.n == len(rows)


@given(PAIRS)
def test_seen_from_the_other_side_what_is_fixed_is_broken(rows):
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


def test_examples_that_one_side_alone_answered_or_labels_otherwise_are_left_out():
    before = [row(1, "red", "red"), row(2, "red", "red"), row(3, "red", "green")]
    after = [row(2, "red", "green"), row(3, "green", "green"), row(4, "red", "red")]
    found = answers(before, after)
    assert (found.n, found.left_out, [change.example_id for change in found.broken]) == (1, 3, ["e2"])
    assert answers(before[:1], after) is None


def test_groups_are_drawn_as_a_whole():
    before = [row(number, "red", "red" if number < 10 else "green") for number in range(20)]
    after = [row(number, "red", "green" if number < 10 else "red") for number in range(20)]
    alone, grouped = answers(before, after), answers(before, after, {f"e{n}": f"g{n // 10}" for n in range(20)})
    assert alone.comparison.macro_f1_delta.high < grouped.comparison.macro_f1_delta.high == 0.5
