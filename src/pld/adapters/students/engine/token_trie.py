"""Pack what follows many prompts' shared prefix into token tries: no padding, and no token computed twice.

A pack is one sequence for one forward pass. Each of its nodes is at its depth in the trie and attends to the prefix and
to its own ancestors, so prefixes that prompts share, and the labels' tokens after each prompt, are computed once (after
Hydragen, arXiv 2402.05099, and tree attention, arXiv 2305.09781, for scoring). A long prefix that prompts of several
packs share becomes a cached prefix of its own (`Branch`); a short one is recomputed in each of those packs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pld.adapters.students.engine.label_tree import Ids, LabelTree, common_length

# recomputing a shorter shared prefix is cheaper than a forward pass for it
WORTH_A_BRANCH = 32
# a smaller pack spends more time reading the model's weights than computing
_WORTH_A_PACK = 96


@dataclass(frozen=True)
class Rest:
    """One or more tokens `ids` of a prompt after the shared prefix; `index`: of the prompt."""

    index: int
    ids: Ids
    tree: LabelTree


@dataclass
class Pack:
    """Nodes in an order in which ancestors come first.

    `tokens`, `depths` (0: the first after the prefix) and `parents` (-1: the prefix) have one entry per node [Q].
    `places`: index of a prompt → the nodes that predict its labels' tokens: its last one, then those of its label tree.
    """

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    places: dict[int, list[int]] = field(default_factory=dict)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    @classmethod
    def of(cls, rests: Sequence[Rest], start: int) -> "Pack":
        """`rests` without their first `start` tokens, which the pack's prefix contains."""
        pack = cls()
        for rest in rests:
            node = -1
            for token in rest.ids[start:]:
                node = pack._child(node, token)
            pack.places[rest.index] = places = [node]
            for token, parent in zip(rest.tree.tokens, rest.tree.parents, strict=True):
                places.append(pack._child(places[parent], token))
        return pack

    def visible(self) -> npt.NDArray[np.bool_]:
        """[Q, Q]: True where a node (first axis) attends to another: its ancestors and itself."""
        visible = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                visible[node] |= visible[parent]
        return visible

    def _child(self, parent: int, token: int) -> int:
        key = (parent, token)
        if key not in self._children:
            self._children[key] = len(self.tokens)
            self.tokens.append(token)
            self.depths.append(self.depths[parent] + 1 if parent >= 0 else 0)
            self.parents.append(parent)
        return self._children[key]


@dataclass
class Branch:
    """`packs` and further `branches` after the prefix extended by `ids` (none at the root)."""

    ids: Ids
    packs: list[Pack]
    branches: list["Branch"]


_Unit = tuple[Sequence[Rest], int]
"""Prompts that stay in one pack, and how many nodes they need."""


def plan(rests: Sequence[Rest], nodes: int, parallel: int = 1) -> Branch:
    """All of `rests` in packs of at most `nodes` nodes, as many as `parallel` workers can share evenly."""
    return _branch(sorted(rests, key=lambda rest: rest.ids), 0, (), nodes, parallel)


def _branch(rests: Sequence[Rest], start: int, ids: Ids, nodes: int, parallel: int) -> Branch:
    """`rests` are sorted and share their first `start` tokens, the last of which are `ids`."""
    units: list[_Unit] = []
    branches: list[Branch] = []
    for run in _sharing(rests, start):
        size = _size(run, start)
        shared = min(common_length([rest.ids for rest in run]), min(len(rest.ids) for rest in run) - 1)
        if size <= nodes:
            units.append((run, size))
        elif shared >= start + min(WORTH_A_BRANCH, nodes):
            branches.append(_branch(run, shared, run[0].ids[start:shared], nodes, parallel))
        else:
            units += [([rest], _size([rest], start)) for rest in run]
    return Branch(ids, [Pack.of(part, start) for part in _parts(units, nodes, parallel)], branches)


def _sharing(rests: Sequence[Rest], start: int) -> Iterator[list[Rest]]:
    """Runs of neighbours in sorted order that share at least `WORTH_A_BRANCH` tokens after the first `start`."""
    run: list[Rest] = []
    for rest in rests:
        if run and common_length([run[-1].ids, rest.ids]) < start + WORTH_A_BRANCH:
            yield run
            run = []
        run.append(rest)
    if run:
        yield run


def _size(rests: Sequence[Rest], start: int) -> int:
    """Nodes of sorted `rests` at most: fewer where a label's tokens also continue another prompt."""
    total, before = 0, None
    for rest in rests:
        common = start if before is None else max(start, common_length([before.ids, rest.ids]))
        total += len(rest.ids) - common + len(rest.tree.tokens)
        before = rest
    return total


def _parts(units: Sequence[_Unit], nodes: int, parallel: int) -> Iterator[list[Rest]]:
    """Neighbouring units, at most `nodes` nodes together, in parts of about the same size."""
    total = sum(size for _, size in units)
    fewest = -(-total // nodes)
    # an uneven number of packs leaves workers idle, but each pack reads all weights
    even = -(-fewest // parallel) * parallel if fewest > 1 else 1
    count = max(fewest, min(even, total // _WORTH_A_PACK))
    part: list[Rest] = []
    taken, before, number = 0, 0, 1
    for rests, size in units:
        beyond = before + taken + size / 2 > total * number / count
        if part and (beyond or taken + size > nodes):
            yield part
            before, number = before + taken, number + 1
            part, taken = [], 0
        part += rests
        taken += size
    if part:
        yield part
