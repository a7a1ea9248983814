"""Search over prompts: measure a trial for every point of a study, then choose the winner among the best few, measured
again at the reporting precision."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pld.distill.cluster import ChoosesBySize
from pld.distill.trial import Draft, Material, Outcome, draft, measure, objective, trial_id
from pld.errors import DistillError
from pld.params import Config, Scalar
from pld.ports import Clusterer, OnProgress, Student, Teacher, Vectors
from pld.records import Prediction, Record, TrialReport, canonical_json

Settings = Mapping[str, Scalar]
DRAW = "clustering.draw"


@dataclass(frozen=True)
class Result:
    """A finished trial as the study stores it: a report with its predictions, or an error."""

    settings: Settings
    report: TrialReport | None
    predictions: tuple[Prediction, ...]
    error: str | None

    @property
    def trial_id(self) -> str:
        return trial_id(self.settings)


class Study(Protocol):
    """The points to try, possibly shared with other workers."""

    def run(self, trial: Callable[[Settings], Result]) -> None:
        """Call `trial` for one point after the other until the study is complete."""
        ...

    def results(self) -> list[Result]:
        """All finished trials, including those of other workers, one per trial id."""
        ...


@dataclass(frozen=True)
class Swept:
    """`results`: best first, failed ones last; `finalists`: at the reporting precision, best (the winner) first."""

    results: list[Result]
    drafts: Mapping[str, Draft]
    finalists: list[Outcome]


@dataclass
class TrialRunner:
    """Runs trials that share models, vectors, clusterings and answers."""

    configured: Callable[[Settings], Config]
    build_clusterer: Callable[[Config], Clusterer]
    material: Material
    student: Student
    teacher: Teacher | None

    def __post_init__(self) -> None:
        self._clusterers: dict[str, Clusterer] = {}
        self._drafts: dict[str, Draft] = {}
        self._measured: dict[str, Outcome] = {}

    def draft(self, settings: Settings) -> Draft:
        identity = trial_id(settings)
        if identity not in self._drafts:
            config = self.configured(settings)
            key = canonical_json(config.clusterer)
            if key not in self._clusterers:
                self._clusterers[key] = _CachedClusterer(self.build_clusterer(config))
            self._drafts[identity] = draft(config, self.material, self._clusterers[key], self.student, self.teacher)
        return self._drafts[identity]

    def search(self, settings: Settings, student: Student, on_progress: OnProgress | None) -> Result:
        """One trial at the precision for searching; a prompt is measured only once."""
        try:
            drafted = self.draft(settings)
        except DistillError as error:
            return Result(settings, None, (), str(error))
        known = self._measured.get(drafted.prompt.sha256)
        if known is None:
            known = measure(self.configured(settings), settings, drafted, self.material, student, on_progress)
            self._measured[drafted.prompt.sha256] = known
        identity = trial_id(settings)
        report = known.report.model_copy(
            update={
                "trial_id": identity,
                "settings": dict(settings),
                "clusters": sum(not cluster.noise for cluster in drafted.clustering.clusters),
                "noise_share": drafted.clustering.noise_share,
                "by_size": dict(drafted.clustering.by_size),
            }
        )
        answers = tuple(item.model_copy(update={"system": identity}) for item in known.predictions)
        return Result(settings, report, answers, None)

    def final(self, settings: Settings, on_progress: OnProgress | None) -> Outcome:
        """A finalist at the reporting precision, with its calibration."""
        config = self.configured(settings)
        return measure(
            config, settings, self.draft(settings), self.material, self.student, on_progress, always_calibrated=True
        )


def sweep(study: Study, runner: TrialRunner, finalists: int, on_progress: OnProgress | None = None) -> Swept:
    """Try all points of `study`, then measure the best `finalists` again and rank them by the objective.

    `on_progress` counts answered validation examples. Raises DistillError when every trial failed.
    """
    searching = runner.student.for_search()
    study.run(lambda settings: runner.search(settings, searching, on_progress))
    results = sorted(study.results(), key=_rank)
    reports = [result.report for result in results if result.report is not None]
    if not reports:
        raise DistillError(f"all {len(results)} trials of the sweep failed; the first one: {results[0].error}")
    best = [runner.final(report.settings, on_progress) for report in _different(reports, runner)[:finalists]]
    drafts = {result.trial_id: runner.draft(result.settings) for result in results if result.report is not None}
    return Swept(results, drafts, sorted(best, key=lambda outcome: objective(outcome.report)))


class BestOfDraw(Record):
    """The best trial with the rules of one draw (None: of all draws), by macro-F1 on validation at the precision for
    searching; None when all of them failed."""

    draw: int | None
    trial_id: str | None
    macro_f1: float | None


class DrawSpread(Record):
    """artifacts/best/draws.json. `spread`: macro-F1 of the best draw minus that of the worst (None with fewer than
    two)."""

    draws: tuple[BestOfDraw, ...]
    spread: float | None

    def __str__(self) -> str:
        by_draw = ", ".join(
            f"{'all together' if item.draw is None else item.draw} "
            f"{'failed' if item.macro_f1 is None else f'{item.macro_f1:.3f}'}"
            for item in self.draws
        )
        spread = "" if self.spread is None else f"; the single draws are {self.spread:.3f} apart"
        return f"best macro-F1 on validation by draw: {by_draw}{spread}"


def draw_spread(results: Sequence[Result]) -> DrawSpread | None:
    """The effect of the draw, from `results` sorted best first; None when the sweep does not search over draws."""
    best: dict[int | None, BestOfDraw] = {}
    for result in results:
        if DRAW not in result.settings:
            return None
        draw = result.settings[DRAW]
        assert draw is None or isinstance(draw, int)  # checked with the rest of the settings
        if draw not in best:
            trial = result.report
            best[draw] = BestOfDraw(
                draw=draw,
                trial_id=trial.trial_id if trial else None,
                macro_f1=trial.report.macro_f1.value if trial else None,
            )
    draws = sorted(best.values(), key=lambda item: -1 if item.draw is None else item.draw)
    single = [item.macro_f1 for item in draws if item.draw is not None and item.macro_f1 is not None]
    return DrawSpread(draws=tuple(draws), spread=max(single) - min(single) if len(single) > 1 else None)


def _rank(result: Result) -> tuple[bool, tuple[float, int, str], str]:
    if result.report is None:
        return (True, (0.0, 0, ""), result.trial_id)
    return (False, objective(result.report), result.trial_id)


def _different(reports: Sequence[TrialReport], runner: TrialRunner) -> list[TrialReport]:
    """The first trial of each distinct prompt."""
    found: dict[str, TrialReport] = {}
    for report in reports:
        found.setdefault(runner.draft(report.settings).prompt.sha256, report)
    return list(found.values())


class _CachedClusterer:
    """Caches a clusterer's result per set of vectors: trials differ in the rules that they cluster."""

    def __init__(self, clusterer: Clusterer) -> None:
        self._clusterer = clusterer
        self._found: dict[bytes, npt.NDArray[np.int64]] = {}

    def cluster(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        key = hashlib.sha256(np.ascontiguousarray(vectors).data).digest()
        if key not in self._found:
            self._found[key] = self._clusterer.cluster(vectors)
        return self._found[key]

    def by_size(self, rows: int) -> Mapping[str, int | str]:
        return self._clusterer.by_size(rows) if isinstance(self._clusterer, ChoosesBySize) else {}
