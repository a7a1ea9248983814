"""The tree of a consensus, against the clusters that are cut from it."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pld.adapters.clusterers.condensed_tree import TreeClusterer, condensed
from pld.adapters.clusterers.consensus import cut, merges_of
from pld.adapters.clusterers.dbscan import DbscanClusterer

# rows 0-1 and 2-3 are together in all runs, all four in half of them, row 4 with them in none
RUNS = np.array([[0, 0, 0, 0, -1], [0, 0, 1, 1, -1]])


def bars_of(runs, agreement=0.65, fewest=2):
    merges = merges_of(runs)
    return condensed(merges, cut(merges, agreement, fewest), agreement, fewest)


def test_a_branch_is_as_wide_as_its_rows_starts_where_its_parent_splits_and_is_coloured_from_the_cut():
    found = {(bar.left, bar.size, bar.top, bar.bottom, bar.number) for bar in bars_of(RUNS)}
    assert len({left for left, size, *_ in found if size == 4}) == 1
    left = next(left for left, size, *_ in found if size == 4)
    assert {(at - left, *own) for at, *own in found} == {
        (0, 4, 0, 0.5, None),
        (0, 2, 0.5, 0.65, None),
        (0, 2, 0.65, 1, 0),
        (2, 2, 0.5, 0.65, None),
        (2, 2, 0.65, 1, 1),
    }


def test_rows_of_one_cluster_that_splits_above_the_cut_share_its_number():
    assert {bar.number for bar in bars_of(RUNS, agreement=0.5)} == {None, 0}


def test_noise_has_no_branch_and_no_number():
    assert {bar.number for bar in bars_of(np.array([[-1] * 4] * 3))} <= {None}


@settings(deadline=None)
@given(
    st.integers(4, 20).flatmap(
        lambda n: st.lists(st.lists(st.integers(-1, 4), min_size=n, max_size=n), min_size=1, max_size=8)
    ),
    st.integers(2, 4),
    st.sampled_from([0.3137, 0.5151, 0.6573]),  # no share of few runs, where a cluster may start and end
)
def test_every_cluster_has_a_bar_as_wide_as_its_rows_at_the_cut(runs, fewest, agreement):
    merges = merges_of(np.array(runs))
    numbers = cut(merges, agreement, fewest)
    bars = condensed(merges, numbers, agreement, fewest)
    assert all(0 <= bar.top < bar.bottom <= 1 and bar.size >= fewest for bar in bars)
    held = {bar.number for bar in bars} - {None}
    assert held == set(numbers.tolist()) - {-1}
    widest = {number: max(bar.size for bar in bars if bar.number == number) for number in held}
    assert widest == {number: int((numbers == number).sum()) for number in held}
    assert all(bar.number is None or bar.top >= agreement for bar in bars)


def test_dbscan_has_no_tree():
    assert not isinstance(DbscanClusterer(eps=0.4, min_samples=6, grow_from=None), TreeClusterer)
