"""What a served version answered, set against what it answered when it was measured: has the traffic drifted?

Without gold labels only answers can be compared: their labels, their margins, and how many inputs got none. A test says
whether a difference is more than chance, an effect size whether it is large enough to matter; drift is both together,
or a million answers would make every difference drift.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Literal

import numpy as np
import numpy.typing as npt

from pld.errors import DataError
from pld.records import Interval, Prediction, Record, ServedAnswer, canonical_json

Verdict = Literal["drift", "no_drift", "too_few"]
WindowSize = Literal["hour", "day", "week"]

PSI_MODERATE, PSI_MAJOR = 0.1, 0.25
"""Usual bands of the population stability index: nothing of note below the first, a major shift from the second on."""
KS_MATTERS = 0.1
"""Greatest distance between the two distributions of margins, from which on it matters."""
UNANSWERED_MATTERS = 0.01
"""Difference of the shares of inputs without an answer, from which on it matters."""
POWER = 0.8
"""With which a major shift of the labels is to be seen before a log is long enough for `no_drift`."""

LABELS_TEST, MARGINS_TEST, UNANSWERED_TEST = "labels", "margins", "no answer"
_RESAMPLES = 9999
_TESTS = 3


class LabelShift(Record):
    """One label among the inputs that were answered; `measured` and `served` count inputs, `difference` is served
    less measured share."""

    label: str
    measured: int
    measured_share: float
    served: int
    served_share: Interval
    difference: float


class DriftTest(Record):
    """`p` as computed, `p_adjusted` after Holm over the tests made; `drift`: `p_adjusted` is below alpha and `effect`
    at least `matters_from`."""

    name: str
    method: str
    p: float
    p_adjusted: float
    effect_name: str
    effect: float
    matters_from: float
    drift: bool


class Window(Record):
    """Answers from `start` (UTC) on, for one hour, day or week: what to look at, not what to test."""

    start: str
    inputs: int
    psi: float
    unanswered_share: float
    median_margin: float | None


class MonitorReport(Record):
    """`lines` of the log are of this prompt, `other_prompts` counts the lines of others and `earlier` those before
    `since`. An input counts once: `inputs` are different ones, `repeats` the lines left out for that, `disagreeing` the
    inputs that were given different labels. `needed`: inputs without which `no_drift` is not said; None: no number
    would do with so small a test set."""

    prompt_sha256: str
    measured_on: int
    lines: int
    other_prompts: int
    earlier: int
    inputs: int
    repeats: int
    disagreeing: int
    unanswered: int
    since: str | None
    first: str | None
    last: str | None
    alpha: float
    labels: tuple[LabelShift, ...]
    tests: tuple[DriftTest, ...]
    needed: int | None
    verdict: Verdict
    windows: tuple[Window, ...] = ()

    def __str__(self) -> str:
        """The verdict as one sentence."""
        if self.verdict == "drift":
            return f"Drift: {'; '.join(self._told(test) for test in self.tests if test.drift)}."
        if self.verdict == "no_drift":
            return f"No drift seen in {self.inputs:,} inputs, against {self.measured_on:,} test examples."
        if self.needed is None:
            return (
                f"Too few to tell: with {self.measured_on:,} test examples no number of answers would show a major "
                "shift of the labels reliably; a larger test set would."
            )
        return (
            f"Too few to tell: {self.inputs:,} different inputs, and about {self.needed:,} are needed to see a major "
            f"shift of the labels (PSI {PSI_MAJOR}) four times in five."
        )

    def _told(self, test: DriftTest) -> str:
        p = "p < 0.001" if test.p_adjusted < 0.001 else f"p = {test.p_adjusted:.3f}"
        told = f"{test.name} ({test.effect_name} {test.effect:.3f}, {p})"
        if test.name != LABELS_TEST:
            return told
        moved = max(self.labels, key=lambda shift: abs(shift.difference))
        return f"{told}, most of all {moved.label} by {100 * moved.difference:+.1f} points"


def margin_of(scores: Sequence[float]) -> float:
    """Best log-score less the second, to the 6 decimals that predictions are kept in."""
    best = sorted((round(score, 6) for score in scores), reverse=True)
    return round(best[0] - best[1], 6)


def one_each(served: Iterable[ServedAnswer]) -> dict[str, list[ServedAnswer]]:
    """Input id → its answers, the latest first; ids in sorted order. The order of the log's lines changes nothing."""
    found: dict[str, list[ServedAnswer]] = {}
    for answer in served:
        found.setdefault(answer.id, []).append(answer)
    for answers in (answers for answers in found.values() if len(answers) > 1):
        answers.sort(key=lambda answer: (time_of(answer), canonical_json(answer.model_dump(mode="json"))), reverse=True)
    return dict(sorted(found.items()))


def time_of(answer: ServedAnswer) -> datetime:
    """Raises DataError for what is no ISO 8601 time."""
    try:
        at = datetime.fromisoformat(answer.at)
    except ValueError:
        raise DataError(
            f"serving log, input {answer.id}: wanted an ISO 8601 time as `at`, found {answer.at!r:.40}; mend the line"
        ) from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def check_labels(served: Iterable[ServedAnswer], labels: Sequence[str]) -> None:
    """Raises DataError for an answer that no version with these `labels` gave."""
    known = frozenset(labels)
    for answer in served:
        if answer.label is None:
            continue
        if answer.label not in known or len(answer.scores) != len(labels):
            raise DataError(
                f"serving log, input {answer.id}: wanted one of the labels {', '.join(labels)} with {len(labels)} "
                f"scores, found {answer.label!r:.60} with {len(answer.scores)}; is it the log of another task?"
            )


def monitor(
    served: Sequence[ServedAnswer],
    measured: Sequence[Prediction],
    labels: Sequence[str],
    prompt_sha256: str,
    *,
    alpha: float,
    since: datetime | None = None,
    window: WindowSize | None = None,
    seed: int = 0,
) -> MonitorReport:
    """Compare the lines of `served` that are of `prompt_sha256` with the predictions `measured` of the same prompt on
    the test set.

    Labels: Pearson's chi-squared of homogeneity, its null distribution from 9,999 random tables with the same margins
    (Patefield 1981), so that small counts do no harm; the effect is the population stability index. Margins: the
    two-sample Kolmogorov-Smirnov test and its distance. No answer: Fisher's exact test and the difference of the
    shares. Holm's correction over the tests made. Raises DataError for answers that no such version gave.
    """
    own = [answer for answer in served if answer.prompt_sha256 == prompt_sha256]
    check_labels(own, labels)
    recent = own if since is None else [answer for answer in own if time_of(answer) >= since]
    by_input = one_each(recent)
    answers = [answers[0] for answers in by_input.values()]
    now = _counts((answer.label for answer in answers), labels)
    then = _counts((row.predicted for row in measured), labels)
    margins = _margins(answer.scores for answer in answers if answer.label is not None)
    measured_margins = _margins(row.scores for row in measured if row.predicted is not None)
    missing, measured_missing = len(answers) - int(now.sum()), len(measured) - int(then.sum())
    tests = _tests(now, then, margins, measured_margins, missing, measured_missing, alpha, seed)
    needed = inputs_needed(then, alpha)
    times = sorted(time_of(answer) for answer in recent)
    verdict: Verdict = "no_drift"
    if any(test.drift for test in tests):
        verdict = "drift"
    elif needed is None or len(answers) < needed:
        verdict = "too_few"
    return MonitorReport(
        prompt_sha256=prompt_sha256,
        measured_on=len(measured),
        lines=len(own),
        other_prompts=len(served) - len(own),
        earlier=len(own) - len(recent),
        inputs=len(answers),
        repeats=len(recent) - len(answers),
        disagreeing=sum(len({answer.label for answer in answers}) > 1 for answers in by_input.values()),
        unanswered=missing,
        since=None if since is None else _shown(since),
        first=_shown(times[0]) if times else None,
        last=_shown(times[-1]) if times else None,
        alpha=alpha,
        labels=_shifts(labels, now, then),
        tests=tests,
        needed=needed,
        verdict=verdict,
        windows=() if window is None else _windows(recent, then, labels, window),
    )


Counts = npt.NDArray[np.int64]
Margins = npt.NDArray[np.float64]


def psi(now: Counts, then: Counts) -> float:
    """Population stability index of two counts [k] (Jeffreys divergence of the shares), half a count added to each cell
    so that an empty one does not make it infinite."""
    shares = [(counts + 0.5) / (counts.sum() + len(counts) / 2) for counts in (now, then)]
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def inputs_needed(then: Counts, alpha: float) -> int | None:
    """Different inputs with which a shift of the labels of PSI_MAJOR is seen with probability POWER, against test
    answers with the counts `then` [k]; None where the test set is too small for any number.

    From the noncentral chi-squared: for small shifts the statistic's noncentrality is PSI · n m / (n + m).
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, ncx2

    measured, freedom = int(then.sum()), max(len(then) - 1, 1)
    critical = chi2.isf(alpha / _TESTS, freedom)  # Holm's strictest
    noncentrality = brentq(lambda value: ncx2.sf(critical, freedom, value) - POWER, 1e-6, 1e4)
    spare = PSI_MAJOR * measured - noncentrality
    return int(np.ceil(noncentrality * measured / spare)) if spare > 0 else None


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order of `values`."""
    adjusted = [0.0] * len(values)
    highest = 0.0
    for place, at in enumerate(sorted(range(len(values)), key=lambda at: values[at])):
        highest = max(highest, min(1.0, values[at] * (len(values) - place)))
        adjusted[at] = highest
    return adjusted


def _tests(
    now: Counts,
    then: Counts,
    margins: Margins,
    measured_margins: Margins,
    missing: int,
    measured_missing: int,
    alpha: float,
    seed: int,
) -> tuple[DriftTest, ...]:
    """Those that there are answers for."""
    from scipy.stats import fisher_exact, ks_2samp

    found: list[tuple[str, str, float, str, float, float]] = []
    if now.sum() and then.sum():
        p = _homogeneity(now, then, seed)
        method = f"chi-squared, {_RESAMPLES:,} random tables"
        found.append((LABELS_TEST, method, p, "PSI", psi(now, then), PSI_MODERATE))
        ks = ks_2samp(margins, measured_margins)
        found.append((MARGINS_TEST, "Kolmogorov-Smirnov", float(ks.pvalue), "D", float(ks.statistic), KS_MATTERS))
    answered = [int(now.sum()), int(then.sum())]
    if answered[0] + missing and answered[1] + measured_missing:
        p = float(fisher_exact([[missing, answered[0]], [measured_missing, answered[1]]])[1])
        change = missing / (answered[0] + missing) - measured_missing / (answered[1] + measured_missing)
        found.append((UNANSWERED_TEST, "Fisher's exact", p, "change", change, UNANSWERED_MATTERS))
    adjusted = holm([min(item[2], 1.0) for item in found])
    return tuple(
        DriftTest(
            name=name,
            method=method,
            p=min(p, 1.0),
            p_adjusted=held,
            effect_name=effect_name,
            effect=effect,
            matters_from=matters_from,
            drift=held < alpha and abs(effect) >= matters_from,
        )
        for (name, method, p, effect_name, effect, matters_from), held in zip(found, adjusted, strict=True)
    )


def _homogeneity(now: Counts, then: Counts, seed: int) -> float:
    from scipy.stats import random_table

    table = np.stack([now, then])[:, (now + then) > 0]  # (2, k)
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    expected = np.outer(rows, columns) / table.sum()
    drawn = random_table(rows, columns).rvs(size=_RESAMPLES, random_state=np.random.default_rng(seed))

    def statistic(tables: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(((tables - expected) ** 2 / expected).sum(axis=(-2, -1)))

    as_extreme = statistic(drawn) >= statistic(table.astype(np.float64)) - 1e-9
    return float((1 + as_extreme.sum()) / (1 + _RESAMPLES))


def _counts(labels_given: Iterable[str | None], labels: Sequence[str]) -> Counts:
    """[k]; what has no label is left out."""
    counted = Counter(labels_given)
    return np.array([counted[label] for label in labels], dtype=np.int64)


def _margins(scores: Iterable[Sequence[float]]) -> Margins:
    return np.array([margin_of(row) for row in scores], dtype=np.float64)


def _shifts(labels: Sequence[str], now: Counts, then: Counts) -> tuple[LabelShift, ...]:
    served, measured = int(now.sum()), int(then.sum())
    shifts = []
    for label, own, before in zip(labels, now.tolist(), then.tolist(), strict=True):
        share, before_share = own / max(served, 1), before / max(measured, 1)
        shifts.append(
            LabelShift(
                label=label,
                measured=before,
                measured_share=before_share,
                served=own,
                served_share=_wilson(own, served),
                difference=share - before_share if served else 0.0,
            )
        )
    return tuple(shifts)


def _wilson(count: int, of: int) -> Interval:
    from scipy.stats import binomtest

    if not of:
        return Interval(value=0.0, low=0.0, high=1.0)
    bounds = binomtest(count, of).proportion_ci(0.95, method="wilson")
    return Interval(value=count / of, low=float(bounds.low), high=float(bounds.high))


def _windows(
    answers: Sequence[ServedAnswer], then: Counts, labels: Sequence[str], size: WindowSize
) -> tuple[Window, ...]:
    """An input counts once in each window."""
    placed = sorted(((_start(time_of(answer), size), answer) for answer in answers), key=lambda item: item[0])
    windows = []
    for start, items in groupby(placed, key=lambda item: item[0]):
        own = [answers[0] for answers in one_each(answer for _, answer in items).values()]
        margins = _margins(answer.scores for answer in own if answer.label is not None)
        windows.append(
            Window(
                start=start,
                inputs=len(own),
                psi=psi(_counts((answer.label for answer in own), labels), then),
                unanswered_share=sum(answer.label is None for answer in own) / len(own),
                median_margin=float(np.median(margins)) if len(margins) else None,
            )
        )
    return tuple(windows)


def _start(at: datetime, size: WindowSize) -> str:
    if size == "hour":
        return at.strftime("%Y-%m-%dT%H:00Z")
    day = at.date() - timedelta(days=at.weekday() if size == "week" else 0)
    return day.isoformat()


def _shown(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds")
