"""Lines of descent over Edits that are drawn at random and applied as the loop applies them."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pld.records import Instruction, Rule, content_id
from pld.reports import Interval
from pld.resolve.edits import apply, lost_labels
from pld.resolve.lineage import descents, describe_result, trace
from pld.resolve.records import Add, EditResult, Effect, GateResult, Move, Remove, Revise, Split

LABELS = ("refund", "delivery")
RULES = {
    f"r{n}": Rule(
        id=f"r{n}",
        example_id=f"e{n // 2}",
        label=LABELS[n % 2],
        rationale="",
        text=f"rule {n} -> {LABELS[n % 2]}",
        teacher="t",
        doubtful=False,
    )
    for n in range(8)
}
CLUSTERS = {f"r{n}": n % 3 for n in range(6)}  # r6 and r7 are noise


def instruction(label, text, rule_ids, origin="medoid"):
    identity = content_id({"label": label, "text": text}, 12)
    return Instruction(id=identity, text=text, label=label, rule_ids=rule_ids, support=len(rule_ids), origin=origin)


CAME_IN = [instruction("refund", "money -> refund", ("r0", "r2")), instruction("delivery", "late -> delivery", ("r1",))]
PASSED = GateResult(
    accepted=True,
    gain=Interval(value=0.02, low=0.001, high=0.04),
    probability=0.981,
    wanted_probability=0.97,
    finalists=3,
    recall_change={},
    failed=(),
    fixed=("v1",),
    broken=(),
)


def verdict(number, edit, outcome="accepted", rule_ids=(), alarms=()):
    return EditResult(
        id=content_id([number, edit.model_dump()], 12),
        round=number,
        proposer="search",
        edit=edit,
        rule_ids=rule_ids,
        example_ids=(),
        outcome=outcome,
        why="",
        alarms=alarms,
        gate=PASSED if outcome == "accepted" else None,
    )


def played(data, rounds):
    """What a loop leaves: the final list, and the verdicts of its rounds."""
    present, verdicts = list(CAME_IN), []
    for number in range(1, rounds + 1):
        for outcome in ("refused", "accepted"):
            edit = data.draw(edits(present, number))
            rule_ids = data.draw(st.sampled_from([(), ("r3",), ("r4", "r6")]))
            alarms = ()
            if outcome == "accepted":
                edited = apply(present, edit, number, rule_ids)
                for label in lost_labels(present, edited):
                    rule = data.draw(st.sampled_from([rule for rule in RULES.values() if rule.label == label]))
                    back = instruction(label, rule.text, (rule.id,), f"restored in round {number}")
                    edited.append(back)
                    alarms += (f"label {label!r} lost its last instruction: its best other rule came back ({back.id})",)
                present = edited
            verdicts.append(verdict(number, edit, outcome, rule_ids, alarms))
    return present, verdicts


def edits(present, number):
    ids = st.sampled_from([own.id for own in present])
    texts = st.integers(0, 3).map(lambda n: f"text {n}\n  -> of round {number}")
    return st.one_of(
        st.builds(Revise, id=ids, text=texts, reason=st.just("")),
        st.builds(Add, text=texts, label=st.sampled_from(LABELS), position=st.integers(0, 3), reason=st.just("")),
        st.builds(Remove, id=ids, reason=st.just("")),
        st.builds(Move, id=ids, position=st.integers(0, 3), reason=st.just("")),
        st.builds(Split, id=ids, texts=st.tuples(texts, texts), reason=st.just("")),
    )


@given(st.data(), st.integers(0, 5))
def test_every_final_instruction_has_a_line_from_a_beginning_to_itself(data, rounds):
    final, verdicts = played(data, rounds)
    found = descents(final, CAME_IN, verdicts, RULES, CLUSTERS, None)
    assert [(own.instruction_id, own.text, own.label) for own in found] == [
        (own.id, own.text, own.label) for own in final
    ]
    accepted = {own.id: own for own in verdicts if own.outcome == "accepted"}
    for own, line in zip(final, found, strict=True):
        assert line.example_ids == tuple(dict.fromkeys(RULES[rule_id].example_id for rule_id in own.rule_ids))
        assert set(line.cluster_ids) == {CLUSTERS[rule_id] for rule_id in own.rule_ids if rule_id in CLUSTERS}
        assert [step.round for step in line.edits] == sorted(step.round for step in line.edits)
        assert all(step.edit_id in accepted for step in line.edits)
        first = line.edits[0] if line.edits else None
        if line.origin == "medoid":
            assert (first.from_id if first else own.id) in {one.id for one in CAME_IN}
        elif line.origin.startswith("added in round"):
            assert first is not None
            assert (first.op, first.from_id) == ("add", None)
            assert line.origin == f"added in round {first.round}"
        else:
            start = first.from_id if first else own.id
            (alarmed,) = [one for one in accepted.values() if any(start in alarm for alarm in one.alarms)][-1:]
            assert line.origin == f"restored in round {alarmed.round}"
        for before, step in pairwise(line.edits):
            assert step.from_id in made_by(before, accepted[before.edit_id].edit, own.label)


def made_by(step, edit, label):
    """Ids that an Edit can have given to what was `step.from_id`."""
    texts = () if isinstance(edit, Move) else getattr(edit, "texts", None) or (edit.text,)
    return {content_id({"label": label, "text": " ".join(text.split())}, 12) for text in texts} or {step.from_id}


def test_a_revision_of_a_revision_is_followed_to_the_instruction_that_came_in():
    once = apply(CAME_IN, first := Revise(id=CAME_IN[0].id, text="a  -> refund", reason="too wide"), 1, ())
    moved = apply(once, second := Move(id=once[0].id, position=1, reason="late is clearer"), 2, ())
    parts = ("b -> refund", "c -> refund")
    final = apply(moved, third := Split(id=once[0].id, texts=parts, reason="two things"), 3, ("r4",))
    verdicts = [
        verdict(n, edit, rule_ids=("r4",) if n == 3 else ()) for n, edit in enumerate((first, second, third), 1)
    ]
    lines = {line.text: line for line in descents(final, CAME_IN, verdicts, RULES, CLUSTERS, None)}
    for text in parts:
        line = lines[text]
        assert [(step.op, step.round, step.from_id) for step in line.edits] == [
            ("revise", 1, CAME_IN[0].id), ("move", 2, once[0].id), ("split", 3, once[0].id),
        ]  # fmt: skip
        assert [step.reason for step in line.edits] == ["too wide", "late is clearer", "two things"]
        assert (line.origin, line.rule_ids, line.example_ids, line.cluster_ids) == ("medoid", ("r4",), ("e2",), (1,))
    assert lines["late -> delivery"].edits == ()


def test_an_instruction_that_was_removed_and_added_again_begins_with_the_addition():
    gone = apply(CAME_IN, removed := Remove(id=CAME_IN[0].id, reason="misleads"), 1, ())
    back = Add(text=CAME_IN[0].text, label="refund", position=0, reason="it was missed")
    final = apply(gone, back, 2, ("r6",))
    (line, _) = descents(
        final, CAME_IN, [verdict(1, removed), verdict(2, back, rule_ids=("r6",))], RULES, CLUSTERS, None
    )
    assert (line.instruction_id, line.origin) == (CAME_IN[0].id, "added in round 2")
    assert [step.op for step in line.edits] == ["add"]
    assert (line.example_ids, line.cluster_ids) == (("e3",), ())


def test_what_came_back_in_for_a_lost_label_before_the_first_round_is_followed_through_its_edits():
    restored = instruction("refund", RULES["r4"].text, ("r4", "r6"), "restored before round 1")
    present = [CAME_IN[1], restored]
    (untouched,) = descents(present[1:], CAME_IN[1:], [], RULES, CLUSTERS, None)
    assert (untouched.origin, untouched.edits) == ("restored before round 1", ())
    revised = Revise(id=restored.id, text="new -> refund", reason="")
    final = apply(present, revised, 1, ())
    found = descents(final, CAME_IN[1:], [verdict(1, revised)], RULES, CLUSTERS, None)[1]
    assert (found.origin, found.edits[0].from_id) == ("restored before round 1", restored.id)
    assert found.rule_ids == ("r4", "r6")


def test_what_came_back_in_twice_begins_with_the_last_time():
    lost, other = (instruction("refund", RULES[name].text, (name,)) for name in ("r4", "r6"))
    verdicts = [
        verdict(number, Remove(id=gone.id, reason=""), alarms=(f"its best other rule came back in ({back.id})",))
        for number, (gone, back) in enumerate(((CAME_IN[0], lost), (lost, other), (other, lost)), 1)
    ]
    revised = Revise(id=lost.id, text="new -> refund", reason="")
    final = apply([lost], revised, 4, ())
    later = verdict(5, Remove(id=CAME_IN[1].id, reason=""), alarms=(f"its best other rule came back in ({lost.id})",))
    (found,) = descents(final, CAME_IN, [*verdicts, verdict(4, revised), later], RULES, CLUSTERS, None)
    assert (found.origin, len(found.edits)) == ("restored in round 3", 1)


def test_only_accepted_edits_changed_the_list():
    edits = [verdict(1, Remove(id=CAME_IN[0].id, reason=""), outcome) for outcome in ("refused", "dropped", "rejected")]
    assert set(trace(CAME_IN, edits, RULES)) == {own.id for own in CAME_IN}
    assert set(trace(CAME_IN, [verdict(1, Remove(id=CAME_IN[0].id, reason=""))], RULES)) == {CAME_IN[1].id}


def test_the_effect_says_which_examples_it_fixed_and_broke_where_it_was_measured():
    effect = Effect(
        instruction_id=CAME_IN[1].id,
        label="delivery",
        macro_f1=Interval(value=0, low=0, high=0),
        per_label={},
        tokens=3,
        fixed=("v1",),
        broken=("v2", "v3"),
        examples=9,
    )
    without, measured = descents(CAME_IN, CAME_IN, [], RULES, CLUSTERS, [effect])
    assert (without.fixed, without.broken) == (None, None)
    assert (measured.fixed, measured.broken) == (("v1",), ("v2", "v3"))


def test_what_the_gate_saw_is_said_in_one_line():
    accepted = verdict(1, Remove(id="x", reason=""))
    assert describe_result(accepted) == (
        "accepted: macro-F1 on validation +0.0200 [+0.0010, +0.0400], a gain has probability 0.9810"
    )
    rejected = PASSED.model_copy(update={"failed": ("recall of refund -0.300, expected at least -0.1",)})
    told = describe_result(accepted.model_copy(update={"outcome": "rejected", "gate": rejected}))
    assert told.endswith("0.9810; recall of refund -0.300, expected at least -0.1")
    refused = verdict(1, Remove(id="x", reason=""), "refused").model_copy(update={"why": "unknown_id: x"})
    assert describe_result(refused) == "refused: unknown_id: x"
