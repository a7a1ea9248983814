"""The only stage that sees the test split: baselines and the distilled prompt on the same examples."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from pld.adapters.build import build
from pld.adapters.latency import machine, measure_latency
from pld.adapters.plots import draw_confusion, draw_f1_against_tokens
from pld.artifacts import read_jsonl, read_record, read_text, write_json, write_jsonl, write_text
from pld.method.baselines import CALIBRATED, few_shot_examples, systems
from pld.method.evaluation import calibration_of
from pld.method.measurement import Answers, evaluation_report
from pld.method.system_prompt import render_input
from pld.method.trial import groups_of, sample, score_examples
from pld.params import Config, load_config
from pld.ports import Student
from pld.progress import progress
from pld.records import (
    Calibration,
    EvaluationReport,
    Example,
    LatencyReport,
    Message,
    Prediction,
    TrialReport,
    sha256,
)

ARTIFACTS = Path("artifacts")
FOLDER = ARTIFACTS / "evaluation"


def run() -> None:
    config = load_config()
    prompt = read_text(ARTIFACTS / "best/system_prompt.md")
    train = read_jsonl(ARTIFACTS / "splits/train.jsonl", Example)
    test = read_jsonl(ARTIFACTS / "splits/test.jsonl", Example)
    student: Student = build(config.student, "student")
    shots = few_shot_examples(config.task, train, config.evaluation.few_shot, config.evaluation.seed)
    messages = systems(config.task, prompt, shots)
    answers = _answers(config, student, messages, train, test)
    report, predictions = evaluation_report(config, sha256(prompt), test, answers)
    write_json(FOLDER / "report.json", report)
    write_jsonl(FOLDER / "predictions.jsonl", predictions)
    # which examples are not independent of one another, for whoever compares these predictions with others
    groups = groups_of(test) or []
    write_json(FOLDER / "groups.json", dict(zip((example.id for example in test), groups, strict=False)))
    write_json(FOLDER / "few_shot.json", {"example_ids": [example.id for example in shots]})
    _write_views(report, predictions)
    write_json(FOLDER / "latency.json", _latency(config, student, messages, test))


def _answers(
    config: Config,
    student: Student,
    messages: Mapping[str, Sequence[Message]],
    train: Sequence[Example],
    test: Sequence[Example],
) -> dict[str, Answers]:
    """Each system's scores on test; a baseline is calibrated on the same training examples as the trial was."""
    own = read_record(ARTIFACTS / "best/calibration.json", Calibration)
    drawn = sample(train, config.calibration.examples, "calibration")
    found = {}
    with progress("evaluate", len(messages) * len(test) + (len(messages) - 1) * len(drawn)) as advance:
        for name, beginning in messages.items():
            scores = score_examples(student, config.task, beginning, test, advance)
            calibration = own
            if name != "distilled":
                trained = score_examples(student, config.task, beginning, drawn, advance)
                calibration = calibration_of(trained, config.task.labels)
            found[name] = Answers(scores, calibration, student.count_tokens(beginning))
    return found


def _latency(
    config: Config, student: Student, messages: Mapping[str, Sequence[Message]], test: Sequence[Example]
) -> LatencyReport:
    inputs = [render_input(config.task, example.inputs) for example in test]
    requests = config.evaluation.latency_requests
    found = {}
    with progress("latency", len(messages)) as advance:
        for name, beginning in messages.items():
            latency = measure_latency(student, beginning, inputs, config.task.labels, requests)
            # calibration subtracts one number per label: the same requests, the same latency
            found[name] = found[name + CALIBRATED] = latency
            advance(1)
    settings = ", ".join(f"{key} {value}" for key, value in student.describe().items())
    return LatencyReport(machine=f"{machine()}; {settings}", systems=found)


def _write_views(report: EvaluationReport, predictions: Sequence[Prediction]) -> None:
    """What `dvc metrics`, `dvc plots` and the tracking show of the report."""
    metrics = {
        name: {"macro_f1": round(system.macro_f1.value, 4), "accuracy": round(system.accuracy.value, 4)}
        for name, system in report.systems.items()
    }
    write_json(FOLDER / "metrics.json", metrics)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["gold", "answered"])
    writer.writerows([item.label, item.predicted or "none"] for item in predictions if item.system == report.shipped)
    write_text(FOLDER / "confusion.csv", buffer.getvalue())
    shipped = report.systems[report.shipped]
    draw_confusion(FOLDER / "plots/confusion.png", shipped, report.labels, f"{report.task}: {report.shipped} on test")
    trials = list(csv.DictReader(io.StringIO(read_text(ARTIFACTS / "trials.csv"))))
    winner = read_record(ARTIFACTS / "best/trial.json", TrialReport)
    draw_f1_against_tokens(FOLDER / "plots/f1_tokens.png", trials, winner.trial_id)
