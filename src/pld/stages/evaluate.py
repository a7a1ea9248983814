"""Measure the distilled prompt and every baseline on the test split, which no other stage reads."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pld.adapters.teachers.factory import write_spending
from pld.artifacts import SHIPS, read_jsonl, read_record, read_text, write_json, write_jsonl, write_text
from pld.config.composition import with_settings
from pld.config.settings import load_config
from pld.distill.extract import ExtractionSummary
from pld.distill.render import prompt_messages
from pld.distill.trial import groups_of, sample
from pld.evaluate.baselines.prompting import few_shot_examples
from pld.evaluate.build_systems import (
    DistilledPrompt,
    SystemInputs,
    build_systems,
    distillation_cost,
    readable_prompt,
    resolution_cost,
)
from pld.evaluate.latency import measure_latency, report_sha256, served_by
from pld.evaluate.measure import Answers, answers_of, answers_of_twin, asked_of, evaluation_report, twin_of
from pld.evaluate.systems import Prompted, System
from pld.params import Config, RenderingParams
from pld.ports import Student
from pld.progress import progress
from pld.records import (
    CALIBRATED,
    Calibration,
    CostReport,
    EvaluationReport,
    Example,
    Instruction,
    Latency,
    LatencyReport,
    Prediction,
    Reviewed,
    TrainingCost,
    TrialReport,
    sha256,
)
from pld.resolve.records import ResolutionReport

ARTIFACTS = Path("artifacts")


def run() -> None:
    compute(load_config(), ARTIFACTS)


def compute(config: Config, folder: Path, student: Student | None = None) -> None:
    """Write `folder`/evaluation/. `student`: None for the one that `config` names."""
    out = folder / "evaluation"
    resolution = read_record(folder / "resolve/report.json", ResolutionReport)
    inputs = _inputs(config, folder, resolution, student)
    test = read_jsonl(folder / "splits/test.jsonl", Example)
    answers, latency = _measured(config, inputs, test)
    report, predictions = evaluation_report(
        config, sha256(inputs.distilled.prompt), test, answers, inputs.student.describe(), resolution
    )
    write_json(out / "report.json", report)
    write_jsonl(out / "predictions.jsonl", predictions)
    write_json(out / "costs.json", CostReport(systems={name: found.cost for name, found in answers.items()}))
    write_jsonl(out / "chains.jsonl", [chain for found in answers.values() for chain in found.chains])
    prompts = {name: [message.model_dump() for message in found.beginning] for name, found in answers.items()}
    write_json(out / "prompts.json", prompts)
    # which examples are not independent of one another, for whoever compares these predictions with others
    groups = groups_of(test) or []
    write_json(out / "groups.json", dict(zip((example.id for example in test), groups, strict=False)))
    write_json(out / "few_shot.json", {"example_ids": [example.id for example in inputs.shots]})
    _write_views(out, report, predictions)
    timed = {"trials": _timed_trials(config, folder, inputs, test), "report_sha256": report_sha256(folder)}
    write_json(out / "latency.json", latency.model_copy(update=timed))
    write_spending("evaluate", inputs.teacher if config.baselines.gepa else None, folder)


def _inputs(config: Config, folder: Path, resolution: ResolutionReport, student: Student | None) -> SystemInputs:
    train = read_jsonl(folder / "splits/train.jsonl", Example)
    winner = read_record(folder / "best/trial.json", TrialReport)
    rendering = with_settings(config, winner.settings).rendering
    spent = _sweep_cost(folder, winner)
    return SystemInputs(
        config=config,
        train=train,
        validation=read_jsonl(folder / "splits/validation.jsonl", Example),
        calibrated_on=sample(train, config.calibration.examples, "calibration"),  # the same ones as the trial's
        shots=few_shot_examples(config.task, train, config.baselines.few_shot, config.baselines.seed),
        clustered=_prompt_in(folder / "best", rendering, spent),
        distilled=_prompt_in(folder / SHIPS, rendering, resolution_cost(spent, resolution)),
        unreviewed=_prompt_in(folder / "resolve/final", rendering, resolution_cost(spent, resolution))
        if read_record(folder / "review/review.json", Reviewed).sheets
        else None,
        given_student=student,
    )


def _prompt_in(folder: Path, rendering: RenderingParams, training: TrainingCost) -> DistilledPrompt:
    return DistilledPrompt(
        prompt=read_text(folder / "system_prompt.md"),
        calibration=read_record(folder / "calibration.json", Calibration),
        readable=readable_prompt(read_jsonl(folder / "instructions.jsonl", Instruction), rendering),
        training=training,
    )


def _sweep_cost(folder: Path, winner: TrialReport) -> TrainingCost:
    trials = list(csv.DictReader(io.StringIO(read_text(folder / "trials.csv"))))
    searched = {row["prompt"] for row in trials if row["macro_f1"]}
    scored = len(searched) + sum(bool(row["final_macro_f1"]) for row in trials)
    return distillation_cost(
        read_record(folder / "rules/summary.json", ExtractionSummary),
        read_jsonl(folder / "best/instructions.jsonl", Instruction),
        scored * winner.report.n,
    )


def _measured(
    config: Config, inputs: SystemInputs, test: Sequence[Example]
) -> tuple[dict[str, Answers], LatencyReport]:
    """Every system's answers, and how fast it gives them; one that is another's twin is not asked again."""
    answers: dict[str, Answers] = {}
    latency: dict[str, Latency] = {}
    seconds: dict[str, float] = {}
    own: list[System] = []
    for system in build_systems(inputs):
        asked = asked_of(system, test, config.baselines.seed)
        if twin := twin_of(system, own):
            answers[system.name] = answers_of_twin(system, answers[twin.name])
            latency[system.name] = latency[twin.name]
        else:
            with progress(f"evaluate: {system.name}", len(asked) + len(system.calibrated_on)) as advance:
                answers[system.name] = answers_of(system, asked, config.task.labels, advance)
            latency[system.name] = measure_latency(system, test, config.latency.requests)
        if system.calibration is not None:
            own.append(system)  # no other one, so that what it is made of can be dropped
        if answers[system.name].calibration is not None:
            # calibration subtracts one number per label: the same requests, the same latency
            latency[system.name + CALIBRATED] = latency[system.name]
        if system.training_seconds is not None:
            seconds[system.name] = system.training_seconds
    return answers, LatencyReport(machine=served_by(inputs.student), systems=latency, training_seconds=seconds)


def _timed_trials(config: Config, folder: Path, inputs: SystemInputs, test: Sequence[Example]) -> dict[str, Latency]:
    """Trial id → its prompt's latency; the same prompt is timed once."""
    if not config.latency.trial_requests:
        return {}
    prompts = {path.parent.name: read_text(path) for path in sorted(folder.glob("trials/*/system_prompt.md"))}
    timed: dict[str, Latency] = {}
    different = sorted(set(prompts.values()))
    with progress("evaluate: timing the prompts of the sweep", len(different)) as advance:
        for prompt in different:
            beginning = prompt_messages(prompt)
            answer = Prompted(config.task, inputs.student, beginning)
            system = System("trial", answer, readable="", student=inputs.student, beginning=beginning)
            timed[prompt] = measure_latency(system, test, config.latency.trial_requests)
            advance(1)
    return {trial: timed[prompt] for trial, prompt in prompts.items()}


def _write_views(out: Path, report: EvaluationReport, predictions: Sequence[Prediction]) -> None:
    """Write what `dvc metrics` and `dvc plots` show."""
    metrics = {
        name: {"macro_f1": round(system.macro_f1.value, 4), "accuracy": round(system.accuracy.value, 4)}
        for name, system in report.systems.items()
    }
    write_json(out / "metrics.json", metrics)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["gold", "answered"])
    writer.writerows([item.label, item.predicted or "none"] for item in predictions if item.system == report.shipped)
    write_text(out / "confusion.csv", buffer.getvalue())
