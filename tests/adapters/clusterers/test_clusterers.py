"""The contract of the Clusterer port, over every clusterer of conf/clusterer/: blobs, and degenerate input."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.metrics import adjusted_rand_score

from pld.adapters.clusterers import umap_hdbscan
from pld.config.build import build

OPTIONS = sorted(Path("conf/clusterer").glob("*.yaml"))


@pytest.fixture(params=OPTIONS, ids=lambda path: path.stem)
def option(request):
    return yaml.safe_load(request.param.read_text())


@pytest.fixture
def clusterer(option):
    return build(option, "clusterer")


# UMAP compiles itself for some ten seconds (tests/adapters/clusterers/test_clusterers_at_scale.py has a fake one)
with_umap_slow = pytest.mark.parametrize(
    "option",
    [
        pytest.param(path, marks=[pytest.mark.slow] if path.stem == "umap_hdbscan" else [], id=path.stem)
        for path in OPTIONS
    ],
    indirect=True,
)


def blobs(sizes, d=32, spread=0.02, seed=0):
    generator = np.random.default_rng(seed)
    centres = np.eye(d)[: len(sizes)]
    rows = np.vstack(
        [centre + spread * generator.normal(size=(n, d)) for centre, n in zip(centres, sizes, strict=True)]
    )
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@with_umap_slow
def test_separate_blobs_become_separate_clusters(clusterer):
    found = clusterer.cluster(blobs([30, 30, 30]))
    assert len(set(found[:30])) == len(set(found[30:60])) == len(set(found[60:])) == 1
    assert len(set(found)) == 3


@with_umap_slow
def test_the_same_vectors_give_the_same_clusters(option, clusterer):
    vectors = blobs([40, 25, 15], spread=0.1)
    found = clusterer.cluster(vectors).tolist()
    umap_hdbscan._layouts.clear()  # so that it is computed anew
    assert build(option, "clusterer").cluster(vectors).tolist() == found


@with_umap_slow
def test_rows_in_another_order_are_in_the_same_clusters_where_these_are_clear(clusterer):
    vectors = blobs([30, 20, 25])
    order = np.random.default_rng(1).permutation(len(vectors))
    assert adjusted_rand_score(clusterer.cluster(vectors)[order], clusterer.cluster(vectors[order])) == 1


@with_umap_slow
def test_noise_on_the_vectors_leaves_clear_clusters_alike(clusterer):
    vectors = blobs([30, 20, 25])
    noisy = vectors + np.random.default_rng(1).normal(scale=1e-6, size=vectors.shape).astype(np.float32)
    assert clusterer.cluster(noisy).tolist() == clusterer.cluster(vectors).tolist()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_few_rows_are_clustered(clusterer, n):
    found = clusterer.cluster(blobs([n]))
    assert found.shape == (n,)
    assert found.dtype == np.int64


@with_umap_slow
@pytest.mark.parametrize("n", [8, 9])
def test_hardly_more_rows_than_a_cluster_are_clustered(clusterer, n):
    found = clusterer.cluster(blobs([n]))
    assert found.shape == (n,)
    assert found.dtype == np.int64


@pytest.mark.parametrize("n", [2, 30])
def test_equal_rows_are_never_separated(clusterer, n):
    found = clusterer.cluster(np.repeat(blobs([1]), n, axis=0))
    assert len(set(found)) == 1


@with_umap_slow
def test_rows_without_structure_are_clustered(clusterer):
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(40, 300))
    found = clusterer.cluster((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    assert found.min() >= -1
