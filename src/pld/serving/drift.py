"""Compares what a version answered in serving with what it answered on the test set: has the traffic drifted?

Without gold labels only answers can be compared: their labels, their margins, and how many inputs got none. Drift is a
difference that is both significant and large enough to matter: with a million answers, every difference is significant.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt

from pld.errors import DataError
from pld.records import Prediction, Record, ServedAnswer, canonical_json
from pld.reports import Interval

Verdict = Literal["drift", "no_drift", "too_few"]
WindowSize = Literal["hour", "day", "week"]

PSI_MODERATE, PSI_MAJOR = 0.1, 0.25
"""Usual bands of the population stability index: negligible below the first, a major shift from the second on."""
KS_MATTERS = 0.1
"""Kolmogorov-Smirnov distance between the two distributions of margins from which it matters."""
UNANSWERED_MATTERS = 0.01
"""Difference of the shares of inputs without an answer from which it matters."""
POWER = 0.8
"""Power to detect a major shift of the labels that `no_drift` requires."""

LABELS_TEST, MARGINS_TEST, UNANSWERED_TEST = "labels", "margins", "no answer"
_RESAMPLES = 9999
# test → its method, its effect, and the effect from which it matters
_METHODS = {
    LABELS_TEST: (f"chi-squared, {_RESAMPLES:,} random tables", "PSI", PSI_MODERATE),
    MARGINS_TEST: ("Kolmogorov-Smirnov", "D", KS_MATTERS),
    UNANSWERED_TEST: ("Fisher's exact", "change", UNANSWERED_MATTERS),
}


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
    """Answers of one hour, day or week from `start` (UTC), for description only."""

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
    for answer in served:
        if answer.label is not None and (answer.label not in labels or len(answer.scores) != len(labels)):
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
    now = _latest(by_input, labels)
    then = _summary(((row.predicted, row.scores) for row in measured), labels)
    tests = _tests(now, then, alpha, seed)
    needed = inputs_needed(then.counts, alpha)
    times = sorted(time_of(answer) for answer in recent)
    verdict: Verdict = "no_drift"
    if any(test.drift for test in tests):
        verdict = "drift"
    elif needed is None or now.n < needed:
        verdict = "too_few"
    return MonitorReport(
        prompt_sha256=prompt_sha256,
        measured_on=len(measured),
        lines=len(own),
        other_prompts=len(served) - len(own),
        earlier=len(own) - len(recent),
        inputs=now.n,
        repeats=len(recent) - now.n,
        disagreeing=sum(len({answer.label for answer in answers}) > 1 for answers in by_input.values()),
        unanswered=now.unanswered,
        since=None if since is None else _shown(since),
        first=_shown(times[0]) if times else None,
        last=_shown(times[-1]) if times else None,
        alpha=alpha,
        labels=tuple(_shift(label, at, now, then) for at, label in enumerate(labels)),
        tests=tests,
        needed=needed,
        verdict=verdict,
        windows=() if window is None else _windows(recent, then.counts, labels, window),
    )


Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Answers:
    """`counts` [k] of the labels of `n` inputs, `unanswered` of which got none, and the `margins` of the others."""

    n: int
    counts: Counts
    margins: npt.NDArray[np.float64]

    @property
    def unanswered(self) -> int:
        return self.n - len(self.margins)


def _summary(answers: Iterable[tuple[str | None, Sequence[float]]], labels: Sequence[str]) -> _Answers:
    given = list(answers)
    margins = [margin_of(scores) for label, scores in given if label is not None]
    counted = Counter(label for label, _ in given)
    return _Answers(len(given), np.array([counted[label] for label in labels]), np.array(margins))


def _latest(by_input: Mapping[str, Sequence[ServedAnswer]], labels: Sequence[str]) -> _Answers:
    return _summary(((answers[0].label, answers[0].scores) for answers in by_input.values()), labels)


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
    critical = chi2.isf(alpha / len(_METHODS), freedom)  # Holm's strictest
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


def _tests(now: _Answers, then: _Answers, alpha: float, seed: int) -> tuple[DriftTest, ...]:
    """The tests that have answers on both sides."""
    from scipy.stats import fisher_exact, ks_2samp

    found: dict[str, tuple[float, float]] = {}  # p and effect
    if len(now.margins) and len(then.margins):
        found[LABELS_TEST] = (_homogeneity(now.counts, then.counts, seed), psi(now.counts, then.counts))
        ks = ks_2samp(now.margins, then.margins)
        found[MARGINS_TEST] = (float(ks.pvalue), float(ks.statistic))
    if now.n and then.n:
        p = fisher_exact([[side.unanswered, side.n - side.unanswered] for side in (now, then)])[1]
        found[UNANSWERED_TEST] = (float(p), now.unanswered / now.n - then.unanswered / then.n)
    tests = []
    for (name, (p, effect)), p_adjusted in zip(found.items(), holm([p for p, _ in found.values()]), strict=True):
        method, effect_name, least = _METHODS[name]
        drift = p_adjusted < alpha and abs(effect) >= least
        tests.append(
            DriftTest(
                name=name, method=method, p=min(p, 1.0), p_adjusted=p_adjusted, effect_name=effect_name, effect=effect,
                matters_from=least, drift=drift,
            )
        )  # fmt: skip
    return tuple(tests)


def _homogeneity(now: Counts, then: Counts, seed: int) -> float:
    from scipy.stats import MonteCarloMethod, chi2_contingency

    table = np.stack([now, then])[:, (now + then) > 0]  # (2, k)
    method = MonteCarloMethod(n_resamples=_RESAMPLES, rng=np.random.default_rng(seed))
    return float(chi2_contingency(table, correction=False, method=method).pvalue)


def _shift(label: str, at: int, now: _Answers, then: _Answers) -> LabelShift:
    from scipy.stats import binomtest

    served, measured = int(now.counts[at]), int(then.counts[at])
    answered = len(now.margins)
    share, measured_share = served / max(answered, 1), measured / max(len(then.margins), 1)
    interval = Interval(value=0.0, low=0.0, high=1.0)
    if answered:
        bounds = binomtest(served, answered).proportion_ci(0.95, method="wilson")
        interval = Interval(value=share, low=float(bounds.low), high=float(bounds.high))
    return LabelShift(
        label=label,
        measured=measured,
        measured_share=measured_share,
        served=served,
        served_share=interval,
        difference=share - measured_share if answered else 0.0,
    )


def _windows(
    answers: Iterable[ServedAnswer], then: Counts, labels: Sequence[str], size: WindowSize
) -> tuple[Window, ...]:
    """An input counts once in each window."""
    placed: dict[str, list[ServedAnswer]] = {}
    for answer in answers:
        placed.setdefault(_start(time_of(answer), size), []).append(answer)
    windows = []
    for start, own in sorted(placed.items()):
        now = _latest(one_each(own), labels)
        windows.append(
            Window(
                start=start,
                inputs=now.n,
                psi=psi(now.counts, then),
                unanswered_share=now.unanswered / now.n,
                median_margin=float(np.median(now.margins)) if len(now.margins) else None,
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
