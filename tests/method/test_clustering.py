import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.errors import DistillError
from pld.method.clustering import cluster_rules
from pld.method.consolidation import labels_without_instruction, medoids, rule_groups
from pld.records import Rule


class Given:
    """A clusterer that answers what the test says."""

    def __init__(self, numbers):
        self.numbers = np.array(numbers, dtype=np.int64)

    def cluster(self, vectors):
        return self.numbers


def rules_of(labels):
    return [
        Rule(
            id=f"r{i}",
            example_id=f"e{i}",
            label=label,
            rationale="",
            text=f"answer {label} {i}",
            teacher="t",
            doubtful=False,
        )
        for i, label in enumerate(labels)
    ]


def unit(*rows):
    vectors = np.array(rows, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def clusters_of(numbers, noise, vectors=None):
    vectors = unit(*([[1, 0]] * len(numbers))) if vectors is None else vectors
    return cluster_rules(rules_of(["a"] * len(numbers)), vectors, Given(numbers), noise)


@given(st.lists(st.integers(-1, 4), min_size=1, max_size=30), st.sampled_from(["drop", "nearest", "singletons"]))
def test_every_rule_stands_in_exactly_one_cluster_and_none_is_lost(numbers, noise):
    if noise == "drop" and set(numbers) == {-1}:
        return
    found = clusters_of(numbers, noise)
    held = [rule_id for cluster in found.clusters for rule_id in cluster.rule_ids]
    assert sorted(held) == sorted(f"r{i}" for i in range(len(numbers)))
    assert [cluster.id for cluster in found.clusters] == list(range(len(found.clusters)))
    assert found.noise_share == pytest.approx(numbers.count(-1) / len(numbers))
    assert any(not cluster.noise for cluster in found.clusters)


def test_dropped_noise_is_one_marked_cluster_at_the_end():
    found = clusters_of([0, -1, 0, -1, 1], "drop").clusters
    assert [(cluster.rule_ids, cluster.noise) for cluster in found] == [
        (("r0", "r2"), False),
        (("r4",), False),
        (("r1", "r3"), True),
    ]


def test_noise_goes_to_the_cluster_with_the_nearest_centroid():
    vectors = unit([1, 0], [0, 1], [0.9, 0.1], [0.1, 0.9])
    found = clusters_of([0, 1, -1, -1], "nearest", vectors).clusters
    assert {cluster.rule_ids for cluster in found} == {("r0", "r2"), ("r1", "r3")}


def test_singletons_make_a_cluster_of_each_noise_rule():
    assert [c.rule_ids for c in clusters_of([-1, 0, -1, 0], "singletons").clusters] == [("r1", "r3"), ("r0",), ("r2",)]


def test_all_noise_is_one_cluster_under_nearest_and_an_error_that_says_what_to_do_under_drop():
    assert len(clusters_of([-1, -1, -1], "nearest").clusters) == 1
    with pytest.raises(DistillError, match=r"all 3 rules are noise.*clustering\.noise=nearest"):
        clusters_of([-1, -1, -1], "drop")


def test_no_rule_at_all_is_an_error():
    with pytest.raises(DistillError, match="found none"):
        clusters_of([], "nearest", np.empty((0, 2), dtype=np.float32))


def test_a_cluster_of_mixed_labels_gives_an_instruction_per_label_that_holds_its_share():
    rules = rules_of(["a", "a", "a", "b", "b", "c"])
    vectors = unit(*([[1, 0]] * 6))
    clusters = cluster_rules(rules, vectors, Given([0] * 6), "nearest").clusters
    groups = rule_groups(clusters, rules, vectors, min_share=0.2)
    assert [(group.label, len(group.rules)) for group in groups] == [("a", 3), ("b", 2)]
    assert labels_without_instruction(["a", "b", "c"], medoids(groups)) == ("c",)


def test_the_medoid_is_the_rule_nearest_to_the_centroid_and_carries_its_support():
    rules = rules_of(["a", "a", "a"])
    vectors = unit([1, 0.5], [1, 0], [1, -0.6])
    clusters = cluster_rules(rules, vectors, Given([0, 0, 0]), "nearest").clusters
    (instruction,) = medoids(rule_groups(clusters, rules, vectors, 0.2))
    assert instruction.text == rules[1].text
    assert instruction.support == 3
    assert set(instruction.rule_ids) == {"r0", "r1", "r2"}


def test_rules_with_the_same_words_make_one_instruction_with_the_rules_of_both():
    rules = [rule.model_copy(update={"text": "answer a"}) for rule in rules_of(["a", "a"])]
    vectors = unit([1, 0], [0, 1])
    clusters = cluster_rules(rules, vectors, Given([0, 1]), "nearest").clusters
    (instruction,) = medoids(rule_groups(clusters, rules, vectors, 0.2))
    assert instruction.rule_ids == ("r0", "r1")
    assert instruction.support == 2
