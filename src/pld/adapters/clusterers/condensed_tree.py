"""Lay out a clusterer's tree for drawing, condensed like HDBSCAN's (Campello et al. 2013): branches narrow as rows
leave them, and children are side by side below their parent."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from pld.adapters.clusterers.consensus import Merges, Numbers
from pld.ports import Vectors

BARS_A_BRANCH = 20


@dataclass(frozen=True)
class Bar:
    """A piece of a branch: `size` rows, starting at `left`, are together from the share of runs `top` to `bottom`.
    `number`: of its cluster, as in `Clusterer.cluster`; None above all clusters."""

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
    """A Clusterer that cuts a tree."""

    def tree(self, vectors: Vectors) -> CondensedTree | None:
        """The tree behind `cluster(vectors)`; None where there is none."""
        ...


def condensed(merges: Merges, numbers: Numbers, agreement: float, fewest: int) -> tuple[Bar, ...]:
    """The bars of a consensus over n rows, cut at `agreement` into the clusters `numbers` [n]. A branch splits where
    both parts have at least `fewest` rows; smaller parts leave it."""
    return tuple(_Layout(merges, numbers, agreement, fewest).bars())


class _Layout:
    def __init__(self, merges: Merges, numbers: Numbers, agreement: float, fewest: int) -> None:
        self._agreement, self._fewest = agreement, fewest
        self._rows = len(numbers)
        self._children = merges[:, :2].astype(int).tolist()
        self._sizes = [1] * self._rows + merges[:, 3].astype(int).tolist()
        self._levels = [1.0] * self._rows + (1 - merges[:, 2]).round(6).tolist()
        self._numbers = numbers.tolist()  # of each node: that of its first row
        for first, _ in self._children:
            self._numbers.append(self._numbers[first])

    def bars(self) -> Iterator[Bar]:
        branches = [(len(self._sizes) - 1, 0.0, 0.0)]  # node, left edge, and level where it starts
        while branches:
            node, left, top = branches.pop()
            whole = shown = self._sizes[node]
            middle = left + whole / 2
            while (longest := self._longest(node)) is not None:
                # small changes in width get no bar of their own
                level, alive = self._levels[node], self._sizes[longest]
                if level > top and (shown - alive) * BARS_A_BRANCH >= whole:
                    yield from self._pieces(node, middle, shown, top)
                    top, shown = level, alive
                elif level == top:
                    shown = alive
                node = longest
            yield from self._pieces(node, middle, shown, top)
            left = middle - self._sizes[node] / 2
            for child in self._parts(node):
                branches.append((child, left, self._levels[node]))
                left += self._sizes[child]

    def _parts(self, node: int) -> list[int]:
        """Children that are branches, where the node splits or ends."""
        children = self._children[node - self._rows] if node >= self._rows else []
        return [child for child in children if self._sizes[child] >= self._fewest]

    def _longest(self, node: int) -> int | None:
        """The child in which the branch goes on; None where it splits or ends."""
        parts = self._parts(node)
        return parts[0] if len(parts) == 1 else None

    def _pieces(self, node: int, middle: float, size: int, top: float) -> Iterator[Bar]:
        """From `top` to where the node's rows part, in two pieces where that crosses the cut."""
        bottom = self._levels[node]
        for start, end in ((top, min(bottom, self._agreement)), (max(top, self._agreement), bottom)):
            if end > start:
                number = self._numbers[node] if start >= self._agreement else None
                yield Bar(left=middle - size / 2, size=size, top=start, bottom=end, number=number)
