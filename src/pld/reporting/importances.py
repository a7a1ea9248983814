"""Which settings of the sweep explain the differences in macro-F1 between trials, by fANOVA."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from pld.reports import TrialReport

EVALUATOR = "fANOVA (Hutter et al. 2014), Optuna's"
FEWEST = 4


@dataclass(frozen=True)
class Importances:
    """`shares`: setting → its share of the explained variance of macro-F1, the largest first; `missing`: why there are
    none; `fixed`: settings with a single value."""

    shares: dict[str, float]
    fixed: tuple[str, ...]
    missing: str | None = None


def importances(trials: Sequence[TrialReport], seed: int) -> Importances:
    tried = {name: {repr(trial.settings[name]) for trial in trials} for name in _settings(trials)}
    fixed = tuple(sorted(name for name, values in tried.items() if len(values) == 1))
    if len(trials) < FEWEST:
        return Importances({}, fixed, f"{len(trials)} finished, and {FEWEST} are the fewest that say something")
    if len(fixed) == len(tried):
        return Importances({}, fixed, "one value of each setting was tried")
    if len({_figure(trial) for trial in trials}) == 1:
        return Importances({}, fixed, "all came to the same macro-F1")
    return Importances(_measured(trials, sorted(set(tried) - set(fixed)), seed), fixed)


def _figure(trial: TrialReport) -> float:
    """Macro-F1 on what all trials answered: of a race the first part."""
    on_first = trial.standing.on_first if trial.standing else None
    return trial.report.macro_f1.value if on_first is None else on_first


def _settings(trials: Sequence[TrialReport]) -> list[str]:
    """Those that every trial has."""
    return sorted(set.intersection(*(set(trial.settings) for trial in trials))) if trials else []


def _measured(trials: Sequence[TrialReport], names: Sequence[str], seed: int) -> dict[str, float]:
    import optuna
    from optuna.distributions import CategoricalDistribution

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {
        name: CategoricalDistribution(sorted({trial.settings[name] for trial in trials}, key=repr)) for name in names
    }
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                params={name: trial.settings[name] for name in names},
                distributions=space,
                value=_figure(trial),
            )
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}
