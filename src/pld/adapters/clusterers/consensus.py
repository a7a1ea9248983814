"""Consensus of repeated clusterings: rows that most runs put together are a cluster (evidence accumulation: Fred and
Jain 2005; Monti et al. 2003)."""

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from pld.ports import Vectors

Numbers = npt.NDArray[np.int64]
Merges = npt.NDArray[np.float64]
"""SciPy's linkage matrix [n - 1, 4]: two nodes, 1 - the share of runs in which their rows are together, rows."""

_CELLS = 2**22  # similarities at a time: 16 MiB


def merges_of(runs: Numbers) -> Merges:
    """Average linkage of the rows by `runs` [r, n], cluster numbers in which -1 is noise: a row alone. Needs two rows.

    Distances are exact multiples of 1 / r before they are averaged, and rounded after, so that no CPU orders ties its
    own way. Memory grows with n².
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    together = np.zeros((runs.shape[1],) * 2, dtype=np.uint16)
    for run in runs:
        together += (run[:, None] == run[None, :]) & (run >= 0)
    apart = 1 - together / len(runs)
    np.fill_diagonal(apart, 0)
    merges: Merges = linkage(squareform(apart, checks=False), "average")
    merges[:, 2] = np.clip(merges[:, 2].round(6), 0, 1)
    return merges


def cut(merges: Merges, agreement: float, fewest: int) -> Numbers:
    """Cluster numbers [n] in the order of their first row: rows that on average are together in at least that share of
    the runs; -1 for those of fewer than `fewest`."""
    from scipy.cluster.hierarchy import fcluster

    found = fcluster(merges, round(1 - agreement, 6), "distance")
    names, first, inverse, counts = np.unique(found, return_index=True, return_inverse=True, return_counts=True)
    numbers = np.full(len(names), -1, dtype=np.int64)
    kept = [name for name in np.argsort(first) if counts[name] >= fewest]
    numbers[kept] = np.arange(len(kept))
    return numbers[inverse]


def stability_of(runs: Numbers) -> float:
    """Mean adjusted Rand index (Hubert and Arabie 1985) over all pairs of `runs` [r, n]; noise rows are clusters of
    one. 1: all runs are alike; 0: no more than by chance."""
    from sklearn.metrics import adjusted_rand_score

    alone = [_noise_alone(run) for run in runs]
    scores = [adjusted_rand_score(one, other) for one, other in combinations(alone, 2)]
    return float(np.mean(scores)) if scores else 1.0


def spread(vectors: Vectors, drawn: Numbers, numbers: Numbers) -> Numbers:
    """The clusters of all `vectors` [n, d] from the `numbers` [m] of those at `drawn` [m].

    Any other row joins the cluster with the nearest centroid, by cosine, if it is no further away than the furthest
    drawn row of that cluster; else it is noise.
    """
    found = np.full(len(vectors), -1, dtype=np.int64)
    found[drawn] = numbers
    held = [vectors[drawn[numbers == number]] for number in range(int(numbers.max(initial=-1)) + 1)]
    if not held:
        return found
    centroids = np.stack([rows.mean(axis=0) for rows in held])  # (k, d)
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    furthest = np.array([(rows @ centroid).min() for rows, centroid in zip(held, centroids, strict=True)])
    others, size = np.setdiff1d(np.arange(len(vectors)), drawn), max(1, _CELLS // len(held))
    for start in range(0, len(others), size):
        some = others[start : start + size]
        near = vectors[some] @ centroids.T  # (b, k)
        nearest = near.argmax(axis=1)
        found[some] = np.where(near.max(axis=1) >= furthest[nearest], nearest, -1)
    return found


def _noise_alone(run: Numbers) -> npt.NDArray[Any]:
    alone = run.copy()
    alone[run < 0] = run.max(initial=-1) + 1 + np.arange((run < 0).sum())
    return alone
