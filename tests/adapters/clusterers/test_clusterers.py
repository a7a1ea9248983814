"""The contract of the Clusterer port, over every clusterer of conf/clusterer/: blobs, and degenerate input."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pld.adapters.clusterers import umap_hdbscan
from pld.config.build import build

OPTIONS = sorted(Path("conf/clusterer").glob("*.yaml"))


@pytest.fixture(params=OPTIONS, ids=lambda path: path.stem)
def clusterer(request):
    return build(yaml.safe_load(request.param.read_text()), "clusterer")


# UMAP compiles itself for some ten seconds (tests/adapters/clusterers/test_clusterers_at_scale.py has a fake one)
with_umap_slow = pytest.mark.parametrize(
    "clusterer",
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
def test_the_same_vectors_give_the_same_clusters(clusterer):
    vectors = blobs([40, 25, 15], spread=0.1)
    found = clusterer.cluster(vectors).tolist()
    umap_hdbscan._reduced.clear()  # so that it is computed anew
    assert clusterer.cluster(vectors).tolist() == found


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
