"""Cluster numbers → Clusters, with what the clusterer calls noise under a stated policy."""

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
_CELLS = 2**22  # of rules by clusters that are compared at a time: 16 MiB


@runtime_checkable
class ChoosesBySize(Protocol):
    """A Clusterer with settings that depend on the number of rules."""

    def by_size(self, rows: int) -> Mapping[str, int | str]:
        """Those of its settings that for so many rules are others than configured, as they are then."""
        ...


@dataclass(frozen=True)
class Clustering:
    """`noise_share`: the share of rules that the clusterer called noise, whatever became of them; `by_size`: what the
    clusterer chose by their number."""

    clusters: tuple[Cluster, ...]
    noise_share: float
    by_size: Mapping[str, int | str] = field(default_factory=dict)


def chosen_rules(rules: Sequence[Rule], vectors: Vectors, params: ClusteringParams) -> tuple[Sequence[Rule], Vectors]:
    """The rules [m] of `rules` [n] that are clustered, with their rows of `vectors` [n, d]: those of `params.draw`, and
    without the doubtful ones where they are dropped. Raises DistillError where that leaves none."""
    of_draw = [i for i, rule in enumerate(rules) if params.draw in (None, rule.draw)]
    if rules and not of_draw:
        raise DistillError(
            f"clustering.draw={params.draw}: wanted rules of that draw, found none among {len(rules)}; "
            "set it to null or to a draw that was made (extraction.draws)"
        )
    kept = [i for i in of_draw if params.doubtful != "drop" or not rules[i].doubtful]
    if of_draw and not kept:
        raise DistillError(
            f"clustering.doubtful=drop: wanted rules whose gold label is not doubtful, found none of {len(of_draw)}; "
            "set clustering.doubtful=downweight, or correct the labels that `pld doubts` lists"
        )
    if len(kept) == len(rules):
        return rules, vectors
    return [rules[i] for i in kept], vectors[kept]


def cluster_rules(rules: Sequence[Rule], vectors: Vectors, clusterer: Clusterer, noise: NoisePolicy) -> Clustering:
    """`rules` [n] with `vectors` [n, d] → clusters, the largest first; numbers are their places in that list.

    `noise`: `drop` leaves noise rules in one last cluster marked `noise`, of which no instruction is made;
    `nearest` puts each into the cluster with the nearest centroid; `singletons` makes each a cluster of its own.
    Where everything is noise, `nearest` has no cluster to go to: all rules then make one cluster.
    Memory is in proportion to the rules. Raises DistillError when there are no rules, or when `drop` leaves nothing.
    """
    if not rules:
        raise DistillError("wanted rules to cluster, found none; look at artifacts/rules/rejected.jsonl")
    found = clusterer.cluster(vectors)
    is_noise = found < 0
    if noise == "drop" and is_noise.all():
        raise DistillError(
            f"all {len(rules)} rules are noise to the clusterer and clustering.noise=drop leaves none; "
            "choose clustering.noise=nearest or smaller clusters"
        )
    numbers = found.copy()
    if noise == "nearest":
        numbers = _to_nearest(found, vectors)
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
    return Clustering(clusters, float(is_noise.mean()), by_size)


def _places(numbers: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
    """Number → where it stands in `numbers` [n], both in ascending order."""
    order = np.argsort(numbers, kind="stable")
    names, first = np.unique(numbers[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, first[1:]), strict=True))


def _to_nearest(found: npt.NDArray[np.int64], vectors: Vectors) -> npt.NDArray[np.int64]:
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
