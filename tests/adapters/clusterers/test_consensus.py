"""The consensus of UMAP and HDBSCAN runs: what it makes of given runs, and what it hands to both libraries."""

import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pld.adapters.clusterers import umap_hdbscan
from pld.adapters.clusterers.consensus import cut, merges_of, spread, stability_of
from pld.adapters.clusterers.umap_hdbscan import UmapHdbscanClusterer
from pld.config.build import build
from pld.distill.cluster import MeasuresStability

OPTION = yaml.safe_load(Path("conf/clusterer/umap_hdbscan.yaml").read_text())
SETTINGS = {name: value for name, value in OPTION.items() if name != "_target_"}

runs_of_rows = st.integers(2, 12).flatmap(
    lambda n: st.lists(st.lists(st.integers(-1, 3), min_size=n, max_size=n), min_size=1, max_size=6)
)


def consensus(runs, agreement=0.65, fewest=2):
    return cut(merges_of(np.array(runs)), agreement, fewest).tolist()


@settings(deadline=None)
@given(runs_of_rows, st.integers(1, 4))
def test_runs_that_are_alike_are_the_consensus_whatever_their_numbers(runs, fewest):
    first = np.array(runs[0])
    renamed = np.where(first < 0, -1, 7 - first)
    found = consensus([first, renamed, first], fewest=fewest)
    for number in set(first.tolist()):
        places = np.flatnonzero(first == number)
        kept = number >= 0 and len(places) >= fewest
        alone = number < 0 and fewest == 1
        held = {found[place] for place in places}
        assert held == {-1} if not (kept or alone) else -1 not in held
        assert len(held) == (len(places) if alone else 1)


@settings(deadline=None)
@given(runs_of_rows, st.randoms(use_true_random=False))
def test_rows_are_numbered_by_the_first_of_their_cluster_and_the_order_of_the_runs_changes_nothing(runs, random):
    found = consensus(runs)
    firsts = [found.index(number) for number in range(max(found) + 1)]
    assert firsts == sorted(firsts)
    random.shuffle(runs)
    assert consensus(runs) == found


def test_rows_that_too_few_runs_put_together_are_apart():
    apart, together = [0, 0, 1, 1], [0, 0, 0, 0]
    assert consensus([apart] * 7 + [together] * 13) == [0, 0, 0, 0]  # 13 of 20 are .65
    assert consensus([apart] * 8 + [together] * 12) == [0, 0, 1, 1]


def test_a_row_that_is_noise_in_most_runs_is_noise():
    assert consensus([[0, 0, 0], [0, 0, -1], [0, 0, -1]]) == [0, 0, -1]
    assert consensus([[-1, -1, -1]] * 3) == [-1, -1, -1]


def test_stability_is_one_for_runs_that_are_alike_and_about_zero_for_chance():
    same = np.array([[0, 0, 1, 1, -1], [1, 1, 0, 0, -1]])
    assert stability_of(same) == stability_of(same[:1]) == 1
    assert abs(stability_of(np.random.default_rng(0).integers(0, 4, size=(10, 300)))) < 0.02
    # two noise rows are no cluster
    assert stability_of(np.array([[0, 0, -1, -1], [0, 0, 1, 1]])) < 1


def on_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_rows_that_were_not_drawn_join_the_nearest_cluster_unless_they_are_further_away_than_its_own():
    vectors = on_circle(0, 10, 20, 90, 92, 94, 180, 12, 25, 91, 96, 181)
    drawn, numbers = np.arange(7), np.array([0, 0, 0, 1, 1, 1, -1])
    assert spread(vectors, drawn, numbers).tolist() == [*numbers, 0, -1, 1, -1, -1]
    assert spread(vectors, drawn, np.full(7, -1)).tolist() == [-1] * 12


class Umap:
    """Records UMAP's settings and returns the first columns of the distances."""

    calls: list[dict] = []  # noqa: RUF012

    def __init__(self, **settings):
        self.settings = settings
        Umap.calls.append(settings)

    def fit_transform(self, distances):
        assert distances.shape == (len(distances),) * 2
        return distances[:, : self.settings["n_components"]]


@pytest.fixture
def umap_settings(monkeypatch):
    monkeypatch.setattr(Umap, "calls", [])
    monkeypatch.setattr(umap_hdbscan, "_layouts", {})
    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    return Umap.calls


class Hdbscan:
    """Records HDBSCAN's settings; the seed of the run decides: two clusters in the first run, else one."""

    calls: list[dict] = []  # noqa: RUF012

    def __init__(self, **settings):
        Hdbscan.calls.append(settings)

    def fit(self, low):
        halves = np.arange(len(low)) >= len(low) // 2
        return SimpleNamespace(labels_=halves.astype(int) if len(Hdbscan.calls) == 1 else np.zeros(len(low), int))


@pytest.fixture
def hdbscan_settings(monkeypatch):
    monkeypatch.setattr(Hdbscan, "calls", [])
    monkeypatch.setitem(sys.modules, "hdbscan", SimpleNamespace(HDBSCAN=Hdbscan))
    return Hdbscan.calls


def rows_of(seed, n, d=8):
    rows = np.eye(1, d) + np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_each_run_has_a_seed_of_its_own_and_both_libraries_the_settings(umap_settings, hdbscan_settings):
    clusterer = UmapHdbscanClusterer(**SETTINGS | {"runs": 3, "seed": 2})
    vectors = rows_of(0, 50)
    assert set(clusterer.cluster(vectors)) == {0}
    assert [used["random_state"] for used in umap_settings] == [6, 7, 8]
    assert umap_settings[0] | {"n_neighbors": 10, "n_components": 5, "metric": "precomputed"} == umap_settings[0]
    assert hdbscan_settings[0] | {"min_cluster_size": 8, "min_samples": 3} == hdbscan_settings[0]
    assert isinstance(clusterer, MeasuresStability)
    assert clusterer.stability(vectors) == pytest.approx(1 / 3)  # one pair of three is alike
    assert len(hdbscan_settings) == 3  # the stability is no work of its own


def test_clusterers_that_differ_only_in_hdbscan_share_the_umap_runs(umap_settings, hdbscan_settings):
    vectors = rows_of(0, 50)
    own = SETTINGS | {"runs": 3}
    for size in (8, 12):
        UmapHdbscanClusterer(**own | {"min_cluster_size": size}).cluster(vectors)
    assert len(umap_settings) == 3
    assert {used["min_cluster_size"] for used in hdbscan_settings[3:]} == {12}
    for change in ({"seed": 1}, {"n_neighbors": 5}, {"n_components": 3}, {"runs": 2}):
        UmapHdbscanClusterer(**own | change).cluster(vectors)
    assert len(umap_settings) == 14
    assert len(umap_hdbscan._layouts) == 4


def test_of_many_rows_a_sample_is_clustered_and_rows_added_later_change_little_of_it(umap_settings, hdbscan_settings):
    clusterer = UmapHdbscanClusterer(**SETTINGS | {"sample": 100, "runs": 1})
    vectors = rows_of(0, 300)
    found = clusterer.cluster(vectors)
    assert found.shape == (300,)
    assert set(found) == {-1, 0, 1}
    assert sum(bar.size for bar in clusterer.tree(vectors).bars if bar.top == 0) == 100
    assert len(clusterer.tree(vectors).numbers) == 300
    before, after = (set(umap_hdbscan._drawn(rows, 100, 0).tolist()) for rows in (300, 303))
    assert len(before) == len(after) == 100
    assert len(before - after) <= 3


@pytest.mark.parametrize("vectors", [rows_of(0, 1), rows_of(0, 7), np.repeat(rows_of(0, 1), 30, axis=0)])
def test_input_that_needs_no_run_has_neither_stability_nor_tree(vectors):
    clusterer = build(OPTION, "clusterer")
    assert clusterer.stability(vectors) is None
    assert clusterer.tree(vectors) is None


def test_rows_that_are_noise_in_every_run_have_no_tree(umap_settings, hdbscan_settings, monkeypatch):
    monkeypatch.setattr(Hdbscan, "fit", lambda _, low: SimpleNamespace(labels_=np.full(len(low), -1)))
    clusterer = UmapHdbscanClusterer(**SETTINGS | {"runs": 2})
    assert set(clusterer.cluster(rows_of(0, 50))) == {-1}
    assert clusterer.tree(rows_of(0, 50)) is None


@pytest.mark.slow
def test_five_thousand_rows_need_memory_for_the_sample_alone():
    generator = np.random.default_rng(0)
    topics = np.arange(5000) % 20
    vectors = np.eye(64)[topics] + 0.05 * generator.normal(size=(5000, 64))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    clusterer = build(OPTION | {"sample": 1000, "runs": 3}, "clusterer")
    clusterer.cluster(vectors[:200])  # libraries and compilation
    tracemalloc.start()
    found = clusterer.cluster(vectors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert {*found.tolist()} == {*range(-1, 20)}
    assert len({*zip(found[found >= 0].tolist(), topics[found >= 0].tolist(), strict=True)}) == 20
    assert np.mean(found < 0) < 0.05
    assert peak < 60 * 2**20  # 5,000 × 5,000 distances are 95 MiB
