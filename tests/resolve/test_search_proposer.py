from dataclasses import replace
from itertools import islice

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pld.records import Example, Instruction, Rule, Task
from pld.resolve.edits import apply
from pld.resolve.proposer import Answered, Evidence
from pld.resolve.records import Add, Blame, Move, Remove, Revise
from pld.resolve.search_proposer import SearchProposer

LABELS = ("a", "b", "c")
TASK = Task(name="t", labels=LABELS, fields=("x",), input_template="{{ x }}", base_instruction="Answer a, b or c.")


def rule(i, label, doubtful=False):
    return Rule(
        id=f"r{i}",
        example_id=f"e{i}",
        label=label,
        rationale="",
        text=f"If {i}, answer {label}.",
        teacher="t",
        doubtful=doubtful,
    )


def instruction(name, label, text, rule_ids=()):
    return Instruction(
        id=name, text=text, label=label, rule_ids=tuple(rule_ids), support=len(rule_ids), origin="medoid"
    )


def failure(i, gold, said):
    return Answered(Example(id=f"e{i}", inputs={"x": str(i)}, label=gold, split="train"), said, 1.0)


def directions(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def evidence_of(instructions, failures, blames, rules, vectors, clusters=None):
    return Evidence(1, TASK, instructions, failures, (), blames, rules, vectors, clusters or {})


def proposed(evidence):
    return list(SearchProposer().propose(evidence).edits)


def edits(evidence, kind):
    return [proposal.edit for proposal in proposed(evidence) if isinstance(proposal.edit, kind)]


@st.composite
def rounds(draw):
    """Rules of which some stand behind instructions, failures of which some have no rule, any blame."""
    labels = draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=14))
    rules = [rule(i, label, draw(st.booleans())) for i, label in enumerate(labels)]
    degrees = draw(st.lists(st.integers(0, 359), min_size=len(rules), max_size=len(rules)))
    clusters = {one.id: draw(st.integers(0, 2)) for one in rules if draw(st.booleans())}
    instructions = []
    for label in draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=5, unique=True)):
        own = [one for one in rules if one.label == label and draw(st.booleans())]
        text = own[0].text if own else f"Anything is {label}."
        instructions.append(instruction(f"i-{label}", label, text, [one.id for one in own]))
    gold = draw(st.lists(st.integers(0, len(rules) + 3), min_size=1, max_size=8, unique=True))
    failures = []
    for i in gold:
        label = labels[i] if i < len(rules) else draw(st.sampled_from(LABELS))
        failures.append(failure(i, label, draw(st.sampled_from([None, *(one for one in LABELS if one != label)]))))
    cells = sorted({one.cell for one in failures})
    rise = st.floats(-2, 2)
    blames = [
        Blame(instruction_id=one.id, rise=draw(rise), by_cell={cell: draw(rise) for cell in cells})
        for one in instructions
    ]
    return evidence_of(instructions, failures, blames, rules, directions(*degrees), clusters)


@given(rounds())
def test_every_id_label_text_and_example_is_there_already(evidence):
    held = {one.id: one for one in evidence.instructions}
    rules = {one.id: one for one in evidence.rules}
    failing = {one.example.id for one in evidence.failures}
    for proposal in proposed(evidence):
        edit = proposal.edit
        assert set(proposal.rule_ids) <= set(rules)
        assert len(set(proposal.rule_ids)) == len(proposal.rule_ids)
        assert proposal.example_ids
        assert set(proposal.example_ids) <= failing
        assert edit.reason
        if isinstance(edit, Revise | Add):
            label = edit.label if isinstance(edit, Add) else held[edit.id].label
            # the first rule behind a text is the one that it is taken from
            assert (rules[proposal.rule_ids[0]].text, rules[proposal.rule_ids[0]].label) == (edit.text, label)
            assert edit.text not in {one.text for one in evidence.instructions}
        else:
            assert edit.id in held
            assert proposal.rule_ids == ()


@given(rounds())
def test_no_edit_comes_twice_and_each_makes_another_list(evidence):
    made = [tuple(apply(evidence.instructions, proposal.edit, 1, proposal.rule_ids)) for proposal in proposed(evidence)]
    bare = [proposal.edit.model_copy(update={"reason": ""}) for proposal in proposed(evidence)]
    assert len(set(bare)) == len(bare)
    assert tuple(evidence.instructions) not in made


@given(rounds())
def test_the_same_evidence_gives_the_same_guesses_and_a_prefix_of_them_costs_no_more(evidence):
    assert proposed(evidence) == proposed(evidence)
    assert list(islice(SearchProposer().propose(evidence).edits, 3)) == proposed(evidence)[:3]


@given(rounds())
def test_who_helps_is_neither_removed_nor_moved(evidence):
    guilty = {
        one.instruction_id for one in evidence.blames if one.rise > 0 or any(rise > 0 for rise in one.by_cell.values())
    }
    assert {edit.id for edit in edits(evidence, Remove | Move)} <= guilty


@given(rounds())
def test_every_rule_of_a_failing_cell_is_added_at_both_ends_in_time(evidence):
    added = {(edit.text, edit.position) for edit in edits(evidence, Add)}
    present = {one.text for one in evidence.instructions}
    gold = {one.example.id: one.example.label for one in evidence.failures}
    for one in evidence.rules:
        if gold.get(one.example_id) == one.label and one.text not in present:
            assert {(one.text, 0), (one.text, len(evidence.instructions))} <= added


def a_round(blames=(0.9, -0.4), rules=None, failures=None):
    """Two instructions; r0 to r2 are rules of failures a -> b, r3 to r5 stand behind `B`, r6 behind `A`."""
    rules = rules or [rule(i, label) for i, label in enumerate("aaabbbaa")]
    failures = failures or [failure(i, "a", "b") for i in range(3)]
    listed = [
        instruction("B", "b", rules[3].text, ["r3", "r4", "r5"]),
        instruction("A", "a", rules[6].text, ["r6"]),
    ]
    cells = {one.cell for one in failures}
    found = [
        Blame(instruction_id=one.id, rise=rise, by_cell=dict.fromkeys(cells, rise))
        for one, rise in zip(listed, blames, strict=True)
    ]
    return evidence_of(listed, failures, found, rules, directions(0, 20, 50, 180, 190, 200, 300, 340))


def test_the_most_blamed_of_all_is_first_removed_then_reworded():
    first, *others = proposed(a_round())
    assert first.edit == Remove(id="B", reason="most blamed for all failures (+0.90 nats without it)")
    assert first.example_ids == ("e0", "e1", "e2")
    assert next(one for one in others if isinstance(one.edit, Revise)).edit.id == "B"


def test_the_medoid_of_the_failures_rules_is_added_with_the_others_behind_it():
    (first, second, *_) = [one for one in proposed(a_round()) if isinstance(one.edit, Add)]
    assert (first.edit.text, first.edit.label, first.edit.position) == ("If 1, answer a.", "a", 0)
    assert first.rule_ids == ("r1", "r0", "r2")
    assert first.example_ids == ("e0", "e1", "e2")
    assert (second.edit.text, second.edit.position) == ("If 1, answer a.", 2)


def test_a_culprit_gets_the_next_best_rule_of_its_own_and_keeps_those_behind_it():
    revisions = [one for one in proposed(a_round()) if isinstance(one.edit, Revise)]
    assert [(one.edit.id, one.edit.text) for one in revisions] == [("B", "If 4, answer b."), ("B", "If 5, answer b.")]
    assert revisions[0].rule_ids == ("r4", "r3", "r5")


def with_list(evidence, *instructions):
    return replace(evidence, instructions=instructions)


def test_an_instruction_of_the_gold_label_gets_its_rule_nearest_to_the_failures():
    evidence = a_round(blames=(-0.1, -0.4))
    listed = instruction("A", "a", "If 6, answer a.", ["r6", "r2", "r7"])
    failures = [failure(0, "a", "b")]
    found = proposed(replace(with_list(evidence, evidence.instructions[0], listed), failures=failures))
    revisions = [one.edit for one in found if isinstance(one.edit, Revise)]
    assert [(edit.id, edit.text) for edit in revisions] == [("A", "If 7, answer a."), ("A", "If 2, answer a.")]
    assert revisions[0].reason == "its rule nearest to the failures a -> b"
    assert not [one for one in found if isinstance(one.edit, Remove | Move)]


def test_rules_of_another_label_behind_an_instruction_or_of_a_failure_give_no_text():
    evidence = a_round(failures=[failure(3, "a", "b"), failure(0, "a", "b")])  # r3 leads to b
    mixed = instruction("B", "b", "If 3, answer b.", ["r3", "r1", "r4"])
    found = proposed(with_list(evidence, mixed, evidence.instructions[1]))
    assert [one.edit.text for one in found if isinstance(one.edit, Revise)] == ["If 4, answer b."]
    first = next(one for one in found if isinstance(one.edit, Add))
    assert (first.edit.text, first.rule_ids) == ("If 0, answer a.", ("r0",))


def test_failures_without_a_rule_of_their_own_get_the_medoid_of_the_spare_rules():
    evidence = a_round(failures=[failure(100, "a", "b")])
    additions = [one for one in proposed(evidence) if isinstance(one.edit, Add) and one.edit.position == 0]
    # r6 stands behind an instruction; of r0, r1, r2, r7 at 0, 20, 50 and -20 degrees r1 is nearest to the middle
    assert [one.edit.text for one in additions] == [f"If {i}, answer a." for i in (1, 0, 7, 2)]
    assert additions[0].rule_ids == ("r1",)


def test_a_spare_rule_brings_the_spare_rules_of_its_cluster():
    clusters = {"r1": 4, "r2": 4, "r6": 4, "r3": 4, "r0": 5}
    evidence = replace(a_round(failures=[failure(100, "a", "b")]), clusters=clusters)
    first = next(one for one in proposed(evidence) if isinstance(one.edit, Add))
    assert first.rule_ids == ("r1", "r2")


def test_a_rule_whose_label_the_teacher_doubts_is_tried_last():
    rules = [rule(i, label, doubtful=i == 1) for i, label in enumerate("aaabbbaa")]
    added = [edit.text for edit in edits(a_round(rules=rules), Add) if edit.position == 0]
    assert added[:3] == ["If 0, answer a.", "If 2, answer a.", "If 1, answer a."]


def test_a_culprit_that_leads_elsewhere_goes_to_the_front_and_the_gold_labels_own_to_the_end():
    evidence = a_round(blames=(0.9, 0.5))
    other = instruction("C", "c", "Anything is c.")
    one, two = evidence.instructions
    moves = edits(with_list(evidence, other, one, two), Move)
    assert [(move.id, move.position) for move in moves] == [("B", 0), ("B", 2), ("A", 0)]  # A stands at the end
    moves = edits(with_list(evidence, one, two, other), Move)
    assert [(move.id, move.position) for move in moves] == [("B", 2), ("A", 2), ("A", 0)]  # B stands at the front


def test_a_further_cell_joins_with_each_turn():
    failures = [failure(i, "a", "b") for i in range(4)] + [failure(i, "a", "c") for i in (6, 7)]
    failures += [failure(3, "b", "a"), failure(4, "b", "a"), failure(5, "b", "c")]
    first = [proposal.example_ids for proposal in proposed(a_round((-1.0, -1.0), failures=failures))][:6]
    largest, second, third = ("e0", "e1", "e2", "e3"), ("e6", "e7"), ("e3", "e4")
    assert first == [largest, largest, second, largest, second, third]


def test_with_few_tries_the_fullest_cell_gets_several_kinds_of_guesses_and_other_cells_some():
    rules = [rule(i, label) for i, label in enumerate("aaabbbaaccc")]
    failures = [failure(i, "a", "b") for i in range(3)] + [failure(i, "c", "b") for i in (8, 9)]
    listed = [
        instruction("B", "b", rules[3].text, ["r3", "r4", "r5"]),
        instruction("A", "a", rules[6].text, ["r6", "r7"]),
    ]
    blames = [
        Blame(instruction_id="B", rise=0.1, by_cell={"a -> b": -0.2, "c -> b": 0.5}),
        Blame(instruction_id="A", rise=0.0, by_cell={"a -> b": 0.3, "c -> b": -0.2}),
    ]
    evidence = evidence_of(listed, failures, blames, rules, directions(*range(0, 110, 10)))
    first = [proposal.edit for proposal in proposed(evidence)][:9]
    assert {type(edit) for edit in first} == {Add, Revise, Remove}
    assert {edit.label for edit in first if isinstance(edit, Add)} == {"a", "c"}
    assert {edit.id for edit in first if isinstance(edit, Remove)} == {"A", "B"}


def test_an_only_instruction_is_not_taken_away():
    evidence = a_round()
    alone = replace(evidence, instructions=evidence.instructions[:1], blames=evidence.blames[:1])
    assert edits(alone, Remove | Move) == []
    assert edits(alone, Add)


def test_without_failures_there_is_nothing_to_propose_and_a_word_why():
    found = SearchProposer().propose(replace(a_round(), failures=()))
    assert list(found.edits) == []
    assert found.trouble == "no failure was shown"
