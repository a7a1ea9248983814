"""Predictions, and figures with bootstrap intervals (definitions in docs/reference/statistics.md)."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pld.ports import Scores
from pld.records import Example, Prediction
from pld.reports import Comparison, Interval, LabelScore, SystemReport

Indices = npt.NDArray[np.int64]
"""Per example an index into the declared labels; -1: unparsable."""

_CHUNK = 4_000_000  # resample weights held at once: 32 MB


def choose(scores: Scores) -> Indices:
    """The best label per row of `scores` [n, k], ties by declared order; -1 for a row with NaN."""
    unparsable = np.asarray(np.isnan(scores).any(axis=1))
    best = np.argmax(np.where(unparsable[:, None], -np.inf, scores), axis=1)
    return np.where(unparsable, -1, best).astype(np.int64)


def predictions(examples: Sequence[Example], system: str, scores: Scores, labels: Sequence[str]) -> list[Prediction]:
    """One record per example; `scores` [n, k] are stored rounded to 6 decimals."""
    return [
        Prediction(
            example_id=example.id,
            system=system,
            label=example.label,
            predicted=labels[best] if best >= 0 else None,
            scores=tuple(round(float(score), 6) for score in row) if best >= 0 else (),
        )
        for example, row, best in zip(examples, scores, choose(scores), strict=True)
    ]


def indices(values: Sequence[str | None], labels: Sequence[str]) -> Indices:
    """Labels → indices into the declared labels; None → -1."""
    place = {label: i for i, label in enumerate(labels)}
    return np.array([-1 if value is None else place[value] for value in values], dtype=np.int64)


def system_report(
    gold: Indices,
    predicted: Indices,
    labels: Sequence[str],
    groups: Sequence[str] | None,
    resamples: int,
    seed: int,
    prompt_tokens: int,
) -> SystemReport:
    """All figures of one system; macro-F1 is the unweighted mean over the declared labels, an absent one counts 0.
    Intervals: 95 % percentile bootstrap over examples, over `groups` if given."""
    k = len(labels)
    cells = _cells(gold, predicted, k)  # (n, k * (k + 1))
    counts = cells.sum(axis=0, keepdims=True)
    drawn = _resampled(cells, groups, resamples, seed)
    recall, precision, f1 = _per_label(counts, k)
    confusion = counts.reshape(k, k + 1)[:, :k]
    return SystemReport(
        macro_f1=interval(float(_macro_f1(counts, k)[0]), _macro_f1(drawn, k)),
        accuracy=interval(float(_accuracy(counts, k)[0]), _accuracy(drawn, k)),
        per_label={
            label: LabelScore(
                precision=float(precision[0, i]),
                recall=float(recall[0, i]),
                f1=float(f1[0, i]),
                support=int(counts.reshape(k, k + 1)[i].sum()),
            )
            for i, label in enumerate(labels)
        },
        confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
        unparsable=int((predicted < 0).sum()),
        n=len(gold),
        prompt_tokens=prompt_tokens,
    )


def compare(
    a: str,
    b: str,
    gold: Sequence[int] | Indices,
    predicted_a: Sequence[int] | Indices,
    predicted_b: Sequence[int] | Indices,
    n_labels: int,
    groups: Sequence[str] | None,
    resamples: int,
    seed: int,
) -> Comparison:
    """`a` minus `b` on the same examples: paired bootstrap (the same resamples for both) of the macro-F1 difference,
    and McNemar's exact test on the examples that only one of them gets right."""
    from scipy.stats import binomtest

    gold, predicted_a, predicted_b = (np.asarray(x, dtype=np.int64) for x in (gold, predicted_a, predicted_b))
    gain, drawn = paired_gains(gold, predicted_a, predicted_b, n_labels, groups, resamples, seed)
    right_a, right_b = predicted_a == gold, predicted_b == gold
    fixed, broken = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = float(binomtest(min(fixed, broken), fixed + broken, 0.5).pvalue) if fixed + broken else 1.0
    delta = interval(gain, drawn)
    return Comparison(a=a, b=b, macro_f1_delta=delta, fixed=fixed, broken=broken, mcnemar_p=p)


def paired_gains(
    gold: Indices,
    predicted_a: Indices,
    predicted_b: Indices,
    n_labels: int,
    groups: Sequence[str] | None,
    resamples: int,
    seed: int,
) -> tuple[float, npt.NDArray[np.float64]]:
    """Macro-F1 of `a` minus that of `b` on the same examples, and on each resample [resamples]."""
    both = np.hstack([_cells(gold, predicted_a, n_labels), _cells(gold, predicted_b, n_labels)])
    width = both.shape[1] // 2

    def delta(counts: Indices) -> npt.NDArray[np.float64]:
        return _macro_f1(counts[:, :width], n_labels) - _macro_f1(counts[:, width:], n_labels)

    return float(delta(both.sum(axis=0, keepdims=True))[0]), delta(_resampled(both, groups, resamples, seed))


def macro_f1(gold: Indices, predicted: Indices, n_labels: int) -> float:
    """Unweighted mean over the declared labels, an absent label counts 0."""
    return float(_macro_f1(_cells(gold, predicted, n_labels).sum(axis=0, keepdims=True), n_labels)[0])


def label_scores(
    gold: Indices, predicted: Indices, n_labels: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Recall and F1 of each label, each [n_labels]; 0 for 0/0."""
    recall, _, f1 = _per_label(_cells(gold, predicted, n_labels).sum(axis=0, keepdims=True), n_labels)
    return recall[0], f1[0]


def interval(value: float, drawn: npt.NDArray[np.float64]) -> Interval:
    """`value` with the 95 % percentile interval of its resamples."""
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(value=value, low=float(low), high=float(high))


def _cells(gold: Indices, predicted: Indices, k: int) -> Indices:
    """One-hot confusion cell per example: [n, k * (k + 1)]; the last column of a row counts unparsable answers."""
    cells = np.zeros((len(gold), k * (k + 1)), dtype=np.int64)
    cells[np.arange(len(gold)), gold * (k + 1) + np.where(predicted < 0, k, predicted)] = 1
    return cells


def _resampled(cells: Indices, groups: Sequence[str] | None, resamples: int, seed: int) -> Indices:
    """Confusion counts [resamples, cells] of bootstrap samples of examples, or of whole groups."""
    if groups is not None:
        _, place = np.unique(np.asarray(groups), return_inverse=True)
        summed = np.zeros((int(place.max()) + 1, cells.shape[1]), dtype=np.int64)
        np.add.at(summed, place, cells)
        cells = summed
    units = len(cells)
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK // units)
    shares = np.full(units, 1 / units)
    drawn = [
        generator.multinomial(units, shares, size=min(rows, resamples - start)) @ cells
        for start in range(0, resamples, rows)
    ]
    return np.vstack(drawn)


def _per_label(
    counts: Indices, k: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Confusion counts [r, k * (k + 1)] → recall, precision, F1, each [r, k]; 0 for 0/0."""
    table = counts.reshape(-1, k, k + 1).astype(np.float64)
    hit = np.einsum("rii->ri", table[:, :, :k])
    gold, said = table.sum(axis=2), table[:, :, :k].sum(axis=1)

    def ratio(part: npt.NDArray[np.float64], whole: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

    return ratio(hit, gold), ratio(hit, said), ratio(2 * hit, gold + said)


def _macro_f1(counts: Indices, k: int) -> npt.NDArray[np.float64]:
    return np.asarray(_per_label(counts, k)[2].mean(axis=1))


def _accuracy(counts: Indices, k: int) -> npt.NDArray[np.float64]:
    table = counts.reshape(-1, k, k + 1)
    return np.asarray(np.einsum("rii->r", table[:, :, :k]) / table.sum(axis=(1, 2)))
