"""All systems' answers on test → the evaluation report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pld.method.baselines import CALIBRATED, rivals, shipped_system
from pld.method.evaluation import calibrate, choose, compare, indices, predictions, system_report
from pld.method.trial import groups_of
from pld.params import Config
from pld.ports import Scores
from pld.records import Calibration, Comparison, EvaluationReport, Example, Prediction


@dataclass(frozen=True)
class Answers:
    """One system on the test examples: `scores` [n, k] as the Student gave them."""

    scores: Scores
    calibration: Calibration
    prompt_tokens: int


def evaluation_report(
    config: Config, prompt_sha256: str, test: Sequence[Example], answers: Mapping[str, Answers]
) -> tuple[EvaluationReport, list[Prediction]]:
    """Every system with and without calibration; the distilled one compared with its rivals of the same kind."""
    labels, settings = config.task.labels, config.evaluation
    gold = indices([example.label for example in test], labels)
    groups = groups_of(test)
    variants = {
        name + suffix: (calibrate(found.scores, found.calibration) if suffix else found.scores, found.prompt_tokens)
        for suffix in ("", CALIBRATED)
        for name, found in answers.items()
    }
    chosen = {name: choose(scores) for name, (scores, _) in variants.items()}
    reports = {
        name: system_report(gold, chosen[name], labels, groups, settings.resamples, settings.seed, tokens)
        for name, (_, tokens) in variants.items()
    }
    comparisons: list[Comparison] = [
        compare(name, rival, gold, chosen[name], chosen[rival], len(labels), groups, settings.resamples, settings.seed)
        for name in (shipped_system("none"), shipped_system("batch"))
        for rival in rivals(name)
    ]
    report = EvaluationReport(
        task=config.task.name,
        split="test",
        n=len(test),
        labels=labels,
        prompt_sha256=prompt_sha256,
        shipped=shipped_system(config.calibration.method),
        systems=reports,
        comparisons=tuple(comparisons),
    )
    rows = [row for name, (scores, _) in variants.items() for row in predictions(test, name, scores, labels)]
    return report, rows
