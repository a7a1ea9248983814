import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.errors import ReviewError
from pld.records import sha256
from pld.resolve.lineage import with_effects
from pld.resolve.records import Descent
from pld.review.decisions import (
    GENESIS,
    ORIGIN,
    ReviewEntry,
    applied_entries,
    apply_decisions,
    descents_after,
    entry_after,
    final_prompt,
    same_again,
    standing,
)
from support.stories import DELIVERY, EFFECTS, FINAL, NEW_ID, NEW_TEXT, PRAISE, REFUND, decision

APPROVED = [decision(own) for own in FINAL]


def entries(*steps: tuple[str, str]) -> list[ReviewEntry]:
    """A log in which each sheet is about a prompt and makes another (or the same) one, each named by a letter."""
    log: list[ReviewEntry] = []
    for prompt, makes in steps:
        verdict = decision(REFUND) if prompt == makes else decision(REFUND, "reject")
        last = log[-1] if log else None
        log.append(entry_after(last, "2026-01-02T03:04:05Z", "mail", sha256(prompt), [verdict], sha256(makes)))
    return log


def numbers(applied):
    return [entry.number for entry in applied]


def test_approval_of_all_leaves_the_list_as_it_is():
    assert apply_decisions(FINAL, APPROVED) == FINAL


def test_an_edit_keeps_place_label_rules_and_support_and_a_rejection_takes_away():
    made = apply_decisions(FINAL, [decision(REFUND, "edit", NEW_TEXT), decision(DELIVERY, "reject"), decision(PRAISE)])
    assert [own.id for own in made] == [NEW_ID, PRAISE.id]
    assert made[0] == REFUND.model_copy(update={"id": NEW_ID, "text": NEW_TEXT, "origin": ORIGIN})


@pytest.mark.parametrize(
    "decisions",
    [APPROVED[:2], [*APPROVED, decision(REFUND.model_copy(update={"id": "x"}))],
     [decision(REFUND.model_copy(update={"text": "another"})), *APPROVED[1:]]],
)  # fmt: skip
def test_decisions_on_another_list_are_refused(decisions):
    with pytest.raises(ReviewError, match="expected decisions on the instructions"):
        apply_decisions(FINAL, decisions)


def test_of_two_sheets_about_a_prompt_the_later_one_counts():
    log = entries(("A", "B"), ("A", "C"))
    assert numbers(applied_entries(log, sha256("A"))) == [2]
    assert final_prompt(applied_entries(log, sha256("A")), sha256("A")) == sha256("C")
    assert applied_entries(entries(("A", "B"), ("A", "A")), sha256("A")) == []


def test_sheets_that_lead_back_to_a_prompt_end_there():
    there_and_back = entries(("A", "B"), ("B", "A"))
    assert numbers(applied_entries(there_and_back, sha256("A"))) == [1, 2]
    assert numbers(applied_entries(entries(("A", "B"), ("B", "A"), ("A", "B")), sha256("A"))) == [3]
    assert numbers(applied_entries(entries(("A", "B"), ("B", "B"), ("B", "C")), sha256("A"))) == [1, 3]


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("ABCD")), max_size=12))
def test_whatever_the_log_the_sheets_applied_follow_from_one_another_and_nothing_later_speaks_against_them(steps):
    log = entries(*steps)
    applied = applied_entries(log, sha256("A"))
    prompts = [sha256("A"), *(entry.makes for entry in applied)]
    assert [entry.prompt_sha256 for entry in applied] == prompts[:-1]
    assert numbers(applied) == sorted(set(numbers(applied)))
    last = [entry for entry in log if entry.prompt_sha256 == prompts[-1]][-1:]
    assert all(entry.approves or entry.number <= applied[-1].number for entry in last)


def test_the_same_sheet_again_is_new_only_where_the_prompt_was_made_anew():
    log = entries(("A", "B"))
    again = (sha256("A"), log[0].decisions, sha256("B"))
    assert same_again(log, *again) == log[0]
    assert same_again(entries(("A", "B"), ("C", "D")), *again).number == 1
    assert same_again(entries(("A", "B"), ("A", "A")), *again) is None  # it was decided otherwise since
    assert same_again(entries(("A", "B"), ("B", "A")), *again) is None
    assert same_again([], *again) is None


def test_a_prompt_is_approved_only_by_its_latest_sheet_with_all_its_instructions():
    ids = [own.id for own in FINAL]
    first = entry_after(None, "2026-01-02T03:04:05Z", "mail", sha256("A"), APPROVED, sha256("A"))
    found = standing([first], sha256("A"), ids)
    assert (found.approved, found.words, found.entries, found.head) == (
        True, "sheet 1: 3 approve by Ann", 1, first.hash,
    )  # fmt: skip
    assert standing([first], sha256("A"), list(reversed(ids))).approved
    for other in (ids[:2], [*ids, "x"], [*ids, ids[0]]):
        assert standing([first], sha256("A"), other).words.startswith("sheet 1 decides on other instructions")
    assert not standing([first], sha256("B"), ids).approved
    nothing = standing([], sha256("A"), ids)
    assert (nothing.approved, nothing.entries, nothing.head) == (False, 0, GENESIS)
    assert "`pld review export` writes one" in nothing.words


def test_a_prompt_that_a_sheet_changes_is_approved_no_more_and_what_it_makes_is_not_approved_yet():
    ids = [own.id for own in FINAL]
    first = entry_after(None, "2026-01-02T03:04:05Z", "mail", sha256("A"), APPROVED, sha256("A"))
    rejected = [decision(REFUND, "reject", reviewer="Bob"), *APPROVED[1:]]
    log = [first, entry_after(first, "2026-01-02T03:04:05Z", "mail", sha256("A"), rejected, sha256("B"))]
    before = standing(log, sha256("A"), ids)
    assert not before.approved
    assert before.words.startswith(f"sheet 2 changes prompt {sha256('A')[:12]} (2 approve, 1 reject by Bob, Ann)")
    assert not standing(log, sha256("B"), ids[1:]).approved


def test_an_entry_that_says_it_makes_what_it_does_not_is_refused():
    with pytest.raises(ValueError, match="expected another prompt if, and only if"):
        entry_after(None, "2026-01-02T03:04:05Z", "mail", sha256("A"), APPROVED, sha256("B"))
    with pytest.raises(ValueError, match="a text with verdict edit only"):
        decision(REFUND, "approve", "text")


def test_a_line_of_descent_tells_the_sheet_the_person_and_the_note():
    descents = [
        Descent(
            instruction_id=own.id, label=own.label, text=own.text, origin="medoid", example_ids=("train-0",),
            rule_ids=own.rule_ids, cluster_ids=(0,), edits=(), fixed=("v",), broken=(),
        )
        for own in FINAL
    ]  # fmt: skip
    changed = decision(REFUND, "edit", NEW_TEXT).model_copy(update={"note": "clearer"})
    decisions = [changed, decision(DELIVERY, "reject"), decision(PRAISE)]
    entry = entry_after(None, "2026-01-02T03:04:05Z", "mail", sha256("A"), decisions, sha256("B"))
    made = descents_after(descents, entry, apply_decisions(FINAL, decisions))
    assert [own.instruction_id for own in made] == [NEW_ID, PRAISE.id]
    (step,) = made[0].edits
    assert (step.round, step.edit_id, step.op, step.proposer, step.reason, step.from_id) == (
        0, "sheet 1", "revise", "Ann", "clearer", REFUND.id,
    )  # fmt: skip
    assert (made[0].text, made[0].origin, made[0].rule_ids) == (NEW_TEXT, "medoid", REFUND.rule_ids)
    measured = with_effects(made, [EFFECTS[2]])
    assert [(own.fixed, own.broken) for own in measured] == [(None, None), (EFFECTS[2].fixed, EFFECTS[2].broken)]
    assert with_effects(made, None)[1].fixed is None
