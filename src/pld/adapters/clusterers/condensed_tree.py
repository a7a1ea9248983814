"""Lay out HDBSCAN's condensed tree (Campello et al. 2013) for drawing: branches narrow as rows leave them, and children
are side by side below their parent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from pld.ports import Vectors

BARS_A_BRANCH = 20


@dataclass(frozen=True)
class Bar:
    """A piece of a branch: `size` rows, starting at `left`, are connected from density `top` to `bottom` (lambda, 1 /
    distance). `number`: of its cluster, as in `Clusterer.cluster`; None above all clusters."""

    left: float
    size: int
    top: float
    bottom: float
    number: int | None


@dataclass(frozen=True)
class CondensedTree:
    """`numbers` [n]: the cluster of each row, -1 for noise."""

    bars: tuple[Bar, ...]
    numbers: tuple[int, ...]


@runtime_checkable
class TreeClusterer(Protocol):
    """A Clusterer that cuts a density tree."""

    def tree(self, vectors: Vectors) -> CondensedTree | None:
        """The tree behind `cluster(vectors)`; None where there is none."""
        ...


def condensed(fitted: Any) -> CondensedTree:
    """The tree of a fitted HDBSCAN. Rows at distance 0 (infinite lambda) leave slightly below the densest others."""
    tree, labels = fitted.condensed_tree_.to_numpy(), np.asarray(fitted.labels_)
    finite = tree["lambda_val"][np.isfinite(tree["lambda_val"])]
    tree["lambda_val"] = np.minimum(tree["lambda_val"], 1.05 * finite.max(initial=0.0) or 1.0)
    numbers = _numbers(tree, labels)
    begins = {int(tree["parent"].min()): (0.0, 0.0)}  # node → left edge, and density where it starts
    bars: list[Bar] = []
    by_parent = tree[np.argsort(tree["parent"], kind="stable")]
    nodes, first = np.unique(by_parent["parent"], return_index=True)
    # a child has a higher number than its parent
    for node, rows in zip(nodes.tolist(), np.split(by_parent, first[1:]), strict=True):
        left, top = begins[node]
        bars += _bars(rows, left, top, numbers.get(node))
        middle = left + rows["child_size"].sum() / 2
        branches = rows[rows["child_size"] > 1]
        left = middle - branches["child_size"].sum() / 2
        for branch in branches:
            begins[int(branch["child"])] = (left, float(branch["lambda_val"]))
            left += int(branch["child_size"])
    return CondensedTree(tuple(bars), tuple(labels.tolist()))


def _bars(rows: npt.NDArray[Any], left: float, top: float, number: int | None) -> Iterator[Bar]:
    """Of one branch, from the `rows` that leave it; small changes in width get no bar of their own."""
    whole = alive = shown = int(rows["child_size"].sum())
    middle = left + whole / 2
    densities, which = np.unique(rows["lambda_val"], return_inverse=True)
    leaving = np.bincount(which, weights=rows["child_size"])
    for density, gone in zip(densities, leaving, strict=True):
        alive -= int(gone)
        if density > top and (density == densities[-1] or (shown - alive) * BARS_A_BRANCH >= whole):
            yield Bar(left=middle - shown / 2, size=shown, top=top, bottom=float(density), number=number)
            top, shown = float(density), alive


def _numbers(tree: npt.NDArray[Any], labels: npt.NDArray[Any]) -> dict[int, int]:
    """Node → cluster, for nodes whose rows all have that label: the clusters and their descendants."""
    held: dict[int, set[int]] = {}
    for row in np.sort(tree, order="parent")[::-1]:
        below = {int(labels[row["child"]])} if row["child_size"] == 1 else held[int(row["child"])]
        held.setdefault(int(row["parent"]), set()).update(below)
    return {node: next(iter(below)) for node, below in held.items() if len(below) == 1 and -1 not in below}
