"""DBSCAN on cosine distance, the published method's clusterer (Ester et al. 1996)."""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pld.adapters.clusterers import in_proportion
from pld.ports import Vectors

_TILE = 512  # rows of a block; distances exist for one block against another at a time

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class DbscanClusterer:
    """`eps` is a cosine distance (0 to 2); `min_samples` counts the point itself. Above `grow_from` rows (null: never)
    `min_samples` grows in proportion, so that the same density makes a cluster.

    Same clusters as scikit-learn's, which holds the neighbours of all rows at once: up to n² of them. Here memory grows
    with n, time with n².
    """

    def __init__(self, *, eps: float, min_samples: int, grow_from: Annotated[int, Field(gt=0)] | None) -> None:
        self._eps = eps
        self._min_samples = min_samples
        self._grow_from = grow_from

    def by_size(self, rows: int) -> dict[str, int]:
        """Settings that differ from the configured ones for so many rows."""
        grown = in_proportion(self._min_samples, rows, self._grow_from)
        return {"min_samples": grown} if grown != self._min_samples else {}

    def cluster(self, vectors: Vectors) -> Numbers:
        """Clusters are numbered by their first core row; a border row joins the first cluster that reaches it."""
        core = _neighbours(vectors, self._eps) >= in_proportion(self._min_samples, len(vectors), self._grow_from)
        clusters = np.full(len(vectors), -1, dtype=np.int64)
        number = 0
        for row in np.flatnonzero(core):
            if clusters[row] == -1:
                _grow(clusters, int(row), number, vectors, core, self._eps)
                number += 1
        return clusters


def _grow(clusters: Numbers, row: int, number: int, vectors: Vectors, core: Flags, eps: float) -> None:
    """Breadth-first from a core row: write `number` into `clusters` [n] for all rows that core rows reach."""
    clusters[row] = number
    frontier = np.array([row])
    while len(frontier):
        reached = np.zeros(len(vectors), dtype=bool)
        for others in _blocks(len(vectors)):
            for some in _blocks(len(frontier)):
                if (open_rows := (clusters[others] == -1) & ~reached[others]).any():
                    near = _near(vectors[frontier[some]], vectors[others], eps)
                    reached[others] |= near.any(axis=0) & open_rows
        clusters[reached] = number
        frontier = np.flatnonzero(reached & core)


def _neighbours(vectors: Vectors, eps: float) -> Numbers:
    """Rows within `eps` of each row [n], itself included."""
    count = np.zeros(len(vectors), dtype=np.int64)
    blocks = _blocks(len(vectors))
    for at, rows in enumerate(blocks):
        for others in blocks[at:]:
            near = _near(vectors[rows], vectors[others], eps)
            count[rows] += near.sum(axis=1)
            if others != rows:
                count[others] += near.sum(axis=0)
    return count


def _near(rows: Vectors, others: Vectors, eps: float) -> Flags:
    """[a, d], [b, d] → [a, b]."""
    distance = rows @ others.T
    np.subtract(1, distance, out=distance)
    return distance <= eps


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + _TILE, n)) for start in range(0, n, _TILE)]
