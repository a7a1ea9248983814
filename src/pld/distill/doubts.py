"""Find training examples whose gold label the Teacher doubts, for a person to review."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from pld.ports import Vectors
from pld.records import Example, Record, Rule

NEIGHBOURS = 10


class Doubt(Record):
    """`doubted` of the example's `rules` (one for each draw) are doubtful, for the reasons in `rationales`. `nearest`
    counts the labels of the rules nearest to the first doubtful one, of other examples in the same draw; `elsewhere` of
    them lead to another label than the gold one. Both None without vectors."""

    example_id: str
    label: str
    inputs: dict[str, str]
    rationales: tuple[str, ...]
    doubted: int
    rules: int
    nearest: dict[str, int] | None
    elsewhere: int | None


def doubted(rules: Sequence[Rule], train: Mapping[str, Example], vectors: Vectors | None) -> list[Doubt]:
    """The most suspicious first: doubted in most of its draws, then with most of its nearest rules having another
    label, then in the order of `train` (id → example, with the example of every rule). `vectors` [n, d] are
    those of `rules` [n]."""
    places: dict[str, list[int]] = {example_id: [] for example_id in train}
    for at, rule in enumerate(rules):
        places[rule.example_id].append(at)
    found = []
    for example_id, own in places.items():
        doubtful = [at for at in own if rules[at].doubtful]
        if not doubtful:
            continue
        example = train[example_id]
        nearest = None if vectors is None else _nearest(doubtful[0], rules, vectors)
        found.append(
            Doubt(
                example_id=example_id,
                label=example.label,
                inputs=example.inputs,
                rationales=tuple(dict.fromkeys(rules[at].rationale for at in doubtful)),
                doubted=len(doubtful),
                rules=len(own),
                nearest=nearest,
                elsewhere=None if nearest is None else sum(nearest.values()) - nearest.get(example.label, 0),
            )
        )
    return sorted(found, key=lambda doubt: (-doubt.doubted / doubt.rules, -_share(doubt)))


def _nearest(at: int, rules: Sequence[Rule], vectors: Vectors) -> dict[str, int]:
    """Labels of the rules nearest to rule `at`, the most frequent first."""
    own = rules[at]
    others = [i for i, rule in enumerate(rules) if rule.draw == own.draw and rule.example_id != own.example_id]
    cosine = vectors[others] @ vectors[at]  # (m,)
    nearest = np.argsort(-cosine, kind="stable")[:NEIGHBOURS]
    return dict(Counter(rules[others[i]].label for i in nearest).most_common())


def _share(doubt: Doubt) -> float:
    """Share of the nearest rules with another label."""
    return (doubt.elsewhere or 0) / max(sum((doubt.nearest or {}).values()), 1)
