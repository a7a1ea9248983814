"""The token tree of the labels: what several labels begin with is computed once per row."""

from collections.abc import Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]


@dataclass(frozen=True)
class LabelTree:
    """`tokens` [T] and `parents` [T] of the nodes: 0 for the prompt's last token, else 1 + a node that comes before.

    `steps[label]` are the label's tokens as (where, token): `where` is 0 for the prompt's last token, which foretells
    the label's first, and 1 + node for a node.
    """

    tokens: Ids
    parents: Ids
    steps: tuple[tuple[tuple[int, int], ...], ...]

    @classmethod
    def of(cls, labels: Sequence[Ids]) -> "LabelTree":
        prefixes = sorted({label[:end] for label in labels for end in range(1, len(label))})
        place = {(): 0} | {prefix: 1 + index for index, prefix in enumerate(prefixes)}
        return cls(
            tokens=tuple(prefix[-1] for prefix in prefixes),
            parents=tuple(place[prefix[:-1]] for prefix in prefixes),
            steps=tuple(tuple((place[label[:at]], token) for at, token in enumerate(label)) for label in labels),
        )


def with_end(labels: Sequence[Ids], end: int) -> tuple[Ids, ...]:
    """The labels, each closed by `end` if one of them is the proper beginning of another.

    Without it the shorter label could never score below the longer one.
    """
    nested = any(
        len(short) < len(long) and long[: len(short)] == short for short in set(labels) for long in set(labels)
    )
    return tuple((*label, end) for label in labels) if nested else tuple(labels)


def common_length(sequences: Sequence[Ids]) -> int:
    """Length of the longest beginning that all of the one or more sequences share."""
    # the first and the last in sorted order differ at least as early as any two
    first, last = min(sequences), max(sequences)
    return next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
