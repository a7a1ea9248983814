"""Selects the training examples that a round predicts, and the failures and successes that the proposer sees."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from pld.distill.trial import groups_of
from pld.metrics import choose, indices
from pld.ports import Scores, Vectors
from pld.records import Example, Instruction, content_id
from pld.resolve.inputs import ResolveInputs
from pld.resolve.proposer import Answered
from pld.resolve.records import ShownExample

ClusterOf = Callable[[str], int | None]
"""Example id → the cluster of its own rule; None if it has no rule, or a noise rule."""
Embed = Callable[[Sequence[Example]], Vectors]
"""n examples → their inputs as [n, d], rows of unit length."""
T = TypeVar("T")


class ExampleSampler:
    """Selects the examples of each round; holds the embeddings of their inputs."""

    def __init__(self, inputs: ResolveInputs, embed: Embed) -> None:
        self._inputs, self._embed = inputs, embed
        self._params = inputs.config.resolution
        self._rule_of = {rule.example_id: rule for rule in inputs.rules}
        self._vectors: dict[str, Vectors] = {}

    def pool(self, number: int, present: Sequence[Instruction]) -> list[Example]:
        """Training examples that the prompt of `present` doesn't show."""
        size, seed, labels = self._params.pool, self._params.seed, self._inputs.config.task.labels
        return draw_pool(self._inputs.train, size, labels, self.in_prompt(present), seed, number)

    def in_prompt(self, instructions: Sequence[Instruction]) -> set[str]:
        """Ids of the training examples that the prompt of `instructions` shows."""
        return set(self._inputs.scorer.prompt(instructions).example_ids)

    def shown(
        self, number: int, failed: Sequence[Answered], succeeded: Sequence[Answered]
    ) -> tuple[list[Answered], list[Answered]]:
        """The failures that the proposer sees, and the successes beside them."""
        size, seed = self._params.failures, self._params.seed
        if self._params.sampler == "random":
            failures = draw(failed, size, seed, number)
            return failures, draw(succeeded, len(failures), seed, number)
        failures = cover(failed, size, self.cluster_of)
        new = [found.example for found in (*failures, *succeeded) if found.example.id not in self._vectors]
        if new:
            vectors = self._embed(new)
            self._vectors.update(zip((example.id for example in new), vectors, strict=True))
        return failures, guards(failures, succeeded, self._vectors)

    def cluster_of(self, example_id: str) -> int | None:
        """The cluster of the example's own rule; None if it has no rule, or a noise rule."""
        rule = self._rule_of.get(example_id)
        return self._inputs.clusters.get(rule.id) if rule else None


def draw_pool(
    train: Sequence[Example], size: int, labels: Sequence[str], exclude: Collection[str], seed: int, round: int
) -> list[Example]:
    """At most `size` examples of `train`, in its order, without the ids in `exclude`.

    Stratified by label, with at least half of an equal share for each label; within a label, round-robin over groups,
    so that no single contract dominates. Drawn by hash of the ids: adding data changes few of the draws.
    """
    free = [example for example in train if example.id not in exclude]
    quotas = _quotas(Counter(example.label for example in free), size, labels)
    groups = groups_of(free) or [example.id for example in free]
    drawn: set[str] = set()
    for label, quota in quotas.items():
        hashed = sorted(
            (content_id([seed, "pool", round, example.id]), group, example.id)
            for example, group in zip(free, groups, strict=True)
            if example.label == label
        )
        of_group: dict[str, list[str]] = defaultdict(list)
        for _, group, identity in hashed:
            of_group[group].append(identity)
        drawn.update(list(round_robin(of_group.values()))[:quota])
    return [example for example in free if example.id in drawn]


def answered(examples: Sequence[Example], scores: Scores, labels: Sequence[str]) -> list[Answered]:
    """`examples` [n] with their answers by `scores` [n, k]; one that could not be scored is a failure without answer
    and with margin 0."""
    if not examples:
        return []
    rows = np.arange(len(examples))
    gold = indices([example.label for example in examples], labels)
    best = choose(scores)
    others = scores.copy()
    others[rows, gold] = -np.inf  # the best of them: a failure's answer, a success's runner-up
    margins = np.abs(others.max(axis=1) - scores[rows, gold])
    return [
        Answered(example, labels[place] if place >= 0 else None, float(margin) if place >= 0 else 0.0)
        for example, place, margin in zip(examples, best, margins, strict=True)
    ]


def cells(failed: Iterable[Answered]) -> dict[str, list[Answered]]:
    """Confusion cell → its failures in the order given; largest cell first, ties by first failure."""
    found: dict[str, list[Answered]] = defaultdict(list)
    for failure in failed:
        found[failure.cell].append(failure)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def cover(failed: Sequence[Answered], size: int, cluster_of: ClusterOf) -> list[Answered]:
    """At most `size` failures that cover the confusion cells, and within a cell the clusters of their own rules.

    Round-robin over cells, the largest first (ties by name), and within a cell over clusters (no rule counts as one).
    Within a cluster the largest margin comes first: a confident error is systematic, a small margin is a coin flip.
    """
    by_cell = cells(sorted(failed, key=lambda failure: failure.cell))
    return list(round_robin(_clusters_round_robin(own, cluster_of) for own in by_cell.values()))[:size]


def draw(found: Sequence[Answered], size: int, seed: int, round: int) -> list[Answered]:
    """At most `size` of `found` at random: the baseline for `cover` and `guards`."""
    return sorted(found, key=lambda answer: content_id([seed, "shown", round, answer.example.id]))[:size]


def guards(shown: Sequence[Answered], succeeded: Sequence[Answered], vectors: Mapping[str, Vectors]) -> list[Answered]:
    """As many successes as failures are `shown` (or all there are), which an Edit must not break: each failure takes
    the nearest success that is left. `vectors`: example id → unit-length embedding [d] of its input."""
    if not shown or not succeeded:
        return []
    ordered = sorted(succeeded, key=lambda success: success.example.id)
    failing, passing = (np.stack([vectors[answer.example.id] for answer in part]) for part in (shown, ordered))
    # rounded, so that ties are ties on every machine
    similarity = np.round(failing.astype(np.float64) @ passing.astype(np.float64).T, 6)  # (failures, successes)
    taken = []
    for row in similarity[: len(ordered)]:
        nearest = int(np.argmax(row))
        similarity[:, nearest] = -np.inf
        taken.append(ordered[nearest])
    return taken


def shown_rows(
    failures: Sequence[Answered], successes: Sequence[Answered], cluster_of: ClusterOf
) -> list[ShownExample]:
    """shown.jsonl, the failures first."""
    return [
        ShownExample(
            example_id=answer.example.id,
            kind="success" if answer.right else "failure",
            label=answer.example.label,
            predicted=answer.predicted,
            margin=round(answer.margin, 6),
            cluster=cluster_of(answer.example.id),
        )
        for answer in (*failures, *successes)
    ]


def round_robin(columns: Iterable[Iterable[T]]) -> Iterator[T]:
    """The items of `columns`, round-robin."""
    running = [iter(column) for column in columns]
    while running:
        left = []
        for column in running:
            for item in column:
                yield item
                left.append(column)
                break
        running = left


def _quotas(available: Mapping[str, int], size: int, labels: Sequence[str]) -> dict[str, int]:
    """Examples per label: in proportion to those `available`, by largest remainder, with a floor."""
    counts = {label: available.get(label, 0) for label in labels}
    size = min(size, sum(counts.values()))
    floors = {label: min(count, size // (2 * len(labels))) for label, count in counts.items()}
    quotas: dict[str, int] = {}
    # a label that would fall below its floor gets the floor; the others share the rest
    while below := [label for label in counts if label not in quotas and _below(label, counts, floors, quotas, size)]:
        quotas |= {label: floors[label] for label in below}
    rest = size - sum(quotas.values())
    sharing = {label: count for label, count in counts.items() if label not in quotas}
    total = max(1, sum(sharing.values()))
    by_remainder = sorted(sharing, key=lambda label: -(rest * sharing[label] % total))
    quotas |= {label: rest * count // total for label, count in sharing.items()}
    for label in by_remainder[: size - sum(quotas.values())]:
        quotas[label] += 1
    return quotas


def _below(
    label: str, counts: Mapping[str, int], floors: Mapping[str, int], quotas: Mapping[str, int], size: int
) -> bool:
    rest = size - sum(quotas.values())
    total = sum(count for other, count in counts.items() if other not in quotas)
    return rest * counts[label] < floors[label] * total


def _clusters_round_robin(own: Sequence[Answered], cluster_of: ClusterOf) -> Iterator[Answered]:
    by_cluster: dict[int | None, list[Answered]] = defaultdict(list)
    for failure in sorted(own, key=lambda failure: (-failure.margin, failure.example.id)):
        by_cluster[cluster_of(failure.example.id)].append(failure)
    # sorted is stable: of clusters of one size that with the most confident failure comes first
    fullest_first: list[list[Answered]] = sorted(by_cluster.values(), key=len, reverse=True)
    return round_robin(fullest_first)
