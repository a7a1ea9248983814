"""UMAP to a few dimensions, then HDBSCAN (McInnes et al. 2018; Campello et al. 2013)."""

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from pld.adapters.clusterers.condensed_tree import CondensedTree, condensed
from pld.ports import Vectors


class UmapHdbscanClusterer:
    """Density clusters of a low-dimensional cosine embedding (min_dist 0); one thread, so the same seed repeats.

    UMAP's spectral start needs more rows than `n_components` + 1; below `min_cluster_size` no cluster can be:
    such inputs, and rows that are all alike, are answered without it.
    """

    def __init__(
        self, *, n_neighbors: int, n_components: int, min_cluster_size: int, min_samples: int, seed: int
    ) -> None:
        self._n_neighbors = n_neighbors
        self._n_components = n_components
        self._min_cluster_size = min_cluster_size
        self._min_samples = min_samples
        self._seed = seed

    def cluster(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        n = len(vectors)
        if n < max(self._min_cluster_size, 2):
            return np.full(n, -1, dtype=np.int64)
        if np.allclose(vectors, vectors[0], atol=1e-6):
            return np.zeros(n, dtype=np.int64)
        return np.asarray(self._fitted(vectors).labels_, dtype=np.int64)

    def tree(self, vectors: Vectors) -> CondensedTree | None:
        """The tree that `cluster` cuts; None for input that it answers without one."""
        if len(vectors) < max(self._min_cluster_size, 2) or np.allclose(vectors, vectors[0], atol=1e-6):
            return None
        return condensed(self._fitted(vectors))

    def _fitted(self, vectors: Vectors) -> Any:
        from hdbscan import HDBSCAN

        low = self._reduce(vectors)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hdbscan 0.8.44 calls sklearn with a keyword that it renamed
            return HDBSCAN(
                min_cluster_size=self._min_cluster_size,
                min_samples=min(self._min_samples, len(vectors) - 1),
                core_dist_n_jobs=1,
            ).fit(low)

    def _reduce(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        """[n, d] → [n, n_components]; the rows as they are where there are too few for UMAP."""
        if len(vectors) <= max(self._n_components + 2, 4):
            return vectors
        from umap import UMAP

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # n_jobs is set to 1 by random_state, which is what is wanted
            low = UMAP(
                n_neighbors=min(self._n_neighbors, len(vectors) - 1),
                n_components=self._n_components,
                metric="cosine",
                min_dist=0.0,
                random_state=self._seed,
                n_jobs=1,
            ).fit_transform(vectors)
        return np.asarray(low, dtype=np.float32)
