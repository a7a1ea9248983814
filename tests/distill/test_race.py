"""Properties of the race over made-up answers, and of a whole sweep that races, with a Student of test size."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pld.distill.race import (
    Entrant,
    Place,
    compare_with_leader,
    most_answers,
    nested_parts,
    part_sizes,
    race,
    simplest,
)
from pld.metrics import indices
from pld.params import EvaluationParams, RaceParams
from support.word_student import LABELS, examples
from support.word_sweep import VALIDATION, raced, swept

MANY = examples("validation", 150)
GROUPED = examples("validation", 150, groups=30)
PARAMS = RaceParams(first=8, factor=3, keep=0.33, alpha=0.05)
BOOTSTRAP = EvaluationParams(seed=0, resamples=100)
FINALISTS = 3


class Answers:
    """Labels that each prompt chooses for `MANY`: the gold one with a probability of its own. Counts what is asked."""

    def __init__(self, skills, seed, validation=MANY):
        gold, random = indices([example.label for example in validation], LABELS), np.random.default_rng(seed)
        wrong = (gold + random.integers(1, len(LABELS), (len(skills), len(gold)))) % len(LABELS)
        luck = random.random((len(skills), len(gold)))
        chosen = np.where(luck < np.array(skills)[:, None], gold, wrong)
        self.entrants = [Entrant(f"p{at:02}", tokens=100 + 10 * at) for at in range(len(skills))]
        ids = [example.id for example in validation]
        self._chosen = {
            entrant: dict(zip(ids, row, strict=True)) for entrant, row in zip(self.entrants, chosen, strict=True)
        }
        self.asked = set()

    def __call__(self, entrant, part):
        self.asked |= {(entrant, example.id) for example in part}
        return np.array([self._chosen[entrant][example.id] for example in part])


def parts_of(validation, seed=0, params=PARAMS):
    return nested_parts(validation, part_sizes(len(validation), len(LABELS), params), seed)


def run(answers, entrants=None, seed=0, params=PARAMS, validation=MANY):
    parts = parts_of(validation, seed, params)
    return race(entrants or answers.entrants, answers, parts, FINALISTS, params, LABELS, BOOTSTRAP)


def rungs(params=PARAMS):
    return len(part_sizes(len(MANY), len(LABELS), params))


skills = st.lists(st.floats(0.2, 0.9), min_size=1, max_size=12)
seeds = st.integers(0, 1000)
few = settings(max_examples=8, deadline=None)


@few
@given(skills.filter(lambda found: len(found) > 1), seeds, seeds)
def test_a_prompt_that_is_right_wherever_another_is_reaches_the_last_part_with_any_seed(found, seed, drawn):
    answers = Answers([*found, 1.0], seed)
    standings = run(answers, seed=drawn)
    best = answers.entrants[-1]
    assert (standings[best].rung, standings[best].gap) == (rungs(), 0)


@few
@given(skills, seeds, st.randoms(use_true_random=False))
def test_the_order_of_the_prompts_changes_nothing(found, seed, random):
    answers = Answers(found, seed)
    shuffled = list(answers.entrants)
    random.shuffle(shuffled)
    assert run(answers, shuffled) == run(answers)


@few
@given(skills, seeds, st.sampled_from([MANY, GROUPED]), st.integers(1, 40), st.integers(2, 5))
def test_a_race_never_takes_more_answers_than_its_bound_nor_that_more_than_the_grid(found, seed, data, first, factor):
    answers, params = Answers(found, seed, data), PARAMS.model_copy(update={"first": first, "factor": factor})
    run(answers, params=params, validation=data)
    sizes = [len(part) for part in parts_of(data, params=params)]
    most = most_answers(len(found), sizes, FINALISTS, params)
    assert len(answers.asked) <= most <= len(found) * len(data)


def test_twenty_prompts_on_240_examples_take_less_than_a_third_of_the_grid():
    data = examples("validation", 240)
    answers = Answers(np.linspace(0.3, 0.9, 20), 0, data)
    run(answers, validation=data)
    assert 3 * len(answers.asked) < 20 * len(data)


def test_a_prompt_that_is_clearly_behind_is_dropped_even_where_there_is_room():
    answers = Answers([0.2, 0.95], 0)
    standings = run(answers, params=PARAMS.model_copy(update={"keep": 1.0}))
    assert [standings[entrant].rung for entrant in answers.entrants] == [1, rungs()]
    assert standings[answers.entrants[0]].gap > 5 * standings[answers.entrants[0]].se > 0


def test_of_prompts_that_answer_alike_the_shortest_go_on():
    answers = Answers([0.7], 0)
    twins = [Entrant(f"t{n}", tokens=100 - n) for n in range(10)]
    standings = race(
        twins, lambda _, part: answers(answers.entrants[0], part), parts_of(MANY), FINALISTS, PARAMS, LABELS, BOOTSTRAP
    )
    assert {one.key for one in twins if standings[one].rung == rungs()} == {"t9", "t8", "t7"}
    assert {one.key for one in twins if standings[one].rung > 1} == {"t9", "t8", "t7", "t6"}


def test_on_parts_of_few_groups_no_prompt_is_dropped_but_for_the_limit():
    data = examples("validation", 150, groups=6)
    answers = Answers([0.2, 0.95], 0, data)
    standings = run(answers, params=PARAMS.model_copy(update={"keep": 1.0}), validation=data)
    assert len({standing.rung for standing in standings.values()}) == 1


@pytest.mark.parametrize("data", [MANY, GROUPED])
def test_each_part_is_in_the_next_and_in_the_order_of_validation_and_the_last_is_all(data):
    parts = parts_of(data)
    assert len(parts) > 1
    for one, other in itertools.pairwise(parts):
        assert {example.id for example in one} < {example.id for example in other}
    for part in parts:
        assert part == [example for example in data if example in part]
    assert parts[-1] == list(data)
    assert parts_of(data, seed=1)[0] != parts[0]


def test_a_part_holds_each_label_in_proportion_and_groups_whole():
    counts = [sum(example.label == label for example in parts_of(MANY)[0]) for label in LABELS]
    assert counts == [8, 8, 8]
    held = {example.group for example in parts_of(GROUPED)[0]}
    assert sum(example.group in held for example in GROUPED) == len(parts_of(GROUPED)[0])


@pytest.mark.parametrize(
    ("validation", "labels", "sizes"),
    [
        (399, 4, [32, 96, 399]),
        (240, 3, [24, 72, 240]),
        (30, 3, [30]),
        (48, 3, [24, 48]),
        (1000, 2, [16, 48, 144, 432, 1000]),
    ],
)
def test_parts_grow_with_labels_and_validation(validation, labels, sizes):
    assert part_sizes(validation, labels, PARAMS) == sizes


def test_the_winner_is_the_shortest_within_one_standard_error_of_the_best():
    long, short, shorter = Entrant("a", 900), Entrant("c", 300), Entrant("b", 100)
    places = {long: Place(0.8, 0, 0, 0), short: Place(0.796, 0.004, 0.011, 0.7), shorter: Place(0.7, 0.1, 0.05, 1.0)}
    assert simplest(places) == short
    assert simplest({**places, Entrant("b", 300): places[short]}).key == "b"


def test_figures_that_differ_in_the_last_bits_are_level():
    answers = Answers([0.8, 0.8], 0)
    one, other = answers.entrants
    chosen = {one: answers(one, MANY), other: answers(one, MANY)}
    places = compare_with_leader(chosen, MANY, LABELS, BOOTSTRAP)
    assert [(place.gap, place.se, place.behind) for place in places.values()] == [(0, 0, 0), (0, 0, 0)]


POINTS = [
    {"clustering.draw": draw, "rendering.order": order, "clustering.doubtful": doubtful}
    for draw in (None, 0, 1)
    for order in ("support", "label")[: 2 if draw is None else 1]
    for doubtful in ("keep", "drop")
]


@functools.cache
def race_of_points():
    return raced(*POINTS, first=2)


def test_a_sweep_that_races_comes_to_a_winner_as_good_as_the_grids_with_fewer_answers():
    grid, (found, _) = swept(*POINTS), race_of_points()
    answers = [sum(result.asked for result in one.results) for one in (grid, found)]
    assert answers[1] < answers[0]
    assert found.winner.report.report.macro_f1.value >= grid.winner.report.report.macro_f1.value - 0.01
    assert {result.trial_id for result in found.results} == {result.trial_id for result in grid.results}


def test_a_sweep_that_races_does_not_depend_on_the_order_of_its_points():
    assert raced(*reversed(POINTS), first=2)[0] == race_of_points()[0]


def test_a_trial_says_how_far_it_went_and_the_answers_counted_are_those_given():
    found, student = race_of_points()
    reports = [result.report for result in found.results]
    sizes = [report.report.n for report in reports]
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (len(VALIDATION), 6)
    assert [len(result.predictions) for result in found.results] == sizes
    assert {(report.standing.rung, report.report.n) for report in reports} == {(1, 6), (2, 30)}
    dud = {r.standing.rung for r in reports if r.settings["clustering.draw"] == 1}
    assert dud == {1}
    assert found.winner.report.standing.gap <= found.winner.report.standing.se
    assert sum(result.asked for result in found.results) == len(student.asked)


def test_prompts_that_begin_alike_are_asked_one_after_the_other_the_short_ones_first():
    prompts = [prompt for prompt, _ in itertools.groupby(race_of_points()[1].asked, lambda asked: asked[0])]
    first_rung = prompts[: len(set(prompts))]
    assert first_rung == sorted(first_rung)
