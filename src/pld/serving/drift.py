"""Compares what a version answered in serving with what it answered on the test set: has the traffic drifted?

Without gold labels only answers can be compared: their labels, their margins, and how many inputs got none. Drift is a
difference that is both significant and large enough to matter: with a million answers, every difference is significant.
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
"""Usual bands of the population stability index: negligible below the first, a major shift from the second on."""
KS_MATTERS = 0.1
"""Kolmogorov-Smirnov distance between the two distributions of margins from which it matters."""
UNANSWERED_MATTERS = 0.01
"""Difference of the shares of inputs without an answer from which it matters."""
POWER = 0.8
"""With which a log must show a major shift of the labels before it is long enough for `no_drift`."""

LABELS_TEST, MARGINS_TEST, UNANSWERED_TEST = "labels", "margins", "no answer"
_RESAMPLES = 9999
_TESTS = 3


class LabelShift(Record):
    """One label among the answered inputs; `measured` and `served` count inputs, `difference` is the served share minus
    the measured one."""

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
    """Answers of one hour, day or week from `start` (UTC); descriptive, not tested."""

    start: str
    inputs: int
    psi: float
    unanswered_share: float
    median_margin: float | None


class MonitorReport(Record):
    """`lines` of the log are of this prompt, `other_prompts` counts the lines of others and `earlier` those before
    `since`. An input counts once: `inputs` are distinct, `repeats` the lines left out for that, `disagreeing` the
    inputs that got different labels. `needed`: how many inputs `no_drift` requires; None: the test set is too small for
    any number."""

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
            return f"Drift: {'; '.join(self._words(test) for test in self.tests if test.drift)}."
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

    def _words(self, test: DriftTest) -> str:
        p = "p < 0.001" if test.p_adjusted < 0.001 else f"p = {test.p_adjusted:.3f}"
        words = f"{test.name} ({test.effect_name} {test.effect:.3f}, {p})"
        if test.name != LABELS_TEST:
            return words
        moved = max(self.labels, key=lambda shift: abs(shift.difference))
        return f"{words}, most of all {moved.label} by {100 * moved.difference:+.1f} points"


def margin_of(scores: Sequence[float]) -> float:
    """Best log-score minus the second, to the 6 decimals of stored predictions."""
    best = sorted((round(score, 6) for score in scores), reverse=True)
    return round(best[0] - best[1], 6)


def one_each(served: Iterable[ServedAnswer]) -> dict[str, list[ServedAnswer]]:
    """Input id → its answers, the latest first; ids are sorted. The order of the log's lines does not matter."""
    found: dict[str, list[ServedAnswer]] = {}
    for answer in served:
        found.setdefault(answer.id, []).append(answer)
    for answers in (answers for answers in found.values() if len(answers) > 1):
        answers.sort(key=lambda answer: (time_of(answer), canonical_json(answer.model_dump(mode="json"))), reverse=True)
    return dict(sorted(found.items()))


def time_of(answer: ServedAnswer) -> datetime:
    """Raises DataError unless it is an ISO 8601 time."""
    try:
        at = datetime.fromisoformat(answer.at)
    except ValueError:
        raise DataError(
            f"expected an ISO 8601 time as `at`, got {answer.at!r:.40} (serving log, input {answer.id}); fix the line"
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
                f"expected one of the labels {', '.join(labels)} with {len(labels)} scores, got "
                f"{answer.label!r:.60} with {len(answer.scores)} (serving log, input {answer.id}); is it the log of "
                "another task?"
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
    """Compare the answers in `served` of the prompt `prompt_sha256` with its predictions `measured` on the test set.

    Labels: Pearson's chi-squared test of homogeneity, with a null distribution of 9,999 random tables with the same
    margins (Patefield 1981), which small counts don't distort; the effect is the population stability index. Margins:
    the two-sample Kolmogorov-Smirnov test and its distance. No answer: Fisher's exact test and the difference of the
    shares. Holm's correction over the tests made. Raises DataError for answers with other labels.
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
    """Population stability index of two counts [k] (Jeffreys divergence of the shares), with half a count added to each
    cell so that an empty one does not make it infinite."""
    shares = [(counts + 0.5) / (counts.sum() + len(counts) / 2) for counts in (now, then)]
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def inputs_needed(then: Counts, alpha: float) -> int | None:
    """Distinct inputs that show a label shift of PSI_MAJOR with probability POWER, against test answers with the counts
    `then` [k]; None where the test set is too small for any number.

    From the noncentral chi-squared: for small shifts the statistic's noncentrality is PSI · n m / (n + m).
    """
    from scipy.special import chndtrinc
    from scipy.stats import chi2

    measured, freedom = int(then.sum()), max(len(then) - 1, 1)
    critical = chi2.isf(alpha / _TESTS, freedom)  # Holm's strictest
    noncentrality = chndtrinc(critical, freedom, 1 - POWER)
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
    measured: Margins,
    missing: int,
    measured_missing: int,
    alpha: float,
    seed: int,
) -> tuple[DriftTest, ...]:
    """Those for which there are answers."""
    from scipy.stats import fisher_exact, ks_2samp

    found: list[DriftTest] = []

    def add(name: str, method: str, p: float, effect_name: str, effect: float, matters_from: float) -> None:
        found.append(
            DriftTest(
                name=name, method=method, p=min(p, 1.0), p_adjusted=1.0, effect_name=effect_name, effect=effect,
                matters_from=matters_from, drift=False,
            )
        )  # fmt: skip

    if now.sum() and then.sum():
        method = f"chi-squared, {_RESAMPLES:,} random tables"
        add(LABELS_TEST, method, _homogeneity(now, then, seed), "PSI", psi(now, then), PSI_MODERATE)
        ks = ks_2samp(margins, measured)
        add(MARGINS_TEST, "Kolmogorov-Smirnov", float(ks.pvalue), "D", float(ks.statistic), KS_MATTERS)
    inputs, measured_inputs = int(now.sum()) + missing, int(then.sum()) + measured_missing
    if inputs and measured_inputs:
        p = fisher_exact([[missing, inputs - missing], [measured_missing, measured_inputs - measured_missing]])[1]
        change = missing / inputs - measured_missing / measured_inputs
        add(UNANSWERED_TEST, "Fisher's exact", float(p), "change", change, UNANSWERED_MATTERS)
    adjusted = holm([test.p for test in found])
    return tuple(
        test.model_copy(update={"p_adjusted": p, "drift": p < alpha and abs(test.effect) >= test.matters_from})
        for test, p in zip(found, adjusted, strict=True)
    )


def _homogeneity(now: Counts, then: Counts, seed: int) -> float:
    from scipy.stats import MonteCarloMethod, chi2_contingency

    table = np.stack([now, then])[:, (now + then) > 0]  # (2, k)
    method = MonteCarloMethod(n_resamples=_RESAMPLES, rng=np.random.default_rng(seed))
    return float(chi2_contingency(table, correction=False, method=method).pvalue)


def _counts(labels_given: Iterable[str | None], labels: Sequence[str]) -> Counts:
    """Counts [k] of the answered labels."""
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
