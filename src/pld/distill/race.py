"""Races prompts: successive halving on nested parts of validation, with elimination by paired bootstrap.

Successive halving: Karnin et al. 2013; as a race among configurations: Jamieson and Talwalkar 2016, arXiv 1502.07943.
The winner among the best is the simplest within one standard error (Breiman et al. 1984), so that the last bits of
scores don't choose another prompt on another machine.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pld.distill.trial import groups_of
from pld.metrics import Indices, indices, macro_f1, paired_gains
from pld.params import EvaluationParams, RaceParams
from pld.records import Example, content_id
from pld.reports import Standing

DECIMALS = 6
"""Figures are rounded to so many before they are compared."""

FEWEST_UNITS = 8
"""Of fewer examples, or groups, a bootstrap says too little to drop a prompt."""


@dataclass(frozen=True)
class Entrant:
    """A prompt in the race: `key` breaks ties, fewer `tokens` are simpler."""

    key: str
    tokens: int


@dataclass(frozen=True)
class Place:
    """`gap`: macro-F1 of the leader minus that of this prompt on the same examples, with its bootstrap standard error;
    `behind`: the share of resamples in which this prompt does worse."""

    macro_f1: float
    gap: float
    se: float
    behind: float


def race(
    entrants: Sequence[Entrant],
    answer: Callable[[Entrant, Sequence[Example]], Indices],
    parts: Sequence[Sequence[Example]],
    finalists: int,
    params: RaceParams,
    labels: Sequence[str],
    bootstrap: EvaluationParams,
) -> dict[Entrant, Standing]:
    """How far each prompt went, and where it stood there. `answer` chooses labels [n] for a part, in which all earlier
    parts are contained; it is called in the order of `entrants`, on which the result does not depend.

    After each part but the last, prompts that are behind the leader with probability 1 - `params.alpha` are dropped,
    and at most the best `survivors` go on.
    """
    found: dict[Entrant, Standing] = {}
    on_first: dict[Entrant, float] = {}
    running = list(entrants)
    for rung, part in enumerate(parts, 1):
        chosen = {entrant: answer(entrant, part) for entrant in running}
        places = compare_with_leader(chosen, part, labels, bootstrap)
        on_first = on_first or {one: place.macro_f1 for one, place in places.items()}
        for one, place in places.items():
            found[one] = Standing(rung=rung, gap=place.gap, se=place.se, on_first=on_first[one])
        told_apart = _units(part) >= FEWEST_UNITS
        level = [one for one in ranked(places) if not told_apart or places[one].behind < 1 - params.alpha]
        going_on = set(level[: survivors(len(running), finalists, params)])
        running = [entrant for entrant in running if entrant in going_on]
    return found


def compare_with_leader(
    chosen: Mapping[Entrant, Indices],
    examples: Sequence[Example],
    labels: Sequence[str],
    bootstrap: EvaluationParams,
) -> dict[Entrant, Place]:
    """Each prompt against the one of the highest macro-F1 (ties: fewer tokens, then the key), by `chosen` labels [n] of
    `examples` [n]; the same resamples for all, of whole groups where the data has groups."""
    gold, groups = indices([example.label for example in examples], labels), groups_of(examples)
    figures = {one: round(macro_f1(gold, answers, len(labels)), DECIMALS) for one, answers in chosen.items()}
    leader = min(figures, key=lambda one: (-figures[one], one.tokens, one.key))
    places = {}
    for one, answers in chosen.items():
        gap, drawn = paired_gains(
            gold, chosen[leader], answers, len(labels), groups, bootstrap.resamples, bootstrap.seed
        )
        behind = float((np.round(drawn, DECIMALS) > 0).mean())
        places[one] = Place(figures[one], round(gap, DECIMALS) + 0.0, round(float(drawn.std()), DECIMALS), behind)
    return places


def ranked(places: Mapping[Entrant, Place]) -> list[Entrant]:
    """The best first; ties by fewer tokens, then by key."""
    return sorted(places, key=lambda one: (-places[one].macro_f1, one.tokens, one.key))


def simplest(places: Mapping[Entrant, Place]) -> Entrant:
    """Of those within one standard error of the leader, the one with the fewest tokens; ties by key."""
    return min(
        (one for one, place in places.items() if place.gap <= place.se),
        key=lambda one: (one.tokens, one.key),
    )


def survivors(running: int, finalists: int, params: RaceParams) -> int:
    """How many of `running` prompts go on at most."""
    return max(finalists, math.ceil(running * params.keep))


def part_sizes(examples: int, labels: int, params: RaceParams) -> list[int]:
    """Sizes of the parts of validation: `first` examples a label, then `factor` times as many as before; the last part
    is all, and at least twice the one before."""
    sizes, size = [], params.first * labels
    while 2 * size <= examples:
        sizes.append(size)
        size *= params.factor
    return [*sizes, examples]


def most_answers(entrants: int, sizes: Sequence[int], finalists: int, params: RaceParams) -> int:
    """The answers that a race takes if no prompt is dropped before the limit."""
    total, running, before = 0, entrants, 0
    for size in sizes:
        total += running * (size - before)
        running, before = min(running, survivors(running, finalists, params)), size
    return total


def nested_parts(examples: Sequence[Example], sizes: Sequence[int], seed: int) -> list[list[Example]]:
    """Parts of about `sizes` (growing), each contained in the next and in the order of `examples`: drawn by `seed`,
    stratified by label, or whole groups if the data set has groups."""
    groups = groups_of(examples)
    if groups is None:
        place = {example.id: at for at, example in enumerate(_stratified(examples, seed))}
        return [[example for example in examples if place[example.id] < size] for size in sizes]
    counts = Counter(groups)
    held: set[str] = set()
    parts: dict[int, list[Example]] = {}
    ordered_groups = iter(sorted(counts, key=lambda group: content_id([seed, "race", group])))
    for size in sizes:
        while sum(counts[group] for group in held) < size:
            held.add(next(ordered_groups))
        part = [example for example, group in zip(examples, groups, strict=True) if group in held]
        parts[len(part)] = part
    return list(parts.values())


def _units(examples: Sequence[Example]) -> int:
    """What the bootstrap draws: examples, or groups where the data has groups."""
    groups = groups_of(examples)
    return len(examples) if groups is None else len(set(groups))


def _stratified(examples: Sequence[Example], seed: int) -> list[Example]:
    """A seeded order whose every prefix is stratified by label."""
    by_label: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: content_id([seed, "race", example.id])):
        by_label.setdefault(example.label, []).append(example)
    placed = [((at + 0.5) / len(own), example) for own in by_label.values() for at, example in enumerate(own)]
    return [example for _, example in sorted(placed, key=lambda item: (item[0], item[1].id))]
