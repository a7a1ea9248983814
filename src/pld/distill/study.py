"""Draw the sweep's trials from an Optuna study; with a storage URL several workers share it."""

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

from pld.distill.sweep import Result, Settings
from pld.distill.trial import trial_id
from pld.errors import ConfigError, DistillError
from pld.params import SweepParams
from pld.records import Prediction
from pld.reports import TrialReport


class OptunaStudy:
    """Implements `pld.distill.sweep.Study`. `name` identifies everything that determines a trial's result, so that only
    workers that would get the same results share a study."""

    def __init__(self, *, params: SweepParams, name: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)  # the stage reports failed trials
        self._params = params
        self._space = {
            f"{section}.{key}": list(values)
            for section, settings in params.space.items()
            for key, values in settings.items()
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._sampler: Any = (
                optuna.samplers.GridSampler(self._space, seed=params.seed)
                if params.sampler == "grid"
                else optuna.samplers.TPESampler(seed=params.seed)
            )
        try:
            self._study = optuna.create_study(
                study_name=name,
                storage=params.storage,
                sampler=self._sampler,
                direction="maximize",
                load_if_exists=True,
            )
        except Exception as error:  # SQLAlchemy and its drivers have no common exception
            raise ConfigError(
                f"expected an Optuna storage URL that answers, got {params.storage!r}: "
                f"{' '.join(str(error).split())[:200]} (conf/sweep/: storage)"
            ) from None

    @property
    def size(self) -> int:
        """Number of trials to run (an upper bound when other workers share the study)."""
        if self._params.sampler == "tpe":
            return int(self._params.trials or 0)
        return math.prod(len(values) for values in self._space.values())

    def run(self, trial: Callable[[Settings], Result]) -> None:
        from optuna.study import MaxTrialsCallback
        from optuna.trial import TrialState

        def objective(asked: Any) -> float:
            settings = {name: asked.suggest_categorical(name, values) for name, values in sorted(self._space.items())}
            result = trial(settings)
            asked.set_user_attr("result", _stored(result))
            if result.report is None:
                raise DistillError(result.error)
            return result.report.report.macro_f1.value

        if self._complete():
            return
        # the grid sampler ends the study by itself
        budget = [MaxTrialsCallback(self.size, states=(TrialState.COMPLETE, TrialState.FAIL))]
        self._study.optimize(
            objective, catch=(DistillError,), callbacks=budget if self._params.sampler == "tpe" else None
        )

    def results(self) -> list[Result]:
        found = {}
        for trial in self._finished():
            report, answers, error, asked = json.loads(trial.user_attrs["result"])
            found[trial_id(trial.params)] = Result(
                settings=dict(sorted(trial.params.items())),
                report=TrialReport.model_validate(report) if report else None,
                predictions=tuple(Prediction.model_validate(answer) for answer in answers),
                error=error,
                asked=asked,
            )
        return list(found.values())

    def _finished(self) -> list[Any]:
        # a trial without a result belongs to another worker that died
        return [trial for trial in self._study.get_trials(deepcopy=False) if "result" in trial.user_attrs]

    def _complete(self) -> bool:
        done = self._finished() if self._params.sampler == "tpe" else self.results()
        return len(done) >= self.size


def _stored(result: Result) -> str:
    report = result.report.model_dump(mode="json") if result.report else None
    answers = [prediction.model_dump(mode="json") for prediction in result.predictions]
    return json.dumps([report, answers, result.error, result.asked])
