import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pld.calibration import balanced_log_loss, calibrate, cross_fitted, cross_fitted_choices, fit_affine, fit_batch
from pld.metrics import choose
from pld.records import Calibration

LABELS = ("a", "b", "c")
TOLERANCE = 2e-3  # of parameters that are rounded to 4 decimals


@st.composite
def scored(draw):
    """Scores [n, 3] and gold labels [n] in which every label occurs."""
    n = draw(st.integers(6, 30))
    scores = draw(arrays(np.float64, (n, 3), elements=st.floats(-20, 0, width=32)))
    others = draw(st.lists(st.integers(0, 2), min_size=n - 3, max_size=n - 3))
    return scores, np.array([0, 1, 2, *others])


def biased(n=120, seed=0):
    """A model that knows the answer and prefers the first label by 4 nats; the last label is rare."""
    random = np.random.default_rng(seed)
    gold = random.choice(3, size=n, p=(0.45, 0.45, 0.1))
    scores = random.normal(size=(n, 3))
    scores[np.arange(n), gold] += 3
    return scores + np.array([4.0, 0.0, 0.0]), gold


@settings(deadline=None, max_examples=60)
@given(scored())
def test_without_penalty_the_fit_never_has_a_higher_balanced_log_loss_than_the_scores_themselves(found):
    scores, gold = found
    fitted = calibrate(scores, fit_affine(scores, gold, LABELS, l2=0.0))
    assert balanced_log_loss(fitted, gold) <= balanced_log_loss(scores, gold) + TOLERANCE


@settings(deadline=None, max_examples=40)
@given(scored(), st.integers(0, 2**32 - 1))
def test_a_constant_added_to_all_scores_of_an_example_changes_nothing_in_the_fit(found, seed):
    scores, gold = found
    moved = scores + np.random.default_rng(seed).normal(0, 50, size=(len(scores), 1))
    plain, shifted = fit_affine(scores, gold, LABELS), fit_affine(moved, gold, LABELS)
    assert shifted.scale == pytest.approx(plain.scale, abs=TOLERANCE)
    assert shifted.bias == pytest.approx(plain.bias, abs=TOLERANCE)


@settings(deadline=None, max_examples=40)
@given(scored(), st.permutations(range(3)))
def test_permuted_labels_have_permuted_biases(found, order):
    scores, gold = found
    plain = fit_affine(scores, gold, LABELS)
    permuted = fit_affine(scores[:, order], np.argsort(order)[gold], [LABELS[place] for place in order])
    assert permuted.scale == pytest.approx(plain.scale, abs=TOLERANCE)
    assert permuted.bias == pytest.approx([plain.bias[place] for place in order], abs=TOLERANCE)


def test_a_biased_model_that_knows_the_answer_is_right_once_calibrated_rare_labels_included():
    scores, gold = biased()
    assert (choose(scores) == gold).mean() < 0.6
    chosen = choose(calibrate(scores, fit_affine(scores, gold, LABELS)))
    assert all((chosen[gold == label] == label).mean() > 0.9 for label in range(3))


def test_the_same_scores_always_have_the_same_fit_and_the_order_of_examples_does_not_matter():
    scores, gold = biased()
    found = fit_affine(scores, gold, LABELS)
    assert fit_affine(scores, gold, LABELS) == found
    assert fit_affine(scores[::-1], gold[::-1], LABELS) == found
    assert fit_affine(scores + 1e-7 * np.sin(scores), gold, LABELS) == found


def test_rows_that_could_not_be_scored_are_left_out_of_the_fit_and_stay_unparsable():
    scores, gold = biased()
    broken = np.vstack([scores, [[np.nan, 0.0, 0.0]]])
    found = fit_affine(broken, np.append(gold, 2), LABELS)
    assert found == fit_affine(scores, gold, LABELS)
    assert choose(calibrate(broken, found))[-1] == -1


@pytest.mark.parametrize("rows", [0, 1, 2, 40])
def test_with_examples_of_at_most_one_label_scores_are_left_as_they_are(rows):
    scores, gold = biased()
    found = fit_affine(scores[gold == 1][:rows], gold[gold == 1][:rows], LABELS)
    assert (found.scale, found.bias) == (1.0, (0.0, 0.0, 0.0))


def test_equal_scores_are_left_as_they_are():
    found = fit_affine(np.full((6, 3), -2.0), np.array([0, 0, 0, 1, 1, 2]), LABELS)
    assert (found.scale, found.bias) == (1.0, (0.0, 0.0, 0.0))


def test_a_label_without_examples_is_not_pushed_out():
    scores, gold = biased()
    found = fit_affine(scores[gold < 2], gold[gold < 2], LABELS)
    assert found.bias[2] == 0
    assert found.bias[0] < 0 < found.bias[1]


@pytest.mark.parametrize("l2", [0.0, 1.0])
def test_one_example_per_label_that_separates_has_a_finite_fit(l2):
    found = fit_affine(np.array([[0.0, -9.0, -9.0], [-9.0, 0.0, -9.0], [-9.0, -9.0, 0.0]]), np.arange(3), LABELS, l2)
    assert 0 < found.scale < 100
    assert np.isfinite(found.bias).all()


def test_cross_fitting_learns_a_bias_that_other_folds_show_and_nothing_from_an_examples_own_label():
    scores, gold = biased()
    ids = [str(number) for number in range(len(gold))]
    assert (cross_fitted_choices(scores, gold, ids, LABELS) == gold).mean() > 0.85
    noise, right = np.random.default_rng(1), []
    for _ in range(10):
        scores, gold = noise.normal(size=(120, 3)), noise.integers(0, 3, 120)
        right.append((cross_fitted_choices(scores, gold, ids, LABELS) == gold).mean())
    assert np.mean(right) < 0.38  # 1/3 by chance


def test_no_example_is_in_the_fit_that_calibrates_it():
    scores, gold = biased(12)
    found = cross_fitted(scores, gold, [str(number) for number in range(12)], LABELS, folds=12)
    for row in range(12):
        others = np.arange(12) != row
        expected = calibrate(scores[row : row + 1], fit_affine(scores[others], gold[others], LABELS))
        assert found[row : row + 1] == pytest.approx(expected)


def test_cross_fitted_scores_follow_the_examples_whatever_their_order():
    scores, gold = biased(40)
    ids = [str(number) for number in range(40)]
    found = cross_fitted(scores, gold, ids, LABELS)
    assert np.allclose(cross_fitted(scores[::-1], gold[::-1], ids[::-1], LABELS), found[::-1], atol=TOLERANCE)


@pytest.mark.parametrize("n", [0, 1, 3])
def test_few_scores_are_cross_fitted_without_errors(n):
    scores, gold = biased()
    assert cross_fitted(scores[:n], gold[:n], list("xyz")[:n], LABELS).shape == (n, 3)


def test_batch_calibration_subtracts_label_means_without_nan_rows():
    scores = np.array([[-1.0, -5.0], [-3.0, -7.0], [np.nan, np.nan]])
    found = fit_batch(scores, ("a", "b"))
    assert found == Calibration(method="batch", labels=("a", "b"), scale=1.0, bias=(2.0, 6.0), examples=2)
    assert calibrate(scores, found)[:2].tolist() == [[1.0, 1.0], [-1.0, -1.0]]


def test_batch_calibration_on_no_examples_changes_nothing():
    scores = np.array([[-1.0, -2.0]])
    assert calibrate(scores, fit_batch(np.empty((0, 2)), ("a", "b"))).tolist() == scores.tolist()


def test_a_file_of_an_older_version_is_a_batch_calibration():
    older = {"labels": ["a", "b"], "mean_log_scores": [-2.0, -6.0], "examples": 2}
    assert Calibration.model_validate(older) == fit_batch(np.array([[-1.0, -5.0], [-3.0, -7.0]]), ("a", "b"))
    assert Calibration.model_validate_json('{"labels": ["a"], "mean_log_scores": [-2.0], "examples": 1}').bias == (2.0,)
