"""Draw the sweep's trials from an Optuna study; with a storage URL several workers share it."""

import base64
import json
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, cast

from pld.distill.sweep import Result, Settings, grid
from pld.distill.trial import trial_id
from pld.errors import ConfigError, PldError
from pld.params import SweepParams
from pld.records import Prediction, canonical_json
from pld.redaction import redacted
from pld.reports import TrialReport

_PART = 40_000  # characters of a result in one attribute: MySQL's TEXT holds 65,535 bytes
_PARTS = "result"  # attribute: how many parts a result has; written after them
_POINT = "point"  # attribute: the settings of a listed point
_ALIVE = "alive"  # attribute: changes while a worker is at a trial
_BEAT_S = 20.0  # between two changes
_DEAD_S = 120.0  # without a change, after which a trial's worker counts as dead
_LOOK_S = 1.0  # between two looks at the trials that other workers run


class OptunaStudy:
    """Implements `pld.distill.sweep.Study`. `name` identifies everything that determines a trial's result, so that only
    workers that would get the same results share a study.

    A worker claims a point by a trial of the study, after all older trials have theirs. When a worker dies, another one
    fails its trial and takes the point.
    """

    def __init__(self, *, params: SweepParams, name: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)  # the stage reports failed trials
        self._params = params
        self._values = {
            f"{section}.{key}": list(values)
            for section, settings in params.space.items()
            for key, values in settings.items()
        }
        self._points = [dict(point) for point in grid(params)]
        self._given: Settings = {}  # the point that this worker is at
        self._beats: dict[int, tuple[Any, float]] = {}  # trial number → its last sign of life, and when it was new
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler: Any = optuna.samplers.TPESampler(seed=params.seed)
        if params.sampler == "grid":
            sampler = optuna.samplers.RandomSampler()
            sampler.sample_independent = lambda *asked: self._given[asked[2]]  # its name
        with self._answering():
            self._study = optuna.create_study(
                study_name=name,
                storage=params.storage,
                sampler=sampler,
                direction="maximize",
                load_if_exists=True,
            )

    @property
    def size(self) -> int:
        """Number of trials that the study ends with."""
        return int(self._params.trials or 0) if self._params.sampler == "tpe" else len(self._points)

    def run(self, trial: Callable[[Settings], Result]) -> None:
        """Raises ConfigError where the storage does not answer, or does not keep a result."""
        while True:
            with self._answering():
                if self._free(self._finished()) == 0:
                    return
                self._fail_dead()
                asked = self._study.ask() if self._free(self._trials()) else None
            if asked is None:
                time.sleep(_LOOK_S)
                continue
            with self._failed_by_errors(asked):
                with self._signs_of_life(asked):
                    with self._answering():
                        settings = self._claim(asked)
                    if settings is None:
                        continue
                    result = trial(settings)
                with self._answering():
                    self._finish(asked, result)

    def results(self) -> list[Result]:
        found = {}
        with self._answering():
            for trial in self._finished():
                report, answers, error, asked = _read(trial.user_attrs)
                found[trial_id(trial.params)] = Result(
                    settings=dict(sorted(trial.params.items())),
                    report=TrialReport.model_validate(report) if report else None,
                    predictions=tuple(Prediction.model_validate(answer) for answer in answers),
                    error=error,
                    asked=asked,
                )
        return list(found.values())

    def _claim(self, asked: Any) -> Settings | None:
        """The settings of a new trial of the study; None, and the trial fails: others have all points."""
        if self._params.sampler == "tpe":
            lost = self._free(self._trials()[: asked.number]) == 0
        else:
            while any(map(_is_undecided, older := self._trials()[: asked.number])):
                time.sleep(_LOOK_S / 10)
                self._fail_dead()
            taken = {_point(trial) for trial in older if _holds(trial)}
            free = [point for point in self._points if canonical_json(point) not in taken]
            lost = not free
            if free:
                self._given = free[0]
                asked.set_user_attr(_POINT, canonical_json(self._given))
        if lost:
            self._fail(asked.number)
            return None
        values = sorted(self._values.items())
        return {name: asked.suggest_categorical(name, found) for name, found in values}

    def _free(self, trials: Sequence[Any]) -> int:
        """How many points none of `trials` has a result for, or may still get one."""
        held = [trial for trial in trials if _holds(trial)]
        if self._params.sampler == "tpe":
            return max(0, self.size - len(held))
        return self.size - len({canonical_json(point) for point in self._points} & {_point(trial) for trial in held})

    def _finish(self, asked: Any, result: Result) -> None:
        """Store `result`, unless another worker has taken this one for dead and its point over."""
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        try:
            for name, value in _attributes(result).items():
                asked.set_user_attr(name, value)
        except UpdateFinishedTrialError:
            return
        stored = self._trials()[asked.number]  # as the storage has it: Optuna ignores an IntegrityError
        if not _is_whole(stored.user_attrs):
            raise ConfigError(
                f"expected a storage that keeps what is written, got a part of trial {result.trial_id}'s result "
                f"({redacted(str(self._params.storage))} (conf/sweep/: storage)); run again: the other results are kept"
            )
        if result.report is None:
            self._fail(asked.number)
        else:
            figure = result.report.report.macro_f1.value
            self._study.tell(asked.number, figure, state=TrialState.COMPLETE, skip_if_finished=True)

    def _fail(self, number: int) -> None:
        from optuna.trial import TrialState

        self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    @contextmanager
    def _failed_by_errors(self, asked: Any) -> Iterator[None]:
        """Ctrl-C included: another worker may take the point at once."""
        try:
            yield
        except BaseException:
            with suppress(Exception):
                self._fail(asked.number)
            raise

    def _fail_dead(self) -> None:
        """Fail the trials whose workers gave no sign of life for _DEAD_S, by this process's clock."""
        now = time.monotonic()
        for trial in self._trials():
            if trial.state.name == "RUNNING":
                beat = trial.user_attrs.get(_ALIVE)
                last, since = self._beats.get(trial.number, (beat, now))
                self._beats[trial.number] = (beat, since if beat == last else now)
                if beat == last and now - since > _DEAD_S:
                    self._fail(trial.number)

    @contextmanager
    def _signs_of_life(self, asked: Any) -> Iterator[None]:
        """Of this worker, for as long as the context lasts."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(_BEAT_S):
                with suppress(Exception):  # the storage may answer next time
                    asked.set_user_attr(_ALIVE, time.time())

        thread = threading.Thread(target=beat, daemon=True)
        if self._params.storage is not None:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if thread.is_alive():
                thread.join()

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Raises ConfigError where the storage does not answer."""
        try:
            yield
        except PldError:
            raise
        except Exception as error:  # SQLAlchemy and its drivers have no common exception
            cause = error.__cause__ or error
            raise ConfigError(
                f"expected an Optuna storage URL that answers, got {redacted(str(self._params.storage))!r}: "
                f"{redacted(' '.join(str(cause).split()))[:200]} (conf/sweep/: storage)"
            ) from None

    def _trials(self) -> list[Any]:
        """By number, from 0."""
        return list(self._study.get_trials(deepcopy=False))

    def _finished(self) -> list[Any]:
        return [trial for trial in self._trials() if _is_whole(trial.user_attrs)]


def _holds(trial: Any) -> bool:
    """Whether a trial of the study has a result, or may still get one."""
    return trial.state.name == "RUNNING" or _is_whole(trial.user_attrs)


def _is_undecided(trial: Any) -> bool:
    return trial.state.name == "RUNNING" and _POINT not in trial.user_attrs


def _point(trial: Any) -> str | None:
    return cast("str | None", trial.user_attrs.get(_POINT))


def _attributes(result: Result) -> dict[str, str | int]:
    """`result` compressed, in parts that fit into any database's text."""
    report = result.report.model_dump(mode="json") if result.report else None
    answers = [prediction.model_dump(mode="json") for prediction in result.predictions]
    text = json.dumps([report, answers, result.error, result.asked])
    packed = base64.b64encode(zlib.compress(text.encode())).decode()
    parts = [packed[start : start + _PART] for start in range(0, len(packed), _PART)]
    return {f"{_PARTS}.{number}": part for number, part in enumerate(parts)} | {_PARTS: len(parts)}


def _is_whole(attributes: Mapping[str, Any]) -> bool:
    count = attributes.get(_PARTS)
    return isinstance(count, int) and all(f"{_PARTS}.{number}" in attributes for number in range(count))


def _read(attributes: Mapping[str, Any]) -> Any:
    packed = "".join(attributes[f"{_PARTS}.{number}"] for number in range(attributes[_PARTS]))
    return json.loads(zlib.decompress(base64.b64decode(packed)))
