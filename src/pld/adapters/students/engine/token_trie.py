"""What remains of many prompts after their shared prefix, as a token trie in packs: no padding, no token twice.

A pack is one sequence. Each of its nodes stands at its depth in the trie and sees the prefix and its own ancestors, so
that beginnings which prompts share, and the labels' tokens after each prompt, are computed once (after Hydragen,
arXiv 2402.05099, and tree attention, arXiv 2305.09781, for scoring). A long beginning that the prompts of several packs
share becomes a prefix of its own (`Branch`); a shorter one is computed again in each of those packs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from pld.adapters.students.engine.label_tree import Ids, LabelTree, common_length

# a beginning of fewer tokens is cheaper to compute again than to make a forward of its own for it
WORTH_A_BRANCH = 32
# a smaller pack spends more time on reading the model's weights than on its nodes
_WORTH_A_PACK = 96


@dataclass(frozen=True)
class Rest:
    """A prompt's tokens `ids` after the prefix, one or more, its labels' tree, and its `index` among the prompts."""

    index: int
    ids: Ids
    tree: LabelTree


@dataclass
class Pack:
    """Nodes in an order in which every ancestor comes first.

    `tokens`, `depths` (0: the first after the prefix) and `parents` (-1: the prefix) have one entry a node [Q].
    `places` maps a prompt's index to the nodes that foretell its labels' tokens: its last one's, then its label tree's.
    """

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    places: dict[int, list[int]] = field(default_factory=dict)
    _children: dict[tuple[int, int], int] = field(default_factory=dict)

    def add(self, rest: Rest, start: int) -> None:
        """Put the nodes of `rest` beyond its first `start` tokens, which the pack's prefix holds already."""
        end = -1
        for token in rest.ids[start:]:
            end = self._child(end, token)
        places = [end]
        for token, parent in zip(rest.tree.tokens, rest.tree.parents, strict=True):
            places.append(self._child(places[parent], token))
        self.places[rest.index] = places

    def sees(self) -> npt.NDArray[np.bool_]:
        """[Q, Q]: True where a node (first axis) sees another: its ancestors and itself."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen

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
    """`packs` and further `branches` after the prefix and `ids`, which continue it (none at the trie's root)."""

    ids: Ids
    packs: list[Pack]
    branches: list["Branch"]

    def computed(self) -> int:
        """Tokens of all forwards."""
        return (
            len(self.ids)
            + sum(len(pack.tokens) for pack in self.packs)
            + sum(branch.computed() for branch in self.branches)
        )


def plan(rests: Sequence[Rest], nodes: int, parallel: int = 1) -> Branch:
    """All of `rests` in packs of at most `nodes` nodes, as many as `parallel` workers can share evenly."""
    return _branch(sorted(rests, key=lambda rest: rest.ids), 0, (), nodes, parallel)


def _branch(rests: Sequence[Rest], start: int, ids: Ids, nodes: int, parallel: int) -> Branch:
    """`rests` are sorted and alike in their first `start` tokens, the last of which are `ids`."""
    units: list[_Unit] = []
    branches: list[Branch] = []
    for run in _alike(rests, start):
        size = _size(run, start)
        shared = min(common_length([rest.ids for rest in run]), min(len(rest.ids) for rest in run) - 1)
        if size <= nodes:
            units.append(_Unit(run, size))
        elif shared >= start + min(WORTH_A_BRANCH, nodes):
            branches.append(_branch(run, shared, run[0].ids[start:shared], nodes, parallel))
        else:
            units += [_Unit([rest], _size([rest], start)) for rest in run]
    return Branch(ids, [_packed(part, start) for part in _parts(units, nodes, parallel)], branches)


@dataclass(frozen=True)
class _Unit:
    """Prompts that stay in one pack, and the nodes that they take."""

    rests: Sequence[Rest]
    size: int


def _alike(rests: Sequence[Rest], start: int) -> Iterator[list[Rest]]:
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
    """Nodes of sorted `rests`; where a label's tokens are another prompt's, a few less."""
    total, before = 0, None
    for rest in rests:
        common = start if before is None else max(start, common_length([before.ids, rest.ids]))
        total += len(rest.ids) - common + len(rest.tree.tokens)
        before = rest
    return total


def _parts(units: Sequence[_Unit], nodes: int, parallel: int) -> Iterator[list[_Unit]]:
    """Neighbouring units, at most `nodes` nodes together, in parts of about the same size."""
    total = sum(unit.size for unit in units)
    fewest = -(-total // nodes)
    # with few packs, one more for some workers than for others would leave those idle; but each pack reads all weights
    even = -(-fewest // parallel) * parallel if fewest > 1 else 1
    wanted = max(fewest, min(even, total // _WORTH_A_PACK))
    part: list[_Unit] = []
    taken, before, number = 0, 0, 1
    for unit in units:
        beyond = before + taken + unit.size / 2 > total * number / wanted
        if part and (beyond or taken + unit.size > nodes):
            yield part
            before, number = before + taken, number + 1
            part, taken = [], 0
        part.append(unit)
        taken += unit.size
    if part:
        yield part


def _packed(units: Sequence[_Unit], start: int) -> Pack:
    pack = Pack()
    for unit in units:
        for rest in unit.rests:
            pack.add(rest, start)
    return pack
