"""The tree that UmapHdbscanClusterer cuts, against the clusters that it answers."""

from types import SimpleNamespace

import numpy as np
import pytest

from pld.adapters.clusterers.condensed_tree import TreeClusterer, condensed
from pld.adapters.clusterers.dbscan import DbscanClusterer

ROW = np.dtype([("parent", int), ("child", int), ("lambda_val", float), ("child_size", int)])


def fitted(rows, labels):
    tree = SimpleNamespace(to_numpy=lambda: np.array(rows, dtype=ROW))
    return SimpleNamespace(condensed_tree_=tree, labels_=np.array(labels))


# row 4 falls out of the root at 0.5, which splits at 1 into {0, 1} and {2, 3}; of those one splits no further
ROWS = [
    (5, 4, 0.5, 1), (5, 6, 1.0, 2), (5, 7, 1.0, 2),
    (6, 0, 2.0, 1), (6, 1, 4.0, 1), (7, 2, 3.0, 1), (7, 3, 3.0, 1),
]  # fmt: skip


def test_a_branch_is_as_wide_as_its_rows_and_starts_where_its_parent_splits():
    tree = condensed(fitted(ROWS, [0, 0, 1, 1, -1]))
    assert [(bar.left, bar.size, bar.top, bar.bottom, bar.number) for bar in tree.bars] == [
        (0, 5, 0, 0.5, None),
        (0.5, 4, 0.5, 1, None),
        (0.5, 2, 1, 2, 0),
        (1, 1, 2, 4, 0),
        (2.5, 2, 1, 3, 1),
    ]
    assert tree.numbers == (0, 0, 1, 1, -1)


def test_a_branch_of_noise_has_no_cluster():
    assert {bar.number for bar in condensed(fitted(ROWS, [0, 0, -1, -1, -1])).bars} == {0, None}


def test_identical_rows_end_a_little_below_the_others():
    rows = [(*row[:2], np.inf if row[1] == 1 else row[2], row[3]) for row in ROWS]
    assert max(bar.bottom for bar in condensed(fitted(rows, [0, 0, 1, 1, -1])).bars) == pytest.approx(1.05 * 3)


def test_a_real_tree_has_every_row_and_the_clusters_of_hdbscan():
    from hdbscan import HDBSCAN

    generator = np.random.default_rng(0)
    rows = np.vstack([generator.normal(size=(20, 3)) + 8 * np.eye(3)[place] for place in range(3)])
    done = HDBSCAN(min_cluster_size=5).fit(rows)
    tree = condensed(done)
    assert tree.bars[0].size == 60
    assert {bar.number for bar in tree.bars} == {None, *range(done.labels_.max() + 1)}
    widest = {number: max(bar.size for bar in tree.bars if bar.number == number) for number in range(3)}
    assert widest == {number: int((done.labels_ == number).sum()) for number in range(3)}


def test_dbscan_has_no_tree():
    assert not isinstance(DbscanClusterer(eps=0.4, min_samples=6, grow_from=None), TreeClusterer)
