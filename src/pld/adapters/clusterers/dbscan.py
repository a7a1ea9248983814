"""DBSCAN on cosine distance: the published method's clusterer."""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from pld.adapters.clusterers.by_size import in_proportion
from pld.ports import Vectors

_TILE = 512  # rows of a block: of distances, a block against a block is held, and what is near of it

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class DbscanClusterer:
    """`eps` is a cosine distance (0…2), `min_samples` counts the point itself (Ester et al. 1996); above `grow_from`
    rows (null: never) `min_samples` grows in proportion, so that the same density makes a cluster.

    Exact, with memory in proportion to the rows and time to their square. scikit-learn's answers the same and holds the
    neighbours of all rows at once: the square of their number, where most are within `eps`.
    """

    def __init__(self, *, eps: float, min_samples: int, grow_from: Annotated[int, Field(gt=0)] | None) -> None:
        self._eps = eps
        self._min_samples = min_samples
        self._grow_from = grow_from

    def by_size(self, rows: int) -> dict[str, int]:
        """Settings that for so many rows are others than configured."""
        grown = in_proportion(self._min_samples, rows, self._grow_from)
        return {"min_samples": grown} if grown != self._min_samples else {}

    def cluster(self, vectors: Vectors) -> Numbers:
        """Clusters are numbered by their first core row; a row at the border of several is of the first of them."""
        n = len(vectors)
        core = _neighbours(vectors, self._eps) >= in_proportion(self._min_samples, n, self._grow_from)
        dense = vectors[core]  # (m, d)
        _, of_core = np.unique(_connected(dense, self._eps), return_inverse=True)  # (m,)
        found = np.full(n, -1, dtype=np.int64)
        found[core] = of_core
        rest = np.flatnonzero(~core)
        found[rest] = _first_near(vectors[rest], dense, of_core, self._eps)
        return found


def _near(rows: Vectors, others: Vectors, eps: float) -> Flags:
    """[a, d], [b, d] → [a, b]."""
    distance = rows @ others.T
    np.subtract(1, distance, out=distance)
    return distance <= eps


def _blocks(n: int) -> list[slice]:
    return [slice(start, min(start + _TILE, n)) for start in range(0, n, _TILE)]


def _pairs(n: int) -> Iterator[tuple[slice, slice]]:
    """Every two blocks once, and each with itself."""
    blocks = _blocks(n)
    for at, rows in enumerate(blocks):
        for others in blocks[at:]:
            yield rows, others


def _neighbours(vectors: Vectors, eps: float) -> Numbers:
    """How many rows are within `eps` of each [n], itself included."""
    count = np.zeros(len(vectors), dtype=np.int64)
    for rows, others in _pairs(len(vectors)):
        near = _near(vectors[rows], vectors[others], eps)
        count[rows] += near.sum(axis=1)
        if others != rows:
            count[others] += near.sum(axis=0)
    return count


def _connected(dense: Vectors, eps: float) -> Numbers:
    """For each row [m] the first row of its component in the graph of those within `eps` of one another."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    part = np.arange(len(dense))
    for rows, others in _pairs(len(dense)):
        if (part[rows] == part[rows.start]).all() and (part[others] == part[rows.start]).all():
            continue
        one, other = np.nonzero(_near(dense[rows], dense[others], eps))
        joined = np.stack([part[rows][one], part[others][other]])
        joined = joined[:, joined[0] != joined[1]]
        if not joined.size:
            continue
        parts, edges = np.unique(joined, return_inverse=True)
        edges = edges.reshape(2, -1)
        graph = coo_array((np.ones(edges.shape[1], dtype=bool), tuple(edges)), shape=(len(parts), len(parts)))
        count, component = connected_components(graph, directed=False)
        first = np.full(count, len(dense))
        np.minimum.at(first, component, parts)
        renamed = np.arange(len(dense))
        renamed[parts] = first[component]
        part = renamed[part]
    return part


def _first_near(rows: Vectors, dense: Vectors, of_core: Numbers, eps: float) -> Numbers:
    """For each of `rows` [r] the least number in `of_core` [m] of the core rows within `eps`, -1 where none is."""
    found = np.full(len(rows), -1, dtype=np.int64)
    for some in _blocks(len(rows)):
        least = np.full(some.stop - some.start, len(dense))
        for others in _blocks(len(dense)):
            near = _near(rows[some], dense[others], eps)
            least = np.minimum(least, np.where(near, of_core[others], len(dense)).min(axis=1))
        found[some] = np.where(least < len(dense), least, -1)
    return found
