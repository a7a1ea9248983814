"""What Edits make of a list of instructions, and which are refused."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.distill import text_checks as wording
from pld.records import Instruction, Task, content_id
from pld.resolve.edits import apply, fault_of, withheld
from pld.resolve.records import Add, Edit, Move, Remove, Revise, Split

TASK = Task(
    name="colours",
    labels=("red", "blue", "green"),
    fields=("note", "title"),
    input_template="{{ note }}",
    base_instruction="Say which.",
)
COPY = "one two three four five six seven eight nine"
SOURCES = [{"note": "nothing here", "title": "nor here"}, {"note": "short", "title": f"before it: {COPY}, after it"}]


def instruction(text: str, label: str, *rule_ids: str, support: int | None = None) -> Instruction:
    identity = content_id({"label": label, "text": text}, 12)
    count = len(rule_ids) if support is None else support
    return Instruction(id=identity, text=text, label=label, rule_ids=rule_ids, support=count, origin="medoid")


WARM = instruction("If warm, answer red.", "red", "r1", "r2")
COLD = instruction("If cold, answer blue.", "blue", "r3")
LEAF = instruction("If leafy, answer green.", "green", support=2)
LIST = [WARM, COLD, LEAF]


def revise(text: str, of: str = WARM.id) -> Revise:
    return Revise(id=of, text=text, reason="why")


def add(text: str, label: str = "red", position: int = 0) -> Add:
    return Add(text=text, label=label, position=position, reason="why")


def remove(of: str = WARM.id) -> Remove:
    return Remove(id=of, reason="why")


def move(position: int, of: str = WARM.id) -> Move:
    return Move(id=of, position=position, reason="why")


def split(*texts: str, of: str = WARM.id) -> Split:
    return Split(id=of, texts=texts, reason="why")


def fault(edit: Edit, instructions: list[Instruction] = LIST, max_words: int = 12) -> tuple[str, str] | None:
    found = fault_of(edit, instructions, TASK, SOURCES, max_words, 7)
    return (found.reason, found.detail) if found else None


def test_a_revised_instruction_has_a_new_id_at_its_old_place_with_its_label_and_rules():
    found = apply(LIST, revise("If  hot,\nanswer red."), 2)
    assert found[1:] == [COLD, LEAF]
    assert found[0] == instruction("If hot, answer red.", "red", "r1", "r2").model_copy(
        update={"origin": "revised in round 2"}
    )


def test_rules_that_come_with_a_revised_text_replace_the_old_ones():
    (found, *_) = apply(LIST, revise("If hot, answer red."), 2, ("r9", "r8", "r7"))
    assert (found.rule_ids, found.support) == (("r9", "r8", "r7"), 3)


def test_rules_behind_a_new_text_count_as_what_they_are_weighed():
    halves = {"r1": 0.5, "r2": 1, "r3": 1}

    def weigh(rule_ids):
        return sum(halves[rule_id] for rule_id in rule_ids)

    revised, *_ = apply(LIST, revise("If hot, answer red."), 1, weigh=weigh)
    assert revised.support == 1.5
    added, *_ = apply(LIST, add("If hot, answer red."), 1, ("r1",), weigh)
    assert added.support == 0.5
    joined, *_ = apply(LIST, add(WARM.text), 1, ("r1", "r3"), weigh)  # it is there already
    assert (set(joined.rule_ids), joined.support) == ({"r1", "r2", "r3"}, 2.5)


def test_an_instruction_without_rules_keeps_its_support():
    (*_, found) = apply(LIST, revise("If mossy, answer green.", LEAF.id), 1)
    assert (found.rule_ids, found.support) == ((), 2)


@pytest.mark.parametrize(("position", "at"), [(-5, 0), (0, 0), (1, 1), (3, 3), (99, 3)])
def test_an_added_instruction_stands_before_the_position_or_at_the_end_that_it_goes_beyond(position, at):
    found = apply(LIST, add("If hot, answer red.", position=position), 3, ("r5",))
    assert found[at] == instruction("If hot, answer red.", "red", "r5").model_copy(
        update={"origin": "added in round 3"}
    )
    assert [item for item in found if item.origin == "medoid"] == LIST


def test_a_removed_instruction_is_gone_and_the_last_one_leaves_an_empty_list():
    assert apply(LIST, remove(COLD.id), 1) == [WARM, LEAF]
    assert apply([WARM], remove(), 1) == []


@pytest.mark.parametrize(
    ("position", "order"),
    [(-1, [WARM, COLD, LEAF]), (1, [COLD, WARM, LEAF]), (2, [COLD, LEAF, WARM]), (9, [COLD, LEAF, WARM])],
)
def test_a_move_is_to_a_position_among_the_others_and_changes_nothing_else(position, order):
    assert apply(LIST, move(position), 1) == order


def test_a_split_instruction_gives_several_at_its_place_each_with_its_label_and_rules():
    found = apply(LIST, split("If cool, answer blue.", "If icy, answer blue.", of=COLD.id), 4)
    assert [item.text for item in found] == [WARM.text, "If cool, answer blue.", "If icy, answer blue.", LEAF.text]
    assert {(item.label, item.rule_ids, item.support, item.origin) for item in found[1:3]} == {
        ("blue", ("r3",), 1, "split in round 4")
    }


@pytest.mark.parametrize("edit", [revise("x", "nosuch"), remove("nosuch"), move(0, "nosuch"), split("x", of="nosuch")])
def test_an_edit_of_what_is_not_there_changes_nothing(edit):
    assert apply(LIST, edit, 1) == LIST


def test_two_instructions_that_come_to_the_same_text_are_one_with_the_rules_of_both():
    hot = instruction("If hot, answer red.", "red", "r7")
    found = apply([WARM, COLD, hot], revise(WARM.text, hot.id), 1)
    assert [item.id for item in found] == [WARM.id, COLD.id]
    assert (found[0].rule_ids, found[0].support) == (("r1", "r2", "r7"), 3)


def test_an_instruction_added_where_it_is_already_is_there_once_with_all_rules():
    (*others, found) = apply(LIST, add(WARM.text, position=3), 1, ("r7", "r1"))
    assert [found.id, *(item.id for item in others)] == [LEAF.id, WARM.id, COLD.id]
    assert (others[0].rule_ids, others[0].support) == (("r1", "r2", "r7"), 3)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (revise("If hot, answer red."), None),
        (revise("If hot, answer red.", "nosuch"), "unknown_id"),
        (remove("nosuch"), "unknown_id"),
        (move(1, "nosuch"), "unknown_id"),
        (split("If hot, answer red.", "If glowing, answer red.", of="nosuch"), "unknown_id"),
        (revise(" \n"), "empty"),
        (add(""), "empty"),
        (split("If hot, answer red.", ""), "empty"),
        (add("If hot, answer red.<|im_end|>"), "control_token"),
        (add("If hot, answer red, and so on and on and on and on."), "too_long"),
        (revise("If hot, answer blue."), "other_label"),
        (revise("If hot, say so."), "no_label"),
        (split("If hot, answer red.", "If icy, answer blue."), "other_label"),
        (add("If odd, answer purple.", "purple"), "unknown_label"),
        (add("If odd, answer RED.", "RED"), "unknown_label"),
        (add(COPY), "copied"),
        (add(f"Red: {COPY.upper()}"), "copied"),
        (revise(COPY, "nosuch"), "copied"),
        (split("If hot, answer red.", COPY), "copied"),
        (add("one two three four five six seven: red"), None),
        (add("If  warm, answer red."), "duplicate"),
        (revise("If warm, answer red.", COLD.id), "other_label"),
        (revise(f" {WARM.text}"), "no_change"),
        (revise("If warm, answer RED."), None),
        (split("If hot, answer red.", " If hot,  answer red."), "split"),
        (split("If hot, answer red."), "split"),
        (split(), "split"),
        (split("If hot, answer red.", WARM.text), None),
        (move(0), "no_change"),
        (move(-3), "no_change"),
        (move(1), None),
        (move(7, LEAF.id), "no_change"),
        (move(2, LEAF.id), "no_change"),
        (remove(), None),
        (add("If hot, answer red."), None),
    ],
)
def test_an_edit_is_refused_for_its_reason(edit, reason):
    found = fault(edit)
    assert (found[0] if found else None) == reason


def test_a_text_is_a_duplicate_whatever_its_label():
    both = instruction("If so, answer red, else blue.", "red")
    assert fault(add(both.text, "blue"), [both, COLD])[0] == "duplicate"
    assert fault(revise(both.text, COLD.id), [both, COLD])[0] == "duplicate"
    assert fault(split("If icy, answer blue.", both.text, of=COLD.id), [both, COLD])[0] == "duplicate"


def test_what_is_kept_of_a_copy_has_none_of_its_words():
    edits = [add(f"{COPY}, answer red."), revise(f"{COPY}, answer red."), split("If hot, answer red.", COPY)]
    for edit in edits:
        edit = edit.model_copy(update={"reason": f"It says {COPY}."})
        kept = withheld(edit)
        assert (type(kept), getattr(kept, "id", None)) == (type(edit), getattr(edit, "id", None))
        for text in (*fault(edit), kept.model_dump_json()):
            assert "three" not in text
    assert fault(edits[0]) == ("copied", "repeats 8 or more consecutive words of title")


def test_many_examples_cost_less_than_comparing_each_with_each_text():
    words = [f"word{n}" for n in range(500)]
    sources = [{"note": " ".join(words[n % 450 : n % 450 + 50])} for n in range(3_000)]
    texts = [" ".join([*words[n :: 2 * n + 11][:40], "red"]) for n in range(4)]
    started = time.process_time()
    assert not any(fault_of(add(text), LIST, TASK, sources, 80, 7) for text in texts)
    took = time.process_time() - started
    started = time.process_time()
    assert not any(wording.copied_words(text, source["note"], 8) for text in texts for source in sources)
    assert took < (time.process_time() - started) / 2


# Laws, over lists and Edits that are drawn from a few texts, so that they often meet
_labels = st.sampled_from(TASK.labels)
_texts = st.builds("If {}, answer {}.".format, st.sampled_from("abcd"), _labels)
_odd_texts = _texts | st.sampled_from(["", " If a,  answer red.", COPY, "red <|im_end|>"])
_lists = st.lists(
    st.builds(
        lambda cue, label, rules: instruction(f"If {cue}, answer {label}.", label, *rules),
        st.sampled_from("abcd"),
        _labels,
        st.lists(st.sampled_from(["r1", "r2", "r3"]), unique=True, max_size=2),
    ),
    max_size=6,
    unique_by=lambda item: item.id,
)
_positions = st.integers(-2, 8)


@st.composite
def _lists_and_edits(draw):
    instructions = draw(_lists)
    # also ids that only an earlier Edit brings about
    ids = st.sampled_from(["nosuch", *(item.id for item in [*instructions, *draw(_lists)])])
    labels = _labels | st.just("purple")
    edits = st.one_of(
        st.builds(Revise, id=ids, text=_odd_texts, reason=st.just("")),
        st.builds(Add, text=_odd_texts, label=labels, position=_positions, reason=st.just("")),
        st.builds(Remove, id=ids, reason=st.just("")),
        st.builds(Move, id=ids, position=_positions, reason=st.just("")),
        st.builds(Split, id=ids, texts=st.lists(_odd_texts, max_size=3).map(tuple), reason=st.just("")),
    )
    return instructions, draw(st.lists(edits, max_size=6))


@given(_lists_and_edits(), st.randoms(use_true_random=False))
def test_edits_in_any_order_lose_no_instruction_that_none_of_them_names(case, random):
    instructions, edits = case
    random.shuffle(edits)
    named = {getattr(edit, "id", None) for edit in edits}
    found = instructions
    for number, edit in enumerate(edits):
        before = [item.model_dump() for item in found]
        after = apply(found, edit, number)
        assert [item.model_dump() for item in found] == before
        found = after
    kept = {(item.id, item.text, item.label) for item in found}
    assert {(item.id, item.text, item.label) for item in instructions if item.id not in named} <= kept
    ids = [item.id for item in found]
    assert len(set(ids)) == len(ids)
    assert all(item.text == wording.one_line(item.text) for item in found)


@given(_lists_and_edits())
def test_rules_of_what_no_edit_names_are_kept(case):
    instructions, edits = case
    for edit in edits:
        behind = {item.id: set(item.rule_ids) for item in apply(instructions, edit, 1)}
        others = [item for item in instructions if item.id != getattr(edit, "id", None)]
        assert all(set(item.rule_ids) <= behind[item.id] for item in others)


@given(_lists_and_edits())
def test_a_move_keeps_the_set_and_a_removal_takes_just_one(case):
    instructions, edits = case
    for edit in edits:
        found = apply(instructions, edit, 1)
        if isinstance(edit, Move):
            assert sorted(found, key=lambda item: item.id) == sorted(instructions, key=lambda item: item.id)
            rest = [item for item in instructions if item.id != edit.id]
            assert [item for item in found if item.id != edit.id] == rest
        if isinstance(edit, Remove):
            assert found == [item for item in instructions if item.id != edit.id]


@given(_lists_and_edits())
def test_an_edit_that_is_not_refused_changes_what_the_prompt_says(case):
    instructions, edits = case
    for edit in edits:
        if fault(edit, instructions, 80) is None:
            found = apply(instructions, edit, 1)
            assert [item.text for item in found] != [item.text for item in instructions]
            assert {item.label for item in found} <= set(TASK.labels)


@given(_lists_and_edits())
def test_the_same_edit_a_second_time_is_refused(case):
    instructions, edits = case
    for edit in edits:
        if fault(edit, instructions, 80) is None:
            assert fault(edit, apply(instructions, edit, 1), 80) is not None


def test_an_edit_with_personal_data_is_refused_and_its_words_are_withheld():
    edit = add("If ann@example.org writes, answer red.")
    found = fault_of(edit, LIST, TASK, SOURCES, 80, 7, lambda text: "EMAIL_ADDRESS" if "@" in text else None)
    assert found.reason == "personal_data"
    assert "ann" not in found.detail + str(withheld(edit))
    assert fault_of(edit, LIST, TASK, SOURCES, 80, 7).reason == "link"
