"""Clusterers with many rows: exact clusters, settings by size, and memory that grows with n instead of n²."""

import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import DBSCAN

from pld.adapters.clusterers import dbscan, in_proportion, umap_hdbscan
from pld.adapters.clusterers.dbscan import DbscanClusterer
from pld.adapters.clusterers.umap_hdbscan import UmapHdbscanClusterer
from pld.config.build import build
from pld.distill.cluster import ChoosesBySize
from pld.errors import ConfigError

OPTIONS = sorted(Path("conf/clusterer").glob("*.yaml"))
SETTINGS = {"n_neighbors": 10, "n_components": 5, "min_cluster_size": 8, "min_samples": 3, "grow_from": 1600, "seed": 0}


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
    assert clusterer.by_size(349) == clusterer.by_size(1600) == {}
    chosen = clusterer.by_size(100_000)
    assert (
        chosen
        == {
            "DbscanClusterer": {"min_samples": 84},
            "UmapHdbscanClusterer": {"min_cluster_size": 500, "n_epochs": 200, "init": "pca"},
        }[type(clusterer).__name__]
    )
    grown = [name for name in chosen if name.startswith("min_")]
    fixed = build(option | {"grow_from": None}, "clusterer").by_size(100_000)
    assert not set(grown) & set(fixed)


def test_grow_from_must_be_positive(option):
    with pytest.raises(ConfigError, match=r"greater than 0, got 0 .*clusterer\.grow_from"):
        build(option | {"grow_from": 0}, "clusterer")


@pytest.mark.parametrize(("grow_from", "clusters"), [(None, 1), (20, 0)])
def test_dbscan_requires_more_neighbours_for_more_rows(grow_from, clusters):
    vectors = np.vstack([rows_of(0, 6, 8, 0.01), np.eye(8, dtype=np.float32)[np.arange(34) % 7 + 1]])
    found = DbscanClusterer(eps=0.01, min_samples=6, grow_from=grow_from).cluster(vectors)
    assert (found[:6] >= 0).any() == bool(clusters)


class Umap:
    """Records UMAP's settings and returns the first columns."""

    calls: list[dict] = []  # noqa: RUF012

    def __init__(self, **settings):
        self.settings = settings
        Umap.calls.append(settings)

    def fit_transform(self, vectors):
        return vectors[:, : self.settings["n_components"]]


@pytest.fixture
def umap_settings(monkeypatch):
    monkeypatch.setattr(Umap, "calls", [])
    monkeypatch.setattr(umap_hdbscan, "_reduced", {})
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    return Umap.calls


class Hdbscan:
    calls: list[dict] = []  # noqa: RUF012

    def __init__(self, **settings):
        Hdbscan.calls.append(settings)

    def fit(self, low):
        return SimpleNamespace(labels_=np.zeros(len(low), dtype=int))


@pytest.fixture
def hdbscan_settings(monkeypatch):
    monkeypatch.setattr(Hdbscan, "calls", [])
    monkeypatch.setitem(sys.modules, "hdbscan", SimpleNamespace(HDBSCAN=Hdbscan))
    return Hdbscan.calls


@pytest.mark.parametrize(
    ("n", "umap", "hdbscan"),
    [
        (1000, {"n_epochs": 500, "init": "spectral"}, {"min_cluster_size": 8, "min_samples": 3}),
        (10_000, {"n_epochs": 500, "init": "spectral"}, {"min_cluster_size": 50, "min_samples": 3}),
        (10_001, {"n_epochs": 200, "init": "pca"}, {"min_cluster_size": 51, "min_samples": 3}),
    ],
)
def test_umap_and_hdbscan_get_the_settings_that_by_size_reports(n, umap, hdbscan, umap_settings, hdbscan_settings):
    clusterer = UmapHdbscanClusterer(**SETTINGS)
    clusterer.cluster(rows_of(0, n, 8, 1.0))
    assert {name: umap_settings[0][name] for name in umap} == umap
    assert {name: hdbscan_settings[0][name] for name in hdbscan} == hdbscan
    assert clusterer.by_size(n).items() <= (umap | hdbscan).items()
    assert umap_settings[0]["n_neighbors"] == 10  # so many are held of every row


def test_clusterers_that_differ_only_in_hdbscan_share_one_umap_run(umap_settings, hdbscan_settings):
    vectors = rows_of(0, 50, 8, 1.0)
    for size in (8, 12):
        UmapHdbscanClusterer(**SETTINGS | {"min_cluster_size": size}).cluster(vectors)
    assert len(umap_settings) == 1
    assert [settings["min_cluster_size"] for settings in hdbscan_settings] == [8, 12]
    others = vectors.copy()
    others[0] = -others[0]
    UmapHdbscanClusterer(**SETTINGS).cluster(others)
    for change in ({"seed": 1}, {"n_neighbors": 5}, {"n_components": 3}):
        UmapHdbscanClusterer(**SETTINGS | change).cluster(vectors)
    assert len(umap_settings) == 5
    assert len(umap_hdbscan._reduced) == 4
