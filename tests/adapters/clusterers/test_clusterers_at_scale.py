"""Clusterers with many rows: exact clusters, settings by size, and memory that grows with n instead of n²."""

import tracemalloc
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from pld.adapters.clusterers import dbscan, in_proportion
from pld.adapters.clusterers.dbscan import DbscanClusterer
from pld.config.build import build
from pld.distill.cluster import ChoosesBySize
from pld.errors import ConfigError

OPTIONS = sorted(Path("conf/clusterer").glob("*.yaml"))


@pytest.fixture(params=OPTIONS, ids=lambda path: path.stem)
def option(request):
    return yaml.safe_load(request.param.read_text())


def rows_of(seed, n, d, spread):
    """Rows of length one around one direction: the smaller the spread, the nearer to one another."""
    rows = np.eye(1, d) + spread * np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 40),
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.1, 0.3, 1.0]),
    eps=st.sampled_from([0.01, 0.05, 0.2, 0.5]),
    min_samples=st.integers(1, 6),
    tile=st.integers(1, 9),
)
def test_dbscan_gives_the_clusters_of_scikit_learn(n, seed, spread, eps, min_samples, tile):
    vectors = rows_of(seed, n, 4, spread)
    with patch.object(dbscan, "_TILE", tile):
        found = DbscanClusterer(eps=eps, min_samples=min_samples, grow_from=None).cluster(vectors)
    wanted = DBSCAN(eps=eps, min_samples=min_samples, metric="cosine").fit_predict(vectors)
    assert found.tolist() == wanted.tolist()


def test_dbscan_accepts_no_rows():
    assert DbscanClusterer(eps=0.4, min_samples=6, grow_from=None).cluster(np.empty((0, 4), np.float32)).shape == (0,)


def test_dbscan_of_rows_that_are_all_neighbours_needs_little_memory():
    vectors = rows_of(0, 8000, 8, 0.01)
    tracemalloc.start()
    found = DbscanClusterer(eps=0.4, min_samples=6, grow_from=None).cluster(vectors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(found) == {0}
    assert peak < 60 * 2**20  # 8,000 × 8,000 places are 488 MiB, flags alone 61


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10**4), st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 10**5) | st.none())
def test_a_growing_setting_never_falls_and_is_never_below_the_configured_one(value, rows, others, grow_from):
    less, more = (in_proportion(value, n, grow_from) for n in sorted((rows, others)))
    assert value <= less <= more
    assert in_proportion(value, rows, None) == value
    if grow_from is not None:
        assert in_proportion(value, grow_from, grow_from) == value
        assert in_proportion(value, 10 * grow_from, grow_from) == 10 * value


def test_few_rules_are_clustered_as_configured_and_many_by_size(option):
    clusterer = build(option, "clusterer")
    assert isinstance(clusterer, ChoosesBySize)
    assert clusterer.by_size(349) == clusterer.by_size(2000) == {}
    chosen = {"DbscanClusterer": {"min_samples": 84}, "UmapHdbscanClusterer": {"sample": 2000}}
    assert clusterer.by_size(100_000) == chosen[type(clusterer).__name__]


def test_dbscan_grows_only_from_a_positive_number_of_rules():
    option = yaml.safe_load(Path("conf/clusterer/dbscan.yaml").read_text())
    assert build(option | {"grow_from": None}, "clusterer").by_size(100_000) == {}
    with pytest.raises(ConfigError, match=r"greater than 0, got 0 .*clusterer\.grow_from"):
        build(option | {"grow_from": 0}, "clusterer")


@pytest.mark.parametrize(("grow_from", "clusters"), [(None, 1), (20, 0)])
def test_dbscan_requires_more_neighbours_for_more_rows(grow_from, clusters):
    vectors = np.vstack([rows_of(0, 6, 8, 0.01), np.eye(8, dtype=np.float32)[np.arange(34) % 7 + 1]])
    found = DbscanClusterer(eps=0.01, min_samples=6, grow_from=grow_from).cluster(vectors)
    assert (found[:6] >= 0).any() == bool(clusters)
