"""Reduce to a few dimensions with UMAP, then cluster with HDBSCAN (McInnes et al. 2018; Campello et al. 2013)."""

import hashlib
import warnings
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pld.adapters.clusterers import in_proportion
from pld.adapters.clusterers.condensed_tree import CondensedTree, condensed
from pld.ports import Vectors

Low = npt.NDArray[np.float32]

_FEW = 10_000
# UMAP's own defaults by the number of rows, explicit so that reports state what was used, except for init of many: the
# spectral one needs memory for the square of the graph's components, up to rows / n_neighbors of them
_OF_FEW: dict[str, int | str] = {"n_epochs": 500, "init": "spectral"}
_OF_MANY: dict[str, int | str] = {"n_epochs": 200, "init": "pca"}

# the last few UMAP runs: the sweep's clusterers differ in HDBSCAN's settings, and UMAP takes nearly all of the time
_CACHED = 4
_reduced: dict[tuple[object, ...], Low] = {}


class UmapHdbscanClusterer:
    """Density clusters of a low-dimensional cosine embedding (min_dist 0), single-threaded so that a seed repeats.

    Above `grow_from` rows (null: never) `min_cluster_size` grows in proportion; above 10,000 rows UMAP starts from
    principal components and runs fewer epochs. Memory grows with n: below 4,096 rows UMAP computes all distances (64
    MiB at most), above it searches for neighbours. `min_samples` doesn't grow: HDBSCAN keeps that many per row.

    Fewer than `min_cluster_size` rows are noise, and equal rows one cluster, without UMAP; it also needs more rows than
    `n_components` + 2.
    """

    def __init__(
        self,
        *,
        n_neighbors: int,
        n_components: int,
        min_cluster_size: int,
        min_samples: int,
        grow_from: Annotated[int, Field(gt=0)] | None,
        seed: int,
    ) -> None:
        self._n_neighbors = n_neighbors
        self._n_components = n_components
        self._min_cluster_size = min_cluster_size
        self._min_samples = min_samples
        self._grow_from = grow_from
        self._seed = seed

    def by_size(self, rows: int) -> dict[str, int | str]:
        """Settings that differ from the configured ones, or from those for few rows, for so many rows."""
        grown = in_proportion(self._min_cluster_size, rows, self._grow_from)
        chosen: dict[str, int | str] = {"min_cluster_size": grown} if grown != self._min_cluster_size else {}
        return chosen | (_OF_MANY if rows > _FEW else {})

    def cluster(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        if self._too_few(vectors):
            return np.full(len(vectors), -1, dtype=np.int64)
        if _alike(vectors):
            return np.zeros(len(vectors), dtype=np.int64)
        return np.asarray(self._fitted(vectors).labels_, dtype=np.int64)

    def tree(self, vectors: Vectors) -> CondensedTree | None:
        """The tree that `cluster` cuts; None for input that it clusters without one."""
        if self._too_few(vectors) or _alike(vectors):
            return None
        return condensed(self._fitted(vectors))

    def _too_few(self, vectors: Vectors) -> bool:
        return len(vectors) < max(self._min_cluster_size, 2)

    def _fitted(self, vectors: Vectors) -> Any:
        from hdbscan import HDBSCAN

        low = self._reduce(vectors)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hdbscan 0.8.44 calls sklearn with a keyword that it renamed
            return HDBSCAN(
                min_cluster_size=in_proportion(self._min_cluster_size, len(vectors), self._grow_from),
                min_samples=min(self._min_samples, len(vectors) - 1),
                core_dist_n_jobs=1,
            ).fit(low)

    def _reduce(self, vectors: Vectors) -> Low:
        """[n, d] → [n, n_components], or the rows themselves where there are too few for UMAP."""
        if len(vectors) <= max(self._n_components + 2, 4):
            return vectors
        content = hashlib.sha256(np.ascontiguousarray(vectors).data).digest()
        key = (content, vectors.shape, self._n_neighbors, self._n_components, self._seed)
        if key not in _reduced:
            while len(_reduced) >= _CACHED:
                _reduced.pop(next(iter(_reduced)))
            _reduced[key] = self._umap(vectors)
        return _reduced[key]

    def _umap(self, vectors: Vectors) -> Low:
        from umap import UMAP

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # UMAP warns that random_state makes it single-threaded
            low = UMAP(
                n_neighbors=min(self._n_neighbors, len(vectors) - 1),
                n_components=self._n_components,
                metric="cosine",
                min_dist=0.0,
                random_state=self._seed,
                n_jobs=1,
                **(_OF_MANY if len(vectors) > _FEW else _OF_FEW),
            ).fit_transform(vectors)
        return np.asarray(low, dtype=np.float32)


def _alike(vectors: Vectors) -> bool:
    blocks = (
        vectors[start : start + 1024] for start in range(0, len(vectors), 1024)
    )  # most data differ in the first one
    return all(np.allclose(block, vectors[0], atol=1e-6) for block in blocks)
