"""Compare two versions of a data set by the ids of its examples."""

from collections.abc import Mapping, Sequence

from pld.records import SPLITS, Example, Record, Split, inputs_id

Examples = Mapping[str, Example]
"""Id → example, in the order of the data set."""


class Placed(Record):
    """An example with its split and label in the later version, or in the earlier one if it was removed."""

    id: str
    split: Split
    label: str


class Relabelled(Record):
    id: str
    split: Split
    before: str
    after: str


class Moved(Record):
    id: str
    label: str
    before: Split
    after: Split


class DataDiff(Record):
    """`before`, `after`: split → label → examples, zeros included. An example of both versions is in every list that
    applies: `edited` if its text changed, `regrouped` if its group did. `new_to_teacher`: ids of training examples with
    a text and label that no training example had before. `reordered`: shared examples are in another order."""

    before: dict[Split, dict[str, int]]
    after: dict[Split, dict[str, int]]
    added: tuple[Placed, ...]
    removed: tuple[Placed, ...]
    relabelled: tuple[Relabelled, ...]
    moved: tuple[Moved, ...]
    edited: tuple[Placed, ...]
    regrouped: tuple[Placed, ...]
    new_to_teacher: tuple[str, ...]
    reordered: bool

    @property
    def same(self) -> bool:
        """Whether no example differs; their order may."""
        return not (self.added or self.removed or self.relabelled or self.moved or self.edited or self.regrouped)


def compare_examples(before: Examples, after: Examples, labels: Sequence[str]) -> DataDiff:
    """Lists in the order of the later version (`removed`: of the earlier one). `labels`: in the order of the counts."""
    both = [(before[identity], now) for identity, now in after.items() if identity in before]
    explained = {(inputs_id(then.inputs), then.label) for then in before.values() if then.split == "train"}
    return DataDiff(
        before=_counts(before, labels),
        after=_counts(after, labels),
        added=tuple(_placed(now) for now in after.values() if now.id not in before),
        removed=tuple(_placed(then) for then in before.values() if then.id not in after),
        relabelled=tuple(
            Relabelled(id=now.id, split=now.split, before=then.label, after=now.label)
            for then, now in both
            if then.label != now.label
        ),
        moved=tuple(
            Moved(id=now.id, label=now.label, before=then.split, after=now.split)
            for then, now in both
            if then.split != now.split
        ),
        edited=tuple(_placed(now) for then, now in both if then.inputs != now.inputs),
        regrouped=tuple(_placed(now) for then, now in both if then.group != now.group),
        new_to_teacher=tuple(
            now.id
            for now in after.values()
            if now.split == "train" and (inputs_id(now.inputs), now.label) not in explained
        ),
        reordered=_in_order(before, after) != _in_order(after, before),
    )


def _placed(example: Example) -> Placed:
    return Placed(id=example.id, split=example.split, label=example.label)


def _in_order(examples: Examples, others: Examples) -> list[list[str]]:
    """For each split the ids that `others` has in it too."""
    shared = [(identity, own.split) for identity, own in examples.items() if identity in others]
    return [[one for one, own in shared if own == others[one].split == split] for split in SPLITS]


def _counts(examples: Examples, labels: Sequence[str]) -> dict[Split, dict[str, int]]:
    counts = {split: dict.fromkeys(labels, 0) for split in SPLITS}
    for own in examples.values():
        counts[own.split][own.label] += 1
    return counts
