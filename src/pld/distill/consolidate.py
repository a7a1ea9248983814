"""Consolidate clusters into instructions without an LLM: one medoid rule per cluster and label.

`teacher_consolidation` has the Teacher write them instead."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pld.params import ClusteringParams
from pld.ports import Vectors
from pld.records import Cluster, Instruction, Rule, content_id

Weigh = Callable[[Sequence[str]], int | float]
"""The weight of rules, by their ids; `len` when each counts as one."""


@dataclass(frozen=True)
class RuleGroup:
    """The rules of one label in one cluster, nearest to their centroid first (so the medoid is `rules[0]`)."""

    cluster_id: int
    label: str
    rules: tuple[Rule, ...]


def weigher(rules: Iterable[Rule], params: ClusteringParams) -> Weigh:
    """`len`, or with `doubtful: downweight` a weight that counts each doubtful rule as `doubtful_weight`."""
    if params.doubtful != "downweight":
        return len
    doubtful = frozenset(rule.id for rule in rules if rule.doubtful)

    def weigh(rule_ids: Sequence[str]) -> int | float:
        less = sum(rule_id in doubtful for rule_id in rule_ids)
        weight = round(len(rule_ids) - less + less * params.doubtful_weight, 6)
        return int(weight) if weight.is_integer() else weight

    return weigh


def rule_groups(
    clusters: Sequence[Cluster], rules: Sequence[Rule], vectors: Vectors, min_share: float, weigh: Weigh = len
) -> list[RuleGroup]:
    """One group per cluster and label with at least `min_share` of the cluster, in the order of clusters, the most
    frequent label first; noise clusters have none. `vectors` [n, d] belong to `rules` [n]."""
    place = {rule.id: i for i, rule in enumerate(rules)}
    groups = []
    for cluster in clusters:
        if cluster.noise:
            continue
        held: dict[str, list[str]] = {label: [] for label in cluster.labels}
        for rule_id in cluster.rule_ids:
            held[rules[place[rule_id]].label].append(rule_id)
        for label, own in sorted(held.items(), key=lambda item: (-weigh(item[1]), item[0])):
            if weigh(own) < min_share * weigh(cluster.rule_ids):
                continue
            members = [place[rule_id] for rule_id in own]
            groups.append(RuleGroup(cluster.id, label, nearest_first(members, rules, vectors, weigh)))
    return groups


def medoids(groups: Sequence[RuleGroup], weigh: Weigh = len) -> list[Instruction]:
    """The rule nearest to the centroid of each group, unchanged."""
    return merge_alike([make_instruction(group.rules[0].text, group, "medoid", weigh) for group in groups], weigh)


def make_instruction(text: str, group: RuleGroup, origin: str, weigh: Weigh = len) -> Instruction:
    rule_ids = tuple(rule.id for rule in group.rules)
    return Instruction(
        id=content_id({"label": group.label, "text": text}, 12),
        text=text,
        label=group.label,
        rule_ids=rule_ids,
        support=weigh(rule_ids),
        origin=origin,
    )


def merge_alike(instructions: Sequence[Instruction], weigh: Weigh = len) -> list[Instruction]:
    """Merge instructions with the same text and label into the first of them, with all their rules."""
    alike: dict[str, list[Instruction]] = {}
    for instruction in instructions:
        alike.setdefault(instruction.id, []).append(instruction)
    return [own[0] if len(own) == 1 else _as_one(own, weigh) for own in alike.values()]


def _as_one(alike: Sequence[Instruction], weigh: Weigh) -> Instruction:
    rule_ids = tuple(dict.fromkeys(rule_id for instruction in alike for rule_id in instruction.rule_ids))
    return alike[0].model_copy(update={"rule_ids": rule_ids, "support": weigh(rule_ids)})


def labels_without_instruction(labels: Sequence[str], instructions: Sequence[Instruction]) -> tuple[str, ...]:
    """Declared labels that no instruction leads to."""
    held = {instruction.label for instruction in instructions}
    return tuple(label for label in labels if label not in held)


def nearest_first(
    members: Sequence[int], rules: Sequence[Rule], vectors: Vectors, weigh: Weigh = len
) -> tuple[Rule, ...]:
    """The rules at positions `members`, sorted by cosine to their centroid: the medoid is first. A downweighted rule
    contributes less to the centroid, and its similarity is scaled down too."""
    own = vectors[list(members)].astype(np.float64)  # (m, d)
    weights = np.array([weigh((rules[i].id,)) for i in members])  # (m,)
    if (weights == 1).all():
        similarity = own @ own.mean(axis=0)  # rows are unit vectors, so this orders by cosine to the centroid
    else:
        centre = weights @ own
        cosine = own @ centre / max(float(np.linalg.norm(centre)), 1e-12)
        similarity = weights * (1 + cosine)  # 0 to 2: a negative cosine would reward a small weight
    ordered = sorted(range(len(members)), key=lambda i: (-round(float(similarity[i]), 9), rules[members[i]].id))
    return tuple(rules[members[i]] for i in ordered)
