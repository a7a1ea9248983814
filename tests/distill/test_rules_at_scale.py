"""Rules and examples by the thousand: the same answers, and memory that does not grow with their square."""

import tracemalloc
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pld.distill import cluster
from pld.distill.cluster import cluster_rules
from pld.distill.consolidate import medoids, merge_alike, rule_groups
from pld.evaluate.baselines import prompting
from pld.evaluate.baselines.prompting import nearest_examples
from pld.records import Example, Instruction, Rule

RULES = 10_000
LABELS = ("a", "b", "c")


class Given:
    def __init__(self, numbers):
        self.numbers = numbers

    def cluster(self, vectors):
        return self.numbers


class GivenBySize(Given):
    def by_size(self, rows):
        return {"min_samples": rows}


def rules_of(n, texts=None):
    return [
        Rule.model_construct(
            id=f"rule {i}",
            example_id=f"example {i}",
            label=LABELS[i % 3],
            rationale="",
            text=f"answer {LABELS[i % 3]} {i % (texts or n)}",
            teacher="t",
            doubtful=False,
            draw=0,
        )
        for i in range(n)
    ]


def rows_of(n, d=32):
    rows = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def mebibytes(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("numbers", "noise"),
    [
        (np.where(np.arange(RULES) % 2, -1, np.arange(RULES) // 4), "nearest"),  # 2,500 clusters, half noise
        (np.where(np.arange(RULES) % 2, -1, 0), "singletons"),
        (np.zeros(RULES, dtype=np.int64), "nearest"),
        (np.full(RULES, -1), "nearest"),
    ],
    ids=["many clusters and much noise", "singletons", "one cluster", "noise alone"],
)
def test_clusters_and_medoids_hold_no_table_of_rules_by_rules(numbers, noise):
    rules, vectors = rules_of(RULES), rows_of(RULES)

    def work():
        clusters = cluster_rules(rules, vectors, Given(numbers), noise).clusters
        assert sum(instruction.support for instruction in medoids(rule_groups(clusters, rules, vectors, 0.0))) == RULES

    assert mebibytes(work) < 35  # MiB; rules by rules are 381, flags for them 95, noise by those clusters 48


def test_what_a_clusterer_chose_by_size_is_said():
    rules, vectors = rules_of(4), rows_of(4)
    numbers = np.zeros(4, dtype=np.int64)
    assert cluster_rules(rules, vectors, Given(numbers), "nearest").by_size == {}
    assert cluster_rules(rules, vectors, GivenBySize(numbers), "nearest").by_size == {"min_samples": 4}


@settings(max_examples=15, deadline=None)
@given(
    numbers=st.lists(st.integers(-1, 6), min_size=1, max_size=40).filter(lambda found: max(found) >= 0),
    seed=st.integers(0, 10**6),
    cells=st.integers(1, 50),
)
def test_noise_goes_to_the_same_clusters_however_much_of_it_is_compared_at_a_time(numbers, seed, cells):
    found = np.array(numbers)
    vectors = np.random.default_rng(seed).normal(size=(len(found), 4)).astype(np.float32)
    with patch.object(cluster, "_CELLS", cells):
        few = cluster_rules(rules_of(len(found)), vectors, Given(found), "nearest")
    names = np.unique(found[found >= 0])
    centroids = np.stack([vectors[found == name].mean(axis=0) for name in names])
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    wanted = np.where(found >= 0, found, names[np.argmax(vectors @ centroids.T, axis=1)])
    held = {frozenset(f"rule {i}" for i in np.flatnonzero(wanted == name)) for name in names}
    assert {frozenset(cluster.rule_ids) for cluster in few.clusters} == held


def test_many_rules_of_the_same_few_words_become_few_instructions_in_time():
    alike = [
        Instruction(id=f"i{i % 2}", text="t", label="a", rule_ids=(f"r{i}",), support=1, origin="medoid")
        for i in range(RULES)
    ]
    first, second = merge_alike(alike)
    assert (first.support, second.support) == (RULES / 2, RULES / 2)
    assert first.rule_ids[:3] == ("r0", "r2", "r4")


def examples(n, first=0):
    return [Example(id=f"e{i}", inputs={"t": ""}, label="a", split="train") for i in range(first, first + n)]


quarters = st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=12).map(
    lambda rows: np.array(rows, dtype=np.float32) / 4  # exact in any order of summing, with many ties
)


@settings(max_examples=15, deadline=None)
@given(vectors=quarters, queries=quarters, size=st.integers(1, 5), cells=st.integers(1, 60), first=st.integers(0, 12))
def test_the_nearest_examples_are_the_same_however_many_are_compared_at_a_time(vectors, queries, size, cells, first):
    train, asked = examples(len(vectors)), examples(len(queries), first)
    with patch.object(prompting, "_CELLS", cells):
        found = nearest_examples(train, vectors, asked, queries, size)
    for row, example, shown in zip(queries @ vectors.T, asked, found, strict=True):
        order = [at for at in np.argsort(-row, kind="stable") if train[at].id != example.id]
        assert shown == [train[at] for at in order[:size]][::-1]


@pytest.mark.slow
def test_nearest_examples_hold_no_table_of_all_by_all():
    train, vectors = examples(20_000), rows_of(20_000, 4)
    asked, queries = examples(2_500, 20_000), rows_of(2_500, 4)
    assert mebibytes(lambda: nearest_examples(train, vectors, asked, queries, 3)) < 80  # all by all are 191
