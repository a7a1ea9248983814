import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.records import Example
from pld.resolve.proposer import Answered
from pld.resolve.sampling import answered, cells, cover, draw, draw_pool, guards, shown_rows

LABELS = ("a", "b", "c")
EXAMPLES = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([None, "g", "h"])), max_size=60)
FAILED = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None]), st.integers(0, 5)).filter(
        lambda row: row[0] != row[1]
    ),
    max_size=40,
)


def example(i, label="a", group=None):
    return Example(id=f"e{i}", inputs={"x": str(i)}, label=label, split="train", group=group)


def train_of(rows):
    return [example(i, label, group) for i, (label, group) in enumerate(rows)]


def failures_of(rows):
    return [Answered(example(i, gold), said, float(margin)) for i, (gold, said, margin) in enumerate(rows)]


def cluster_of(identity):
    """e0, e3, …: no rule; else two clusters."""
    return int(identity[1:]) % 3 - 1 if int(identity[1:]) % 3 else None


def ids(found):
    return [answer.example.id for answer in found]


@given(EXAMPLES, st.integers(1, 70), st.sets(st.integers(0, 59)), st.integers(0, 3))
def test_a_pool_is_as_large_as_asked_or_all_there_is_holds_nothing_twice_and_nothing_excluded(rows, size, out, seed):
    train, exclude = train_of(rows), {f"e{i}" for i in out}
    pool = draw_pool(train, size, LABELS, exclude, seed, 1)
    free = [one for one in train if one.id not in exclude]
    assert len(pool) == min(size, len(free))
    assert [one for one in free if one in pool] == pool
    assert pool == draw_pool(train, size, LABELS, exclude, seed, 1)


@given(EXAMPLES, st.integers(1, 70))
def test_every_label_has_half_of_an_equal_share_in_the_pool_as_far_as_it_has_examples(rows, size):
    train = train_of(rows)
    there = Counter(one.label for one in train)
    drawn = Counter(one.label for one in draw_pool(train, size, LABELS, (), 0, 1))
    assert all(drawn[label] >= min(there[label], size // 6) for label in LABELS)


def test_above_that_floor_labels_have_the_shares_of_train():
    train = train_of([("a", None)] * 600 + [("b", None)] * 390 + [("c", None)] * 10)
    drawn = Counter(one.label for one in draw_pool(train, 120, LABELS, (), 0, 1))
    assert drawn == {"a": 67, "b": 43, "c": 10}
    train = train_of([("a", None)] * 51 + [("b", None)] * 28 + [("c", None)] * 21)
    assert Counter(one.label for one in draw_pool(train, 10, LABELS, (), 0, 1)) == {"a": 5, "b": 3, "c": 2}


def test_groups_take_turns_so_that_a_large_one_does_not_dominate_the_pool():
    train = train_of([("a", "large")] * 90 + [("a", f"small {i % 3}") for i in range(9)])
    drawn = Counter(one.group for one in draw_pool(train, 12, ("a",), (), 0, 1))
    assert drawn == {"large": 3, "small 0": 3, "small 1": 3, "small 2": 3}


def test_rounds_and_seeds_draw_different_pools():
    train = train_of([("a", None)] * 200)
    pools = [draw_pool(train, 20, LABELS, (), seed, round) for seed, round in ((0, 1), (0, 2), (1, 1))]
    assert len({tuple(one.id for one in pool) for pool in pools}) == 3


def test_added_data_change_few_draws():
    train = train_of([(LABELS[i % 3], None) for i in range(300)])
    before = {one.id for one in draw_pool(train, 90, LABELS, (), 0, 1)}
    grown = [*train, *(example(1000 + i, LABELS[i % 3]) for i in range(30))]
    after = {one.id for one in draw_pool(grown, 90, LABELS, (), 0, 1)}
    assert len(before & after) >= 75  # 30 of 330 are new, about 8 of the 90 draws


def test_margins_tell_how_far_an_answer_is_from_the_gold_label_or_the_runner_up():
    scores = np.array([[-1.0, -3.0, -2.0], [-4.0, -1.0, -2.5], [np.nan, np.nan, np.nan]])
    found = answered([example(0, "a"), example(1, "c"), example(2, "b")], scores, LABELS)
    assert [(one.predicted, one.margin, one.right) for one in found] == [
        ("a", 1.0, True),
        ("b", 1.5, False),
        (None, 0.0, False),
    ]
    assert [one.cell for one in found[1:]] == ["c -> b", "b -> None"]
    assert answered([], np.empty((0, 3)), LABELS) == []


@given(FAILED, st.integers(1, 40))
def test_every_cell_is_shown_where_there_is_room_for_all_and_else_the_fullest_ones(rows, size):
    failed = failures_of(rows)
    shown = cover(failed, size, cluster_of)
    assert len(shown) == min(size, len(failed)) == len({one.example.id for one in shown})
    counts = Counter(one.cell for one in failed)
    fullest = sorted(counts, key=lambda cell: (-counts[cell], cell))[:size]
    assert [one.cell for one in shown[: len(fullest)]] == fullest
    held = Counter(one.cell for one in shown)
    # in turn: no cell is more than one ahead of a cell that still has failures
    assert all(held[cell] >= max(held.values()) - 1 for cell in counts if held[cell] < counts[cell])


@given(FAILED, st.integers(1, 40))
def test_the_most_confident_failure_of_each_cluster_comes_before_any_second_one_of_its_cell(rows, size):
    failed = failures_of(rows)
    for cell, own in cells(cover(failed, size, cluster_of)).items():
        clusters = [cluster_of(one.example.id) for one in own]
        of_cell = [one for one in failed if one.cell == cell]
        different = len({cluster_of(one.example.id) for one in of_cell})
        assert len(set(clusters[:different])) == len(clusters[:different])
        for one in own[:different]:
            mates = [two for two in of_cell if cluster_of(two.example.id) == cluster_of(one.example.id)]
            assert one.margin == max(two.margin for two in mates)


@given(FAILED, st.integers(1, 40), st.randoms())
def test_what_is_shown_does_not_hang_on_the_order_of_the_pool(rows, size, random):
    failed = failures_of(rows)
    shuffled = random.sample(failed, len(failed))
    assert ids(cover(shuffled, size, cluster_of)) == ids(cover(failed, size, cluster_of))
    assert ids(draw(shuffled, size, 0, 1)) == ids(draw(failed, size, 0, 1))


def test_random_draws_differ_by_seed_and_round():
    failed = failures_of([("a", "b", 0)] * 40)
    draws = [ids(draw(failed, 10, seed, round)) for seed, round in ((0, 1), (0, 2), (1, 1))]
    assert len({tuple(found) for found in draws}) == 3
    assert all(len(found) == 10 for found in draws)


def test_each_failure_in_turn_takes_the_nearest_success_that_is_left():
    angles = {"e0": 0, "e1": 10, "e2": 4, "e3": 12, "e4": 90}
    vectors = {one: np.array([np.cos(angle / 100), np.sin(angle / 100)]) for one, angle in angles.items()}
    shown = [Answered(example(0), "b", 1.0), Answered(example(1), "b", 1.0)]
    succeeded = [Answered(example(i), "a", 1.0) for i in (4, 3, 2)]
    assert ids(guards(shown, succeeded, vectors)) == ["e2", "e3"]
    # the second failure finds its nearest one taken
    assert ids(guards([shown[0], shown[0]], succeeded, vectors)) == ["e2", "e3"]


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 99))
def test_guards_are_successes_as_many_as_failures_or_all_and_none_twice(failing, passing, seed):
    shown = [Answered(example(i), "b", 1.0) for i in range(failing)]
    succeeded = [Answered(example(100 + i), "a", 1.0) for i in range(passing)]
    random = np.random.default_rng(seed)
    # few directions, so that many are equally near
    vectors = {one.example.id: np.eye(3, dtype=np.float32)[random.integers(3)] for one in (*shown, *succeeded)}
    found = ids(guards(shown, succeeded, vectors))
    assert len(found) == len(set(found)) == min(failing, passing)
    assert set(found) <= set(ids(succeeded))
    assert found == ids(guards(shown, succeeded[::-1], vectors))


def test_guards_for_a_pool_of_thousands_take_no_time():
    shown = [Answered(example(i), "b", 1.0) for i in range(50)]
    succeeded = [Answered(example(100 + i), "a", 1.0) for i in range(2000)]
    random = np.random.default_rng(0)
    vectors = {one.example.id: random.normal(size=384).astype(np.float32) for one in (*shown, *succeeded)}
    start = time.perf_counter()
    assert len(guards(shown, succeeded, vectors)) == 50
    assert time.perf_counter() - start < 2


def test_rows_say_what_was_shown_and_as_what():
    failure, success = Answered(example(4, "a"), "b", 1.23456789), Answered(example(3, "c"), "c", 0.5)
    rows = [row.model_dump() for row in shown_rows([failure], [success], cluster_of)]
    assert rows[0] == {
        "example_id": "e4", "kind": "failure", "label": "a", "predicted": "b", "margin": 1.234568, "cluster": 0,
    }  # fmt: skip
    assert (rows[1]["kind"], rows[1]["cluster"]) == ("success", None)


@pytest.mark.parametrize("size", [1, 7, 24])
def test_the_fullest_cell_comes_first_whatever_else_is_shown(size):
    failed = failures_of([("b", "a", 1)] * 9 + [("a", "b", 5)] * 3 + [("c", None, 0)])
    assert next(iter(cells(cover(failed, size, cluster_of)))) == "b -> a"
