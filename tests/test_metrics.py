import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from pld.metrics import choose, compare, indices, predictions, system_report
from pld.records import Example

LABELS = ("a", "b", "c")
ANSWERS = st.integers(1, 30).flatmap(
    lambda n: st.tuples(
        st.lists(st.integers(0, 2), min_size=n, max_size=n), st.lists(st.integers(-1, 2), min_size=n, max_size=n)
    )
)


def report(gold, predicted, groups=None, resamples=200, seed=0):
    return system_report(np.array(gold), np.array(predicted), LABELS, groups, resamples, seed, 7)


@given(ANSWERS)
def test_figures_equal_those_of_scikit_learn_over_the_declared_labels(answers):
    gold, predicted = answers
    found = report(gold, predicted)
    assert found.macro_f1.value == pytest.approx(
        f1_score(gold, predicted, labels=[0, 1, 2], average="macro", zero_division=0)
    )
    assert found.accuracy.value == pytest.approx(accuracy_score(gold, predicted))
    precision, recall, f1, support = precision_recall_fscore_support(gold, predicted, labels=[0, 1, 2], zero_division=0)
    for i, label in enumerate(LABELS):
        score = found.per_label[label]
        assert (score.precision, score.recall, score.f1) == pytest.approx((precision[i], recall[i], f1[i]))
        assert score.support == support[i]
    assert found.unparsable == predicted.count(-1)
    assert sum(map(sum, found.confusion)) == len(gold) - found.unparsable


@given(ANSWERS)
def test_an_interval_is_ordered_and_within_zero_and_one(answers):
    found = report(*answers)
    for interval in (found.macro_f1, found.accuracy):
        assert 0 <= interval.low <= interval.high <= 1


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    gold, predicted = [0, 1, 2] * 10, [0, 1, 1] * 10
    assert report(gold, predicted) == report(gold, predicted)
    assert report(gold, predicted).macro_f1 != report(gold, predicted, seed=1).macro_f1


def test_whole_groups_are_drawn_so_that_few_groups_widen_the_interval():
    gold = [0, 1] * 50
    predicted = [0, 1] * 25 + [1, 0] * 25  # the first half right, the second wrong
    groups = [f"g{i // 50}" for i in range(100)]
    alone, together = report(gold, predicted), report(gold, predicted, groups)
    assert together.accuracy.value == alone.accuracy.value == 0.5
    assert together.accuracy.high - together.accuracy.low > 3 * (alone.accuracy.high - alone.accuracy.low)


def test_a_bootstrap_interval_of_accuracy_agrees_with_the_binomial_one():
    gold, predicted = [0] * 400, [0] * 300 + [1] * 100
    found = report(gold, predicted, resamples=4000).accuracy
    exact = binomtest(300, 400).proportion_ci(method="wilson")
    assert found.low == pytest.approx(exact.low, abs=0.01)
    assert found.high == pytest.approx(exact.high, abs=0.01)


def test_ties_go_to_the_label_declared_first_and_nan_rows_are_unparsable():
    scores = np.array([[-1.0, -1.0, -2.0], [np.nan, -1.0, -2.0], [-3.0, -1.0, -1.0]])
    assert choose(scores).tolist() == [0, -1, 1]
    examples = [Example(id=str(i), inputs={"t": str(i)}, label="a", split="test") for i in range(3)]
    assert [item.predicted for item in predictions(examples, "s", scores, LABELS)] == ["a", None, "b"]


@given(ANSWERS, st.data())
def test_swapping_systems_negates_the_comparison(answers, data):
    gold, first = answers
    second = data.draw(st.lists(st.integers(-1, 2), min_size=len(gold), max_size=len(gold)))
    ab = compare("a", "b", gold, first, second, 3, None, 200, 0)
    ba = compare("b", "a", gold, second, first, 3, None, 200, 0)
    assert ab.macro_f1_delta.value == pytest.approx(-ba.macro_f1_delta.value)
    assert ab.macro_f1_delta.low == pytest.approx(-ba.macro_f1_delta.high)
    assert (ab.fixed, ab.broken) == (ba.broken, ba.fixed)
    assert ab.mcnemar_p == ba.mcnemar_p


def test_a_system_does_not_differ_from_itself():
    found = compare("a", "a", [0, 1, 2], [0, 1, 1], [0, 1, 1], 3, None, 200, 0)
    assert (found.macro_f1_delta.low, found.macro_f1_delta.high, found.mcnemar_p) == (0, 0, 1)


def test_the_paired_interval_is_narrower_than_an_unpaired_one():
    gold = [0, 1, 2] * 60
    first = [0, 1, 1] * 60
    second = [*first[:-9], 1, 1, 1, 1, 1, 1, 1, 1, 1]
    paired = compare("a", "b", gold, first, second, 3, None, 500, 0).macro_f1_delta
    single = report(gold, first, resamples=500).macro_f1
    assert paired.high - paired.low < single.high - single.low


def test_indices_follow_the_declared_order():
    assert indices(["c", None, "a"], LABELS).tolist() == [2, -1, 0]
