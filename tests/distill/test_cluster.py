import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.distill.cluster import chosen_rules, cluster_rules
from pld.distill.consolidate import (
    labels_without_instruction,
    medoids,
    merge_alike,
    nearest_first,
    rule_groups,
    weigher,
)
from pld.errors import DistillError
from pld.params import ClusteringParams
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
    with pytest.raises(DistillError, match="expected rules to cluster, got none"):
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


KEEP = ClusteringParams(noise="nearest", doubtful="keep", doubtful_weight=0.25, draw=None)
DROP = KEEP.model_copy(update={"doubtful": "drop"})
LESS = KEEP.model_copy(update={"doubtful": "downweight"})
FAN = unit([1, 0.5], [1, 0], [1, -0.6])


def doubted(rules, *places):
    return [rule.model_copy(update={"doubtful": i in places}) for i, rule in enumerate(rules)]


def test_doubtful_rules_are_dropped_with_their_vectors():
    rules, vectors = chosen_rules(doubted(rules_of(["a", "a", "b"]), 1), FAN, DROP)
    assert [rule.id for rule in rules] == ["r0", "r2"]
    assert (vectors == FAN[[0, 2]]).all()


@pytest.mark.parametrize("params", [KEEP, LESS])
def test_where_nothing_is_dropped_rules_and_vectors_are_the_same_objects(params):
    rules = doubted(rules_of(["a", "a", "b"]), 1)
    kept, vectors = chosen_rules(rules, FAN, params)
    assert kept is rules
    assert vectors is FAN


def test_the_rules_of_one_draw_are_clustered_alone():
    rules = [rule.model_copy(update={"draw": i % 2}) for i, rule in enumerate(rules_of(["a", "a", "b"]))]
    found, vectors = chosen_rules(rules, FAN, KEEP.model_copy(update={"draw": 1}))
    assert [rule.id for rule in found] == ["r1"]
    assert (vectors == FAN[[1]]).all()
    assert chosen_rules(rules, FAN, KEEP)[0] is rules


def test_where_no_rule_is_left_one_line_says_why_and_what_to_do():
    rules = doubted(rules_of(["a", "a"]), 0, 1)
    with pytest.raises(DistillError, match=r"got none of 2 \(clustering\.doubtful=drop\); .*downweight.*`pld doubts`"):
        chosen_rules(rules, FAN[:2], DROP)
    with pytest.raises(DistillError, match=r"none among 2 \(clustering\.draw=7\); .*extraction\.draws"):
        chosen_rules(rules, FAN[:2], KEEP.model_copy(update={"draw": 7}))


@pytest.mark.parametrize(("doubtful", "weight"), [((), 3), ((0,), 2.25), ((0, 1), 1.5), ((0, 1, 2), 0.75)])
def test_a_doubtful_rule_counts_as_its_weight_in_the_support(doubtful, weight):
    rules = doubted(rules_of(["a"] * 3), *doubtful)
    clusters = cluster_rules(rules, FAN, Given([0, 0, 0]), "nearest").clusters
    weigh = weigher(rules, LESS)
    (instruction,) = medoids(rule_groups(clusters, rules, FAN, 0.2, weigh), weigh)
    assert instruction.support == weight
    assert len(instruction.rule_ids) == 3


def test_a_whole_support_stays_a_whole_number_and_no_sum_shows_its_rounding():
    tenth = weigher(doubted(rules_of(["a"] * 12), *range(12)), LESS.model_copy(update={"doubtful_weight": 0.1}))
    assert [repr(tenth([f"r{i}" for i in range(n)])) for n in (3, 10, 12)] == ["0.3", "1", "1.2"]
    assert repr(weigher(rules_of(["a"]), LESS)(["r0"])) == "1"


def test_kept_doubtful_rules_count_like_any_other():
    assert weigher(doubted(rules_of(["a"]), 0), KEEP) is len
    assert weigher(doubted(rules_of(["a"]), 0), DROP) is len


def test_a_doubtful_rule_is_the_medoid_only_where_no_sound_one_is_near():
    rules = doubted(rules_of(["a", "a", "a"]), 1)
    assert [rule.id for rule in nearest_first([0, 1, 2], rules, FAN)] == ["r1", "r0", "r2"]
    assert nearest_first([0, 1, 2], rules, FAN, weigher(rules, LESS))[0].id == "r0"
    # all doubtful, it is as if none were
    every = doubted(rules, 0, 1, 2)
    assert [rule.id for rule in nearest_first([0, 1, 2], every, FAN, weigher(every, LESS))] == ["r1", "r0", "r2"]


def test_the_centroid_leans_to_the_sound_rules():
    angles = np.radians([0, 10, 40, 90, 90, 90])
    vectors = unit(*np.stack([np.cos(angles), np.sin(angles)], axis=1))
    rules = doubted(rules_of(["a"] * 6), 3, 4, 5)
    small = weigher(rules, LESS.model_copy(update={"doubtful_weight": 0.01}))
    assert nearest_first(range(6), rules, vectors)[0].id == "r2"
    assert [rule.id for rule in nearest_first(range(6), rules, vectors, small)][:3] == ["r1", "r0", "r2"]


def test_a_label_of_doubtful_rules_may_not_hold_its_share_and_stands_after_a_smaller_sound_one():
    rules = doubted(rules_of(["a", "a", "a", "b", "b", "c"]), 0, 1, 2)
    vectors = unit(*([[1, 0]] * 6))
    clusters = cluster_rules(rules, vectors, Given([0] * 6), "nearest").clusters
    weigh = weigher(rules, LESS)

    def labels(min_share, weigh=len):
        return [group.label for group in rule_groups(clusters, rules, vectors, min_share, weigh)]

    assert labels(0.2) == ["a", "b"]
    assert labels(0.2, weigh) == ["b", "c", "a"]  # 2, 1 and 0.75 of 3.75
    assert labels(0.21, weigh) == ["b", "c"]


def test_instructions_that_become_one_are_weighed_anew():
    rules = [rule.model_copy(update={"text": "answer a"}) for rule in doubted(rules_of(["a", "a"]), 1)]
    vectors = unit([1, 0], [0, 1])
    clusters = cluster_rules(rules, vectors, Given([0, 1]), "nearest").clusters
    weigh = weigher(rules, LESS)
    (instruction,) = medoids(rule_groups(clusters, rules, vectors, 0.2, weigh), weigh)
    assert (instruction.rule_ids, instruction.support) == (("r0", "r1"), 1.25)
    assert merge_alike([instruction, instruction], weigh)[0].support == 1.25


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 359)), min_size=1, max_size=20))
def test_weights_of_one_change_nothing(items):
    rules = doubted(rules_of([label for label, _, _ in items]), *(i for i, item in enumerate(items) if item[1]))
    vectors = unit(*([np.cos(angle), np.sin(angle)] for _, _, angle in items))
    clusters = cluster_rules(rules, vectors, Given([0] * len(rules)), "nearest").clusters
    weigh = weigher(rules, LESS.model_copy(update={"doubtful_weight": 1.0}))
    plain = medoids(rule_groups(clusters, rules, vectors, 0.2))
    assert medoids(rule_groups(clusters, rules, vectors, 0.2, weigh), weigh) == plain
