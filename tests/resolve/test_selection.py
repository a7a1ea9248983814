"""The race and the gate, with a Student of test size."""

import itertools
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.metrics import macro_f1
from pld.params import GateParams
from pld.resolve.selection import apply_gate, growing_parts, race, required_probability
from support.word_student import CUES, LABELS, config, examples, instruction, rule, scorer

TRAIN = examples("train", 30)
RULES = [rule(example) for example in TRAIN]
VALIDATION = examples("validation", 120)
MANY = examples("validation", 400)
GATE = GateParams(min_gain=0.005, min_confidence=0.9, max_label_loss=0.1, resamples=400)


def says(label, words):
    return instruction(f"If it tells of {' or '.join(words)}, answer {label}", label)


def halves(known):
    """A list that knows `known` of the four cues of each label."""
    return [says(label, CUES[label][:known]) for label in LABELS]


@pytest.fixture
def bench():
    return scorer(config(), TRAIN, RULES)


@given(size=st.integers(1, 80), seed=st.integers(0, 3), groups=st.sampled_from([None, 1, 7]))
def test_parts_grow_are_nested_and_end_with_all_of_validation(size, seed, groups):
    validation = examples("validation", size, groups=groups)
    parts = [{example.id for example in part} for part in growing_parts(validation, seed)]
    assert all(small <= large for small, large in itertools.pairwise(parts))
    assert parts[-1] == {example.id for example in validation}
    assert parts[0]


def test_a_part_holds_its_share_of_every_label():
    validation = [example for n, example in enumerate(MANY) if example.label != "blue" or n < 120]
    whole = Counter(example.label for example in validation)
    part = growing_parts(validation, 0)[0]
    found = Counter(example.label for example in part)
    assert len(part) == round(len(validation) / 4)
    assert all(abs(found[label] - whole[label] / 4) <= 1 for label in LABELS)


def test_a_part_takes_whole_groups():
    validation = examples("validation", 300, groups=50)
    for part in growing_parts(validation, 0):
        counts = Counter(example.group for example in part)
        assert set(counts.values()) == {6}


def test_no_part_is_so_small_that_chance_decides():
    sizes = [[len(part) for part in growing_parts(MANY[:size], 0)] for size in (30, 64, 100, 200, 400)]
    assert sizes == [[30], [64], [64, 100], [64, 100, 200], [100, 200, 400]]


def test_the_better_half_goes_on_and_the_best_survives(bench):
    parts = growing_parts(VALIDATION, 0)
    lists = [halves(known) for known in (0, 1, 2, 4)]
    prompts = [bench.prompt(found) for found in lists]
    ran = race(prompts, bench.prompt(halves(1)[:2]), bench, parts, GATE)
    assert ran.winners == (prompts[-1].sha256,)
    assert sorted(len(ran.rungs[prompt.sha256]) for prompt in prompts) == [1, 1, 2, 2]
    assert ran.finalists == 2
    last = ran.rungs[ran.winners[0]][-1]
    assert last.examples == len(VALIDATION)
    assert last.macro_f1 == macro_f1(bench.gold(VALIDATION), bench.chosen(prompts[-1], VALIDATION), 3)


def test_of_lists_that_do_equally_well_the_shorter_survives(bench):
    parts = growing_parts(MANY, 0)[-1:]
    shorter, longer = bench.prompt(halves(1)), bench.prompt(halves(4))
    for min_gain, winner in ((0.005, longer), (0.9, shorter)):
        gate = GATE.model_copy(update={"min_gain": min_gain})
        ran = race([longer, shorter], bench.prompt(halves(0)), bench, parts, gate)
        assert ran.winners == (winner.sha256,)


def test_a_joined_list_must_be_clearly_better_than_what_was_joined(bench):
    parts = growing_parts(MANY, 0)
    single, joint = bench.prompt(halves(2)), bench.prompt(halves(3))
    for min_gain, winner in ((0.005, joint), (0.9, single)):
        gate = GATE.model_copy(update={"min_gain": min_gain})
        ran = race([single], bench.prompt(halves(0)), bench, parts, gate, lambda _: [joint])
        assert ran.winners == (winner.sha256,)


def verdict(bench, candidate, present, finalists=1, **changes):
    gate = GATE.model_copy(update=changes)
    return apply_gate(bench.prompt(candidate), bench.prompt(present), finalists, bench, VALIDATION, gate, 0)


def test_a_clear_gain_is_accepted_and_names_what_it_fixed(bench):
    found = verdict(bench, halves(4), halves(1), finalists=12)
    assert found.accepted
    assert found.gain.value > 0.2
    assert found.gain.low <= found.gain.value <= found.gain.high
    gold = {example.id: example.label for example in VALIDATION}
    assert len(found.fixed) > len(found.broken)
    assert set(found.fixed) <= set(gold)
    assert not set(found.fixed) & set(found.broken)


def test_the_same_answers_are_no_gain_whatever_the_terms(bench):
    found = verdict(bench, halves(2), halves(2)[::-1], min_gain=0.0, min_confidence=0.5)
    assert not found.accepted
    assert (found.probability, found.fixed, found.broken) == (0.0, (), ())


def test_a_gain_that_costs_one_label_its_recall_is_refused(bench):
    present = [says("red", CUES["red"]), says("green", CUES["green"][:1]), says("blue", CUES["blue"][:1])]
    better_but_for_red = [says("green", CUES["green"]), says("blue", CUES["blue"]), says("green", CUES["red"][:1])]
    found = verdict(bench, better_but_for_red, present, min_confidence=0.5)
    assert found.gain.value > 0
    assert [words for words in found.failed if words.startswith("recall of red")]
    assert verdict(bench, better_but_for_red, present, min_confidence=0.5, max_label_loss=1.0).accepted


def test_a_label_that_was_answered_to_everything_may_lose_recall_where_its_f1_rises(bench):
    everything_is_red = [says("red", [word for cues in CUES.values() for word in cues])]
    found = verdict(bench, halves(4), everything_is_red, max_label_loss=0.0)
    assert found.recall_change["red"] < 0
    assert found.accepted


def test_a_gain_that_is_too_small_is_refused(bench):
    gain = verdict(bench, halves(3), halves(2)).gain.value
    assert not verdict(bench, halves(3), halves(2), min_gain=gain + 0.01).accepted


def test_the_more_candidates_the_surer_the_best_of_them_must_be():
    assert required_probability(0.9, 1) == pytest.approx(0.9)
    assert required_probability(0.9, 12) ** 12 == pytest.approx(0.9)
    asked = [required_probability(0.9, n) for n in range(1, 20)]
    assert asked == sorted(asked)


def test_a_gain_that_would_do_for_one_candidate_does_not_for_the_best_of_many(bench):
    weak = [*halves(2)[:2], says("blue", CUES["blue"][:3])]
    alone = verdict(bench, weak, halves(2))
    assert alone.accepted
    surely = verdict(bench, weak, halves(2), finalists=10**7)
    assert not surely.accepted
    assert surely.gain == alone.gain
