"""Calibrates label scores: fits a scale and a bias per label on labelled examples, and applies them.

Definitions and formulas: docs/reference/calibration.md.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from pld.metrics import Indices, choose
from pld.ports import Scores
from pld.records import Calibration, content_id

L2 = 1.0
"""Weight of the penalty on log scale and biases, in examples: it counts L2 / n against the mean log-loss of n."""

FOLDS = 5
_LARGEST_LOG_SCALE, _LARGEST_BIAS = 4.0, 50.0  # only reached when the penalty is 0 and the labels separate
_DECIMALS = 4


def calibrate(scores: Scores, calibration: Calibration) -> Scores:
    """`scores` [n, k] times the scale, plus each label's bias."""
    bias: Scores = np.asarray(calibration.bias, dtype=np.float64)
    return np.asarray(calibration.scale * scores + bias, dtype=np.float64)


def fit(method: Literal["batch", "affine"], scores: Scores, gold: Indices, labels: Sequence[str]) -> Calibration:
    """Fit `method` to the `scores` [n, k] of examples with the labels `gold` [n]; rows with NaN are left out."""
    return fit_batch(scores, labels) if method == "batch" else fit_affine(scores, gold, labels)


def fit_batch(scores: Scores, labels: Sequence[str]) -> Calibration:
    """Subtract each label's mean score (batch calibration, Zhou et al. 2024, arXiv 2309.17249); reads no gold label."""
    held = scores[~np.isnan(scores).any(axis=1)]
    bias = tuple(-float(mean) for mean in held.mean(axis=0)) if len(held) else (0.0,) * len(labels)
    return Calibration(method="batch", labels=tuple(labels), scale=1.0, bias=bias, examples=len(held))


def fit_affine(scores: Scores, gold: Indices, labels: Sequence[str], l2: float = L2) -> Calibration:
    """One scale (> 0) and a bias per label that minimise the class-balanced log-loss (supervised calibration,
    arXiv 2505.23783), rounded to 4 decimals so that the last bits of `scores` [n, k] hardly show.

    Every label with examples has the same weight, however rare. Scores are first normalised to log-probabilities over
    the declared labels, so a constant added to a row changes nothing. A label without examples keeps bias 0 and the
    others are fitted among themselves; with fewer than two labels there is nothing to weigh: scale 1, biases 0.
    """
    kept = ~np.isnan(scores).any(axis=1)
    scores, gold = scores[kept], gold[kept]
    present, place = np.unique(gold, return_inverse=True)
    scale, bias = 1.0, np.zeros(len(labels))
    if len(present) > 1:
        scale, bias[present] = _minimum(_log_softmax(scores[:, present]), place, l2)
    return Calibration(
        method="affine",
        labels=tuple(labels),
        scale=round(scale, _DECIMALS),
        bias=tuple(round(float(value), _DECIMALS) + 0.0 for value in bias),  # + 0.0: no -0.0
        examples=len(scores),
    )


def balanced_log_loss(scores: Scores, gold: Indices) -> float:
    """Mean over the labels in `gold` [n] of the mean of -log p(gold) by the softmax of `scores` [n, k]."""
    own = -_log_softmax(scores)[np.arange(len(gold)), gold]
    return float(np.mean([own[gold == label].mean() for label in np.unique(gold)]))


def cross_fitted(
    scores: Scores, gold: Indices, ids: Sequence[str], labels: Sequence[str], folds: int = FOLDS
) -> Scores:
    """`scores` [n, k], each fold of them calibrated by a fit on the others: no answers besides these are needed.

    Valid for comparing prompts (or lists, or trials) on the same examples, because no example's gold label is in its
    own fit. Not valid as the calibration of a prompt that ships (each fold has another), nor on test, where it would
    read gold labels that a served prompt never sees. Folds are dealt by label in the order of the hashes of `ids`, so
    the same examples always get the same folds. An example that shares a group with others leaks as much of them as
    k + 1 parameters hold.
    """
    found = np.array(scores, dtype=np.float64)
    order = sorted(range(len(ids)), key=lambda row: (int(gold[row]), content_id(["fold", ids[row]])))
    fold = np.empty(len(ids), dtype=np.int64)
    fold[order] = np.arange(len(ids)) % folds
    for number in range(folds):
        own = fold == number
        found[own] = calibrate(scores[own], fit_affine(scores[~own], gold[~own], labels))
    return found


def cross_fitted_choices(scores: Scores, gold: Indices, ids: Sequence[str], labels: Sequence[str]) -> Indices:
    """The best label [n] by `cross_fitted` scores; -1 for a row with NaN. Valid where `cross_fitted` is."""
    return choose(cross_fitted(scores, gold, ids, labels))


def _log_softmax(scores: Scores) -> Scores:
    from scipy.special import log_softmax

    return np.asarray(log_softmax(scores, axis=1), dtype=np.float64)


def _minimum(log_p: Scores, gold: Indices, l2: float) -> tuple[float, npt.NDArray[np.float64]]:
    """Scale and biases [k] of the smallest penalised loss on `log_p` [n, k], where all k labels occur in `gold` [n]."""
    from scipy.optimize import minimize
    from scipy.special import softmax

    n, k = log_p.shape
    weight = 1 / (k * np.bincount(gold, minlength=k)[gold])
    target = np.eye(k)[gold]

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        scale, bias = np.exp(parameters[0]), parameters[1:]
        shifted = scale * log_p + bias
        value = -float(weight @ (_log_softmax(shifted) * target).sum(axis=1)) + l2 / n * float(parameters @ parameters)
        slope = weight[:, None] * (softmax(shifted, axis=1) - target)
        gradient = np.concatenate([[scale * float((slope * log_p).sum())], slope.sum(axis=0)])
        return value, gradient + 2 * l2 / n * parameters

    limits = [(-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE)] + [(-_LARGEST_BIAS, _LARGEST_BIAS)] * k
    options = {"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8}
    found = minimize(loss, np.zeros(k + 1), jac=True, method="L-BFGS-B", bounds=limits, options=options).x
    return float(np.exp(found[0])), found[1:] - found[1:].mean()
