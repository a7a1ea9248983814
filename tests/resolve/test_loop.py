"""The laws of the loop, with a Student of test size."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pld.errors import TeacherError
from pld.resolve.loop import Loop
from pld.resolve.records import Add, Remove, Revise
from pld.resolve.resolution import resolve
from pld.resolve.search_proposer import SearchProposer
from support.word_loop import Scripted, first_rules, loop_inputs
from support.word_student import CUES, LABELS, embed_examples, instruction

PLANTED = instruction("If it tells of sea or sky or whale or ink, answer red", "red")


def macro_f1(on, instructions):
    return on.scorer.report(on.scorer.prompt(instructions), on.validation).macro_f1.value


def played(on, came_in, proposer=None):
    loop = Loop(replace(on, instructions=came_in), proposer or SearchProposer(), embed_examples)
    return loop, list(loop.rounds())


def resolved(on, came_in, on_round=lambda played: None):
    proposer = None if on.config.resolver.kind == "none" else SearchProposer()
    return resolve(replace(on, instructions=came_in), proposer, embed_examples, on_round)


@given(
    seed=st.integers(0, 500),
    count=st.integers(1, 3),
    sampler=st.sampled_from(["covering", "random"]),
    pruning=st.sampled_from(["none", "ablation"]),
    planted=st.booleans(),
    groups=st.sampled_from([None, 12]),
    order=st.randoms(use_true_random=False),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_ships_is_never_worse_on_validation_than_what_came_in(
    seed, count, sampler, pruning, planted, groups, order
):
    on = loop_inputs(seed, sampler=sampler, pruning=pruning, rounds=3, patience=2, groups=groups)
    came_in = [*first_rules(on, count), *([PLANTED] if planted else [])]
    order.shuffle(came_in)
    done = resolved(on, came_in)
    assert done.report.result.macro_f1.value >= done.report.came_in.macro_f1.value
    assert done.report.result.macro_f1.value == macro_f1(on, done.instructions)
    assert {item.label for item in came_in} <= {item.label for item in done.instructions}
    on_the_way = [round.validation.macro_f1.value for round in done.report.rounds]
    assert on_the_way == sorted(on_the_way)


@given(seed=st.integers(0, 500), sampler=st.sampled_from(["covering", "random"]))
@settings(max_examples=8, deadline=None)
def test_the_same_seed_gives_the_same_result(seed, sampler):
    first, second = (
        resolved(on, first_rules(on, 1))
        for on in (loop_inputs(seed, sampler=sampler), loop_inputs(seed, sampler=sampler))
    )
    assert first == second


def test_a_weak_list_improves():
    on = loop_inputs(train=120, validation=120)
    done = resolved(on, first_rules(on, 1))
    assert done.report.accepted
    assert done.report.gain.macro_f1_delta.low > 0


def test_a_planted_wrong_instruction_is_blamed_first_and_gone_within_two_rounds():
    on = loop_inputs(train=120, validation=120)
    came_in = [*(instruction(f"If it tells of {' or '.join(CUES[x])}, answer {x}", x) for x in LABELS), PLANTED]
    _, rounds = played(on, came_in)
    assert max(rounds[0].blames, key=lambda found: found.rise).instruction_id == PLANTED.id
    assert PLANTED.id not in {item.id for item in rounds[min(1, len(rounds) - 1)].instructions}


def test_on_shuffled_labels_it_accepts_no_more_than_chance_allows():
    accepted = 0
    for seed in range(10):
        on = loop_inputs(0, train=90, validation=120, shuffled=seed, rounds=1)
        accepted += len(resolved(on, first_rules(on, 2)).report.accepted)
    # the gate lets a list without merit pass in one of ten: four or more of ten has a probability of 0.013
    assert accepted <= 3


def test_the_loop_ends_when_the_pool_has_no_failure():
    on = loop_inputs()
    perfect = [instruction(f"If it tells of {' or '.join(CUES[x])}, answer {x}", x) for x in LABELS]
    clean = [example for example in on.train if any(w in CUES[example.label] for w in example.inputs["text"].split())]
    loop, rounds = played(replace(on, train=clean), perfect)
    assert loop.ended == "the pool has no failure"
    assert [len(round.edits) for round in rounds] == [0]


def test_the_loop_ends_after_patience_rounds_without_an_accepted_edit():
    on = loop_inputs(patience=2, rounds=9)
    loop, rounds = played(on, first_rules(on, 1), Scripted())
    assert len(rounds) == 2
    assert "no Edit was accepted for 2 rounds" in loop.ended


def test_the_loop_ends_at_the_round_limit():
    on = loop_inputs(patience=5, rounds=2)
    loop, rounds = played(on, first_rules(on, 1), Scripted())
    assert (len(rounds), loop.ended) == (2, "the limit of 2 rounds")


def test_the_loop_ends_when_nothing_fits_into_the_token_budget():
    on = loop_inputs(token_budget=1)
    loop, rounds = played(on, first_rules(on, 1))
    assert "token budget" in loop.ended
    assert {edit.why.split(":")[0] for edit in rounds[0].edits} == {"over_budget"}


def test_an_outage_of_the_teacher_ends_its_round_and_not_the_loop():
    better = Add(text="If it tells of sea or sky or whale or ink, answer blue", label="blue", position=0, reason="")
    on = loop_inputs(patience=2, train=120)
    proposer = Scripted(TeacherError("expected an answer, got status 529"), [better])
    came_in = [*first_rules(on, 1)[:2], instruction("If it tells of nothing, answer blue", "blue")]
    loop, rounds = played(on, came_in, proposer)
    assert "status 529" in rounds[0].report.trouble
    assert rounds[0].instructions == tuple(came_in)
    assert rounds[1].report.accepted
    assert better.text in {item.text for item in loop.present}


def test_a_bad_edit_is_refused_with_its_reason_and_the_others_live():
    on = loop_inputs(train=120)
    came_in = [*first_rules(on, 1)[:2], instruction("If it tells of nothing, answer blue", "blue")]
    good = Add(text="If it tells of sea or sky or whale or ink, answer blue", label="blue", position=0, reason="")
    bad = [
        Revise(id="nobody", text="If it tells of ink, answer blue", reason=""),
        Add(text="", label="blue", position=0, reason=""),
        Add(text="If it tells of ink, answer pink", label="pink", position=0, reason=""),
    ]
    for at in range(4):
        edits = [*bad[:at], good, *bad[at:]]
        loop, (first, *_) = played(on, came_in, Scripted(edits))
        outcomes = {edit.edit: edit.outcome for edit in first.edits}
        assert outcomes.pop(good) == "accepted"
        assert set(outcomes.values()) == {"refused"}
        assert all(edit.why for edit in first.edits)
        assert len(loop.present) == 4


def test_a_list_that_lost_its_race_is_not_raced_again():
    on = loop_inputs(patience=4, rounds=4)
    _, rounds = played(on, first_rules(on, 2))
    raced = [edit.prompt_sha256 for round in rounds for edit in round.edits if edit.race]
    assert len(raced) == len(set(raced))


def test_validation_is_asked_only_about_the_lists_that_did_best_on_the_pool():
    on = loop_inputs(train=120, rounds=1, candidates=3, proposals=10)
    (first,) = played(on, first_rules(on, 1))[1]
    singly = [edit for edit in first.edits if edit.pool]
    assert len(singly) == 10
    raced = [edit.pool.macro_f1 for edit in singly if edit.race]
    assert len(raced) == 3
    assert min(raced) >= max(edit.pool.macro_f1 for edit in singly if not edit.race)
    student = on.scorer.student
    validation = {example.inputs["text"] for example in on.validation} - {x.inputs["text"] for x in on.train}
    asked = {prompt for prompt, text in student.asked if text in validation}
    joint = len(first.report.together)
    assert len(asked) == 1 + 3 + joint  # the present list, and what raced


def test_edits_that_help_are_accepted_together_and_each_has_its_verdict():
    on = loop_inputs(train=120, validation=150, noise_share=0.0)
    came_in = [instruction(f"If it tells of {CUES[label][0]}, answer {label}", label) for label in LABELS]
    edits = [
        Add(text=f"If it tells of {' or '.join(CUES[label][1:])}, answer {label}", label=label, position=0, reason="")
        for label in LABELS[1:]
    ]
    loop, (first, *_) = played(on, came_in, Scripted(edits))
    assert [edit.outcome for edit in first.edits] == ["accepted", "accepted"]
    assert set(first.report.accepted) == set(first.report.together[0].edit_ids)
    assert all("together with" in edit.why for edit in first.edits)
    assert {edit.text for edit in edits} <= {item.text for item in loop.present}
    assert {edit.gate.finalists for edit in first.edits} == {1}  # of one of two, and both together


def test_no_example_that_stands_in_the_prompt_is_predicted():
    on = loop_inputs()
    rendering = on.scorer.config.rendering.model_copy(update={"exemplars": 4, "exemplars_per": "instruction"})
    on.scorer.config = on.scorer.config.model_copy(update={"rendering": rendering})
    came_in = first_rules(on, 1)
    _, rounds = played(on, came_in)
    shown = {on.scorer.rules[rule_id].example_id for item in came_in for rule_id in item.rule_ids[:4]}
    assert shown
    assert not shown & {row.example_id for row in rounds[0].pool}


def test_a_label_that_lost_its_last_instruction_in_merging_gets_its_best_noise_rule_back():
    noisy = [item.id for item in loop_inputs().rules if item.label == "blue"][3:6]
    on = loop_inputs(noise=noisy)
    came_in = first_rules(on, 1)[:2]
    loop, _ = played(on, came_in, Scripted())
    back = loop.present[-1]
    assert (back.label, back.origin) == ("blue", "restored before round 1")
    assert set(back.rule_ids) == set(noisy)
    assert any("'blue'" in alarm and back.id in alarm for alarm in loop.alarms)
    assert macro_f1(on, loop.present) >= macro_f1(on, came_in)


def test_an_edit_that_takes_a_labels_last_instruction_brings_another_rule_in_and_says_so():
    probe = loop_inputs()
    came_in = first_rules(probe, 1)
    blue = came_in[-1]
    on = loop_inputs()
    _, (first,) = played(on, came_in, Scripted([Remove(id=blue.id, reason="")]))
    (edit,) = first.edits
    assert edit.outcome != "refused"
    assert any("'blue'" in alarm for alarm in edit.alarms)
    without_other_rules = [item for item in on.rules if item.label != "blue" or item.text == blue.text]
    places = [on.rules.index(item) for item in without_other_rules]
    bare = replace(on, rules=without_other_rules, vectors=on.vectors[places])
    _, (first,) = played(bare, came_in, Scripted([Remove(id=blue.id, reason="")]))
    assert [(edit.outcome, edit.why.split(":")[0]) for edit in first.edits] == [("refused", "label_lost")]


def test_every_list_is_counted_once_and_the_gate_knows_how_many_it_was_chosen_from():
    on = loop_inputs(train=120, rounds=3, patience=3)
    done = resolved(on, first_rules(on, 1))
    rounds: list = []
    resolved(loop_inputs(train=120, rounds=3, patience=3), first_rules(on, 1), rounds.append)
    edits = [edit for round in rounds for edit in round.edits]
    joint = [found for round in rounds for found in round.report.together]
    raced = [edit.prompt_sha256 for edit in edits if edit.race] + [found.prompt_sha256 for found in joint]
    assert joint
    assert done.report.candidates == len(set(raced)) == len(raced)
    for round in rounds:
        gates = [edit.gate for edit in round.edits if edit.gate]
        rungs = [edit.race for edit in round.edits] + [found.race for found in round.report.together]
        on_all = sum(bool(race) and race[-1].examples == len(on.validation) for race in rungs)
        assert [gate.finalists for gate in gates] == [on_all] * len(gates)


def test_without_a_resolver_the_list_ships_as_it_came_in():
    on = loop_inputs(resolver="none")
    came_in = first_rules(on, 2)
    done = resolved(on, came_in, lambda played: pytest.fail("a round was played"))
    assert list(done.instructions) == came_in
    assert done.report.rounds == ()
    assert done.report.gain.macro_f1_delta.value == 0


def test_every_edit_says_which_round_and_proposer_it_is_of_and_has_an_id_of_its_own():
    on = loop_inputs(train=120, rounds=3, patience=3)
    _, rounds = played(on, first_rules(on, 1))
    edits = list(itertools.chain.from_iterable(round.edits for round in rounds))
    assert len({edit.id for edit in edits}) == len(edits)
    for round in rounds:
        assert {edit.round for edit in round.edits} <= {round.report.round}
        assert {edit.proposer for edit in round.edits} <= {"search"}


def test_an_edit_that_lost_before_is_refused_and_not_measured_again():
    harmful = Add(text="If it tells of sea or sky, answer red", label="red", position=0, reason="")
    on = loop_inputs(patience=2)
    _, (first, second) = played(on, first_rules(on, 1), Scripted([harmful], [harmful]))
    assert [edit.outcome for edit in first.edits] == ["rejected"]
    assert [(edit.outcome, edit.why.split(":")[0]) for edit in second.edits] == [("refused", "tried")]


def test_the_search_goes_on_to_what_it_has_not_tried():
    on = loop_inputs(patience=3, rounds=4)
    _, rounds = played(on, first_rules(on, 3))
    idle = [(before, after) for before, after in itertools.pairwise(rounds) if not before.report.accepted]
    assert idle
    for before, after in idle:
        bare = [{edit.edit.model_copy(update={"reason": ""}) for edit in found.edits} for found in (before, after)]
        assert bare[1]
        assert not bare[0] & bare[1]


def test_no_round_is_played_when_the_prompt_shows_every_training_example():
    on = loop_inputs(train=9)
    rendering = on.scorer.config.rendering.model_copy(update={"exemplars": 9, "exemplars_per": "instruction"})
    on.scorer.config = on.scorer.config.model_copy(update={"rendering": rendering})
    loop, rounds = played(on, first_rules(on, 1))
    assert rounds == []
    assert "none is left to predict" in loop.ended
