"""Search over prompts: measure a trial for every point, on as much of validation as the sampler wants, then choose the
winner among the best few at the reporting precision."""

import functools
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pld.calibration import calibrate
from pld.distill.calibrating import calibration_parts, fitted
from pld.distill.cluster import ChoosesBySize, MeasuresStability
from pld.distill.race import Entrant, compare_with_leader, nested_parts, part_sizes, race, simplest
from pld.distill.trial import (
    Draft,
    Material,
    Outcome,
    comparable,
    draft,
    measure,
    objective,
    score_examples,
    trial_id,
)
from pld.errors import DistillError
from pld.metrics import Indices, choose
from pld.params import Config, Scalar, SweepParams
from pld.ports import Clusterer, OnProgress, Scores, Student, Teacher, Vectors
from pld.records import Example, Message, Messages, Prediction, Record, canonical_json
from pld.reports import Standing, TrialReport

Settings = Mapping[str, Scalar]
DRAW = "clustering.draw"


@dataclass(frozen=True)
class Result:
    """A finished trial as the study stores it: a report with its predictions, or an error. `asked`: answers that the
    Student gave for it (0 where another trial with the same prompt had them)."""

    settings: Settings
    report: TrialReport | None
    predictions: tuple[Prediction, ...]
    error: str | None
    asked: int = 0

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
    """`results`: those that answered most of validation first, among these the best, failed ones last; `final`: trial
    id of each finalist → its macro-F1 on all of validation at the reporting precision."""

    results: list[Result]
    drafts: Mapping[str, Draft]
    final: Mapping[str, float]
    winner: Outcome


@dataclass
class TrialRunner:
    """Runs trials that share models, vectors, clusterings and answers. `on_progress` counts answers."""

    configured: Callable[[Settings], Config]
    build_clusterer: Callable[[Config], Clusterer]
    material: Material
    student: Student
    teacher: Teacher | None
    on_progress: OnProgress | None = None

    def __post_init__(self) -> None:
        self._clusterers: dict[str, Clusterer] = {}
        self._drafts: dict[str, Draft] = {}
        searching = self.student.for_search()
        self._searching = _Answers(searching, self.on_progress)
        self._reporting = self._searching if searching is self.student else _Answers(self.student, self.on_progress)

    @property
    def asked(self) -> int:
        """Answers that the Student gave so far, at either precision."""
        both = {id(answers): answers for answers in (self._searching, self._reporting)}
        return sum(answers.asked for answers in both.values())

    def draft(self, settings: Settings) -> Draft:
        identity = trial_id(settings)
        if identity not in self._drafts:
            config = self.configured(settings)
            key = canonical_json(config.clusterer)
            if key not in self._clusterers:
                self._clusterers[key] = CachedClusterer(self.build_clusterer(config))
            self._drafts[identity] = draft(config, self.material, self._clusterers[key], self.student, self.teacher)
        return self._drafts[identity]

    def search(self, settings: Settings, examples: Sequence[Example]) -> Result:
        """One trial on `examples` of validation at the precision for searching."""
        before = self.asked
        try:
            drafted = self.draft(settings)
        except DistillError as error:
            return Result(settings, None, (), str(error))
        config, scores = self.configured(settings), self._scores(settings, examples, self._searching)
        report, answers = measure(config, settings, drafted, examples, scores, self.tokens(settings))
        return Result(settings, report, tuple(answers), None, self.asked - before)

    def tokens(self, settings: Settings) -> int:
        return self.student.count_tokens(self.draft(settings).prompt.messages)

    def chosen(self, settings: Settings, examples: Sequence[Example], *, finally_: bool = False) -> Indices:
        """Labels [n] that the trial's prompt chooses for validation `examples` under the calibration that ships;
        `finally_`: at the reporting precision."""
        return choose(self._scores(settings, examples, self._reporting if finally_ else self._searching))

    def outcome(self, settings: Settings) -> Outcome:
        """The trial as it ships: on all of validation at the reporting precision, with its calibration."""
        config, drafted, material = self.configured(settings), self.draft(settings), self.material
        messages, explained = drafted.prompt.messages, {rule.example_id for rule in material.rules}
        parts = calibration_parts(config.task, config.calibration, messages, material.train.values(), explained)
        calibration = fitted(config.task, config.calibration, parts, functools.partial(self._reporting.scores, config))
        scores = self._reporting.scores(config, messages, material.validation)
        if config.calibration.method != "none":
            scores = calibrate(scores, calibration)
        report, answers = measure(config, settings, drafted, material.validation, scores, self.tokens(settings))
        return Outcome(drafted, report, answers, calibration)

    def _scores(self, settings: Settings, examples: Sequence[Example], answers: "_Answers") -> Scores:
        config = self.configured(settings)
        return comparable(config, answers.scores(config, self.draft(settings).prompt.messages, examples), examples)


def sweep(study: Study, runner: TrialRunner, finalists: int) -> Swept:
    """Try all points of `study` on all of validation and choose among the best `finalists`.

    Raises DistillError when every trial failed.
    """
    study.run(lambda settings: runner.search(settings, runner.material.validation))
    return _decided(study.results(), {}, runner, finalists)


def race_sweep(points: Iterable[Settings], runner: TrialRunner, params: SweepParams) -> Swept:
    """Race the prompts of `points`, in any order, then choose among the best `params.finalists`.

    Raises DistillError when every trial failed.
    """
    assert params.race is not None  # checked with the rest of the settings
    results, alike = [], defaultdict[str, list[Settings]](list)
    for settings in sorted(points, key=trial_id):
        try:
            alike[runner.draft(settings).prompt.sha256].append(settings)
        except DistillError as error:
            results.append(Result(settings, None, (), str(error)))
    # prompts that begin alike follow each other from short to long: the Student keeps the prefix that they share
    first = sorted((same[0] for same in alike.values()), key=lambda settings: _beginning(runner.draft(settings)))
    entrants = {_entrant(settings, runner): settings for settings in first}
    labels, validation = runner.configured({}).task.labels, runner.material.validation
    parts = nested_parts(validation, part_sizes(len(validation), len(labels), params.race), params.seed)
    asked: dict[str, int] = defaultdict(int)

    def answer(entrant: Entrant, part: Sequence[Example]) -> Indices:
        before = runner.asked
        chosen = runner.chosen(entrants[entrant], part)
        asked[entrant.key] += runner.asked - before
        return chosen

    bootstrap = runner.configured({}).evaluation
    standings = race(list(entrants), answer, parts, params.finalists, params.race, labels, bootstrap)
    reached: dict[str, Standing] = {}
    for entrant, settings in entrants.items():
        for same in alike[runner.draft(settings).prompt.sha256]:
            result = runner.search(same, parts[standings[entrant].rung - 1])
            results.append(replace(result, asked=asked.pop(result.trial_id, 0)))
            reached[result.trial_id] = standings[entrant]
    return _decided(results, reached, runner, params.finalists)


def grid(params: SweepParams) -> list[Settings]:
    """All points of the space."""
    space = {f"{section}.{key}": values for section, found in params.space.items() for key, values in found.items()}
    return [dict(zip(space, point, strict=True)) for point in itertools.product(*space.values())]


def _decided(
    results: Sequence[Result], standings: Mapping[str, Standing], runner: TrialRunner, finalists: int
) -> Swept:
    """The winner: of the best `finalists`, the one with the fewest tokens within one standard error of the best."""
    results, validation = sorted(results, key=_rank), runner.material.validation
    finished = [result for result in results if result.report is not None]
    if not finished:
        raise DistillError(f"all {len(results)} trials of the sweep failed; the first one: {results[0].error}")
    whole: dict[str, Result] = {}  # the first trial of each distinct prompt
    for result in finished:
        if result.report is not None and result.report.report.n == len(validation):
            whole.setdefault(runner.draft(result.settings).prompt.sha256, result)
    spent: dict[str, int] = {}
    best, chosen = {}, {}
    for result in itertools.islice(whole.values(), finalists):
        before, entrant = runner.asked, _entrant(result.settings, runner)
        best[entrant], chosen[entrant] = result, runner.chosen(result.settings, validation, finally_=True)
        spent[result.trial_id] = runner.asked - before
    config = runner.configured({})
    places = compare_with_leader(chosen, validation, config.task.labels, config.evaluation)
    won = best[simplest(places)]
    before = runner.asked
    winner = runner.outcome(won.settings)
    spent[won.trial_id] += runner.asked - before
    rung = max((standing.rung for standing in standings.values()), default=1)
    reached = dict(standings)
    for one, place in places.items():
        before_final = reached.get(one.key, Standing(rung=rung, gap=0, se=0))
        reached[one.key] = before_final.model_copy(update={"gap": place.gap, "se": place.se})
    return Swept(
        results=[_with(result, reached.get(result.trial_id), spent.get(result.trial_id, 0)) for result in results],
        drafts={result.trial_id: runner.draft(result.settings) for result in finished},
        final={one.key: place.macro_f1 for one, place in places.items()},
        winner=replace(winner, report=winner.report.model_copy(update={"standing": reached[won.trial_id]})),
    )


def _with(result: Result, standing: Standing | None, asked: int) -> Result:
    report = result.report and result.report.model_copy(update={"standing": standing})
    return replace(result, report=report, asked=result.asked + asked)


def _entrant(settings: Settings, runner: TrialRunner) -> Entrant:
    return Entrant(trial_id(settings), runner.tokens(settings))


def _beginning(drafted: Draft) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in drafted.prompt.messages]


def _rank(result: Result) -> tuple[bool, int, tuple[float, int, str], str]:
    if result.report is None:
        return (True, 0, (0.0, 0, ""), result.trial_id)
    return (False, -result.report.report.n, objective(result.report), result.trial_id)


class BestOfDraw(Record):
    """The best trial with the rules of one draw (None: of all draws), by macro-F1 at the precision for searching on the
    `n` validation examples that it answered; None when all of them failed."""

    draw: int | None
    trial_id: str | None
    macro_f1: float | None
    n: int | None


class DrawSpread(Record):
    """artifacts/best/draws.json. `spread`: macro-F1 of the best draw minus that of the worst (None with fewer than
    two, and where a race dropped one of them before it had answered as many examples)."""

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
                n=trial.report.n if trial else None,
            )
    draws = sorted(best.values(), key=lambda item: -1 if item.draw is None else item.draw)
    single = [item for item in draws if item.draw is not None and item.macro_f1 is not None]
    figures = [item.macro_f1 for item in single if item.macro_f1 is not None]
    alike = len(single) > 1 and len({item.n for item in single}) == 1
    return DrawSpread(draws=tuple(draws), spread=max(figures) - min(figures) if alike else None)


class _Answers:
    """One Student's log-scores: of a prompt it is asked for each example once. `asked` counts."""

    def __init__(self, student: Student, on_progress: OnProgress | None) -> None:
        self._student = student
        self._on_progress = on_progress
        self._held: dict[Messages, dict[str, npt.NDArray[np.float64]]] = defaultdict(dict)
        self.asked = 0

    def scores(self, config: Config, messages: Sequence[Message], examples: Sequence[Example]) -> Scores:
        """[n, k] log-scores of the declared labels."""
        held = self._held[tuple(messages)]
        if new := [example for example in examples if example.id not in held]:
            found = score_examples(self._student, config.task, messages, new, self._on_progress)
            held.update(zip((example.id for example in new), found, strict=True))
            self.asked += len(new)
        return np.array([held[example.id] for example in examples]).reshape(len(examples), len(config.task.labels))


class CachedClusterer:
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

    def stability(self, vectors: Vectors) -> float | None:
        return self._clusterer.stability(vectors) if isinstance(self._clusterer, MeasuresStability) else None
