"""Consensus of several runs that reduce to a few dimensions with UMAP and cluster with HDBSCAN (McInnes et al. 2018;
Campello et al. 2013)."""

import hashlib
import warnings
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pld.adapters.clusterers.condensed_tree import CondensedTree, condensed
from pld.adapters.clusterers.consensus import Merges, Numbers, cut, merges_of, spread, stability_of
from pld.ports import Vectors
from pld.records import content_id

Low = npt.NDArray[np.float32]

# the last few UMAP runs: the sweep's clusterers differ in HDBSCAN's settings, and UMAP takes nearly all of the time
_CACHED = 4
_layouts: dict[tuple[object, ...], list[Low]] = {}


@dataclass(frozen=True)
class _Consensus:
    """`numbers` [n] of all rows, from `merges` of the `drawn` ones [m] cut to `of_drawn` [m]."""

    numbers: Numbers
    stability: float
    merges: Merges
    of_drawn: Numbers


class UmapHdbscanClusterer:
    """Rows that on average are together in at least `agreement` (a share) of `runs` with different seeds.

    One run hangs on the last bits of the vectors; the consensus hardly does (`bench/stability.py`). A run is UMAP
    (cosine, min_dist 0, single-threaded so that a seed repeats) and HDBSCAN. Fewer than `min_cluster_size` rows are
    noise, and equal rows one cluster, without any run; UMAP also needs more rows than `n_components` + 2.

    Above `sample` rows so many are clustered, drawn by the hash of their places; any other joins the cluster with the
    nearest centroid, or is noise if it is further away than all drawn rows of that cluster. So `min_cluster_size`
    counts drawn rows. Memory grows with n, and with the square of `sample`.
    """

    def __init__(
        self,
        *,
        n_neighbors: int,
        n_components: int,
        min_cluster_size: Annotated[int, Field(ge=2)],
        min_samples: int,
        runs: Annotated[int, Field(ge=1)],
        agreement: Annotated[float, Field(gt=0, le=1)],
        sample: Annotated[int, Field(ge=100, le=10_000)],
        seed: int,
    ) -> None:
        self._n_neighbors = n_neighbors
        self._n_components = n_components
        self._min_cluster_size = min_cluster_size
        self._min_samples = min_samples
        self._runs = runs
        self._agreement = agreement
        self._sample = sample
        self._seed = seed
        self._found: dict[bytes, _Consensus | None] = {}

    def by_size(self, rows: int) -> dict[str, int]:
        """`sample` where not all rows are clustered."""
        return {"sample": self._sample} if rows > self._sample else {}

    def cluster(self, vectors: Vectors) -> Numbers:
        found = self._consensus(vectors)
        if found is not None:
            return found.numbers.copy()
        return np.full(len(vectors), -1 if len(vectors) < self._min_cluster_size else 0, dtype=np.int64)

    def stability(self, vectors: Vectors) -> float | None:
        """Mean adjusted Rand index between the runs; None for input that is clustered without any."""
        found = self._consensus(vectors)
        return None if found is None else found.stability

    def tree(self, vectors: Vectors) -> CondensedTree | None:
        """The tree of the drawn rows that `cluster` cuts; None without runs, or where no run put rows together."""
        found = self._consensus(vectors)
        if found is None:
            return None
        bars = condensed(found.merges, found.of_drawn, self._agreement, self._min_cluster_size)
        return CondensedTree(bars, tuple(found.numbers.tolist())) if bars else None

    def _consensus(self, vectors: Vectors) -> _Consensus | None:
        """None: too few rows, or all alike."""
        content = hashlib.sha256(np.ascontiguousarray(vectors).data).digest()
        if content not in self._found:
            some = len(vectors) >= self._min_cluster_size and not _alike(vectors)
            self._found[content] = self._computed(vectors) if some else None
        return self._found[content]

    def _computed(self, vectors: Vectors) -> _Consensus:
        drawn = _drawn(len(vectors), self._sample, self._seed)
        runs = self.runs(vectors[drawn])
        merges = merges_of(runs)
        of_drawn = cut(merges, self._agreement, self._min_cluster_size)
        numbers = of_drawn
        if len(drawn) < len(vectors):
            numbers = spread(vectors, drawn, of_drawn)
        return _Consensus(numbers, stability_of(runs), merges, of_drawn)

    def runs(self, vectors: Vectors) -> Numbers:
        """The cluster numbers [r, n] of each run on `vectors` [n, d], all of which are clustered."""
        from hdbscan import HDBSCAN

        found = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # hdbscan 0.8.44 calls sklearn with a keyword that it renamed
            for low in self._reduce(vectors):
                run = HDBSCAN(
                    min_cluster_size=self._min_cluster_size,
                    min_samples=min(self._min_samples, len(vectors) - 1),
                    core_dist_n_jobs=1,
                ).fit(low)
                found.append(run.labels_)
        return np.asarray(found, dtype=np.int64)

    def _reduce(self, vectors: Vectors) -> list[Low]:
        """[n, d] → [n, n_components] of each run, or the rows themselves where there are too few for UMAP."""
        if len(vectors) <= max(self._n_components + 2, 4):
            return [vectors]
        content = hashlib.sha256(np.ascontiguousarray(vectors).data).digest()
        key = (content, vectors.shape, self._n_neighbors, self._n_components, self._runs, self._seed)
        if key not in _layouts:
            while len(_layouts) >= _CACHED:
                _layouts.pop(next(iter(_layouts)))
            _layouts[key] = self._umap(vectors)
        return _layouts[key]

    def _umap(self, vectors: Vectors) -> list[Low]:
        from umap import UMAP

        apart = np.clip(1 - vectors @ vectors.T, 0, 2).round(6)
        np.fill_diagonal(apart, 0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # UMAP warns that random_state makes it single-threaded
            return [
                UMAP(
                    n_neighbors=min(self._n_neighbors, len(vectors) - 1),
                    n_components=self._n_components,
                    metric="precomputed",
                    min_dist=0.0,
                    random_state=self._seed * self._runs + run,
                    n_jobs=1,
                    n_epochs=500,
                    init="spectral",
                ).fit_transform(apart)
                for run in range(self._runs)
            ]


def _drawn(rows: int, sample: int, seed: int) -> Numbers:
    """Places [m], ascending, of the rows to cluster; rows added later change few of them."""
    if rows <= sample:
        return np.arange(rows)
    drawn = sorted(range(rows), key=lambda place: content_id(["clusterer", seed, place]))[:sample]
    return np.sort(np.array(drawn))


def _alike(vectors: Vectors) -> bool:
    blocks = (
        vectors[start : start + 1024] for start in range(0, len(vectors), 1024)
    )  # most data differ in the first one
    return all(np.allclose(block, vectors[0], atol=1e-6) for block in blocks)
