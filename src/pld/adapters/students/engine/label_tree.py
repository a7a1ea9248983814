"""The token trie of the labels: a prefix that several labels share is scored once per prompt."""

from collections.abc import Sequence
from dataclasses import dataclass

Ids = tuple[int, ...]


@dataclass(frozen=True)
class LabelTree:
    """Places where a label's next token is predicted: 0 is the prompt's last token, 1 + i is node i.

    `tokens` [T] and `parents` [T] of the nodes; a parent is an earlier place. `steps[label]`: the label's tokens as
    (place that predicts it, token).
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
    """The labels, each followed by `end` if one is a proper prefix of another: else the shorter could never score
    below the longer."""
    nested = any(
        len(short) < len(long) and long[: len(short)] == short for short in set(labels) for long in set(labels)
    )
    return tuple((*label, end) for label in labels) if nested else tuple(labels)


def common_length(sequences: Sequence[Ids]) -> int:
    """Length of the longest common prefix of one or more sequences."""
    # the first and the last in sorted order differ at least as early as any two
    first, last = min(sequences), max(sequences)
    return next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
