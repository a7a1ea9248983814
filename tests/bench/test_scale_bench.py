from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch):
    """The modules of bench/, which are scripts beside one another."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))


def test_made_rules_are_different_and_the_first_ones_are_the_same_for_every_number(bench):
    from made_rules import LABELS, NO_TOPIC, TOPICS, made_rules

    few, many = list(made_rules(500, seed=0)), list(made_rules(2000, seed=0))
    assert many[:500] == few
    assert len({rule.text for rule in many}) == len(many) == 2000
    assert {rule.topic for rule in many} == {NO_TOPIC, *range(len(TOPICS))}
    assert {rule.label for rule in many} == set(LABELS)
    assert next(islice(made_rules(1, seed=1), 1)) != few[0]


def test_clusters_are_scored_by_the_topics_that_the_rules_have(bench, tmp_path, monkeypatch):
    import numpy as np
    from scale_steps import quality

    monkeypatch.chdir(tmp_path)
    Path("topics.json").write_text("[3, 3, 3, 5, -1, 5]")
    found = quality(np.array([0, 0, 1, 1, 1, -1]), ["a", "a", "b", "b", "a", "a"])
    assert found["clusters"] == 2
    assert found["noise"] == pytest.approx(1 / 6)
    assert found["largest"] == 0.5
    assert found["topics"] == 1  # of cluster 1's two, the one that comes first
    assert found["topic_purity"] == pytest.approx(3 / 4)
    assert found["label_purity"] == pytest.approx(4 / 5)


def test_growth_is_told_where_there_is_something_to_divide(bench):
    from scale import _text
    from scale_steps import Step

    def step(rules, cpu_s, peak):
        return Step("embed", rules, 2 * cpu_s, cpu_s, 100.0, peak, {"vectors": cpu_s}, {})

    text = _text([step(1000, 0.5, 101), step(10_000, 5.0, 150), step(100_000, 60.0, 600)], [])
    assert "| embed | 1,000 → 10,000 | 10 | – | – |" in text
    assert "| embed | 10,000 → 100,000 | 10 | 12.0 | 10.0 |" in text
