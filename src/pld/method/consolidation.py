"""Clusters → RuleGroups → Instructions, without an LLM; `merging` does it with the Teacher."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pld.ports import Vectors
from pld.records import Cluster, Instruction, Rule, content_id


@dataclass(frozen=True)
class RuleGroup:
    """The rules of one label in one cluster, nearest to their centroid first (so the medoid is `rules[0]`)."""

    cluster_id: int
    label: str
    rules: tuple[Rule, ...]


def rule_groups(
    clusters: Sequence[Cluster], rules: Sequence[Rule], vectors: Vectors, min_share: float
) -> list[RuleGroup]:
    """One group per cluster and label that holds at least `min_share` of its cluster, in the order of the clusters,
    the more frequent label first; clusters dropped as noise make none. `vectors` [n, d] belong to `rules` [n]."""
    place = {rule.id: i for i, rule in enumerate(rules)}
    groups = []
    for cluster in clusters:
        if cluster.noise:
            continue
        for label, count in sorted(cluster.labels.items(), key=lambda item: (-item[1], item[0])):
            if count < min_share * len(cluster.rule_ids):
                continue
            members = [place[rule_id] for rule_id in cluster.rule_ids if rules[place[rule_id]].label == label]
            groups.append(RuleGroup(cluster.id, label, nearest_first(members, rules, vectors)))
    return groups


def medoids(groups: Sequence[RuleGroup]) -> list[Instruction]:
    """Per group the rule nearest to the centroid, as it stands."""
    return merge_alike([make_instruction(group.rules[0].text, group, "medoid") for group in groups])


def make_instruction(text: str, group: RuleGroup, origin: str) -> Instruction:
    return Instruction(
        id=content_id({"label": group.label, "text": text}, 12),
        text=text,
        label=group.label,
        rule_ids=tuple(rule.id for rule in group.rules),
        support=len(group.rules),
        origin=origin,
    )


def merge_alike(instructions: Sequence[Instruction]) -> list[Instruction]:
    """Instructions with the same text and label become one, with all their rules, at the first one's place."""
    merged: dict[str, Instruction] = {}
    for instruction in instructions:
        known = merged.get(instruction.id)
        if known is not None:
            rule_ids = tuple(dict.fromkeys(known.rule_ids + instruction.rule_ids))
            instruction = known.model_copy(update={"rule_ids": rule_ids, "support": len(rule_ids)})
        merged[instruction.id] = instruction
    return list(merged.values())


def labels_without_instruction(labels: Sequence[str], instructions: Sequence[Instruction]) -> tuple[str, ...]:
    """Declared labels that no instruction leads to: what a trial must say loudly."""
    held = {instruction.label for instruction in instructions}
    return tuple(label for label in labels if label not in held)


def nearest_first(members: Sequence[int], rules: Sequence[Rule], vectors: Vectors) -> tuple[Rule, ...]:
    """The rules at the places `members`, by cosine to their centroid, so that the medoid is the first."""
    own = vectors[list(members)].astype(np.float64)  # (m, d)
    similarity = own @ own.mean(axis=0)  # rows are unit vectors, so this orders by cosine to the centroid
    ordered = sorted(range(len(members)), key=lambda i: (-round(float(similarity[i]), 9), rules[members[i]].id))
    return tuple(rules[members[i]] for i in ordered)
