"""Cluster the rules, and handle what the clusterer calls noise by a stated policy."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pld.errors import DistillError
from pld.params import ClusteringParams
from pld.ports import Clusterer, Vectors
from pld.records import Cluster, Rule

NoisePolicy = Literal["drop", "nearest", "singletons"]
_CELLS = 2**22  # rules × clusters compared at a time: 16 MiB


@runtime_checkable
class ChoosesBySize(Protocol):
    """A Clusterer with settings that depend on the number of rules."""

    def by_size(self, rows: int) -> Mapping[str, int | str]:
        """The settings that differ from the configured ones for this number of rules."""
        ...


@runtime_checkable
class MeasuresStability(Protocol):
    """A Clusterer that runs several times."""

    def stability(self, vectors: Vectors) -> float | None:
        """Mean adjusted Rand index between its runs on `vectors`; None where it made none."""
        ...


@dataclass(frozen=True)
class Clustering:
    """`noise_share`: share of the rules that the clusterer called noise, before the policy; `by_size`: settings that it
    chose by the number of rules; `stability`: how alike its runs are, None where it doesn't say."""

    clusters: tuple[Cluster, ...]
    noise_share: float
    by_size: Mapping[str, int | str] = field(default_factory=dict)
    stability: float | None = None


def chosen_rules(rules: Sequence[Rule], vectors: Vectors, params: ClusteringParams) -> tuple[Sequence[Rule], Vectors]:
    """The rules [m] to cluster, of `rules` [n], with their rows of `vectors` [n, d]: those of `params.draw`, without
    the doubtful ones where these are dropped. Raises DistillError when none are left."""
    of_draw = [i for i, rule in enumerate(rules) if params.draw in (None, rule.draw)]
    if rules and not of_draw:
        raise DistillError(
            f"expected rules of that draw, got none among {len(rules)} (clustering.draw={params.draw}); set it to "
            "null or to a draw that was made (extraction.draws)"
        )
    kept = [i for i in of_draw if params.doubtful != "drop" or not rules[i].doubtful]
    if of_draw and not kept:
        raise DistillError(
            f"expected rules whose gold label is not doubtful, got none of {len(of_draw)} "
            "(clustering.doubtful=drop); set clustering.doubtful=downweight, or correct the labels that `pld "
            "doubts` lists"
        )
    if len(kept) == len(rules):
        return rules, vectors
    return [rules[i] for i in kept], vectors[kept]


def cluster_rules(rules: Sequence[Rule], vectors: Vectors, clusterer: Clusterer, noise: NoisePolicy) -> Clustering:
    """Cluster `rules` [n] by `vectors` [n, d]; the largest cluster first, ids are positions in that order.

    `noise`: `drop` collects noise rules in a last cluster marked `noise`, which makes no instruction; `nearest` moves
    each to the cluster with the nearest centroid; `singletons` makes each its own cluster. If all rules are noise,
    `nearest` makes them one cluster. Memory is linear in the number of rules. Raises DistillError without rules, or
    when `drop` leaves none.
    """
    if not rules:
        raise DistillError("expected rules to cluster, got none; look at artifacts/rules/rejected.jsonl")
    found = clusterer.cluster(vectors)
    is_noise = found < 0
    if noise == "drop" and is_noise.all():
        raise DistillError(
            f"all {len(rules)} rules are noise to the clusterer and clustering.noise=drop leaves none; "
            "choose clustering.noise=nearest or smaller clusters"
        )
    numbers = found.copy()
    if noise == "nearest":
        numbers = to_nearest(found, vectors)
    elif noise == "singletons":
        numbers[is_noise] = found.max(initial=-1) + 1 + np.arange(is_noise.sum())
    members = {number: places.tolist() for number, places in _places(numbers).items()}
    ordered = sorted(members, key=lambda number: (number < 0, -len(members[number]), members[number][0]))
    clusters = tuple(
        Cluster(
            id=place,
            rule_ids=tuple(rules[i].id for i in members[number]),
            labels=dict(sorted(Counter(rules[i].label for i in members[number]).items())),
            noise=number < 0,
        )
        for place, number in enumerate(ordered)
    )
    by_size = clusterer.by_size(len(rules)) if isinstance(clusterer, ChoosesBySize) else {}
    stability = clusterer.stability(vectors) if isinstance(clusterer, MeasuresStability) else None
    return Clustering(clusters, float(is_noise.mean()), by_size, stability)


def _places(numbers: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
    """Cluster number → its positions in `numbers` [n], both ascending."""
    order = np.argsort(numbers, kind="stable")
    names, first = np.unique(numbers[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, first[1:]), strict=True))


def to_nearest(found: npt.NDArray[np.int64], vectors: Vectors) -> npt.NDArray[np.int64]:
    """Cluster numbers [n] with noise (-1) moved to the cluster of the nearest centroid; one cluster if all is noise."""
    if (found < 0).all():
        return np.zeros_like(found)
    places = {number: own for number, own in _places(found).items() if number >= 0}
    centroids = np.stack([vectors[own].mean(axis=0) for own in places.values()])  # (k, d)
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-12)
    names, numbers, noise = np.array(list(places)), found.copy(), np.flatnonzero(found < 0)
    size = max(1, _CELLS // len(names))
    for start in range(0, len(noise), size):
        some = noise[start : start + size]
        numbers[some] = names[np.argmax(vectors[some] @ centroids.T, axis=1)]
    return numbers
