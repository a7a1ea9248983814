"""Measure the distilled prompt and every baseline on the test split, which no other stage reads."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from pld.adapters.teachers.factory import write_spending
from pld.artifacts import (
    MESSAGES_FILE,
    SHIPS,
    read_jsonl,
    read_prompt,
    read_record,
    read_text,
    write_json,
    write_jsonl,
    write_text,
)
from pld.config.composition import with_settings
from pld.config.settings import load_config
from pld.distill.extract import ExtractionSummary
from pld.distill.render import render_input
from pld.distill.trial import groups_of
from pld.evaluate.baselines.prompting import few_shot_examples
from pld.evaluate.build_systems import (
    DistilledPrompt,
    SystemInputs,
    build_systems,
    distillation_cost,
    readable_prompt,
    resolution_cost,
)
from pld.evaluate.latency import measure_latency, report_sha256, served_by, time_prefill
from pld.evaluate.measure import Answers, answers_of_twin, asked_of, evaluation_report, measured, twin_of
from pld.evaluate.systems import Prompted, System
from pld.params import Config, RenderingParams
from pld.ports import Student
from pld.progress import progress
from pld.records import (
    CALIBRATED,
    Calibration,
    Example,
    Instruction,
    Message,
    Prediction,
    Reviewed,
    Rule,
    prompt_sha256,
)
from pld.reports import CostReport, EvaluationReport, Latency, LatencyReport, TrainingCost, TrialReport
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
    exceeding = sum(inputs.embedder.exceed_window([render_input(config.task, example.inputs) for example in test]))
    report, predictions = evaluation_report(
        config,
        prompt_sha256(inputs.distilled.messages),
        test,
        answers,
        inputs.student.describe(),
        resolution,
        exceeding,
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
    shown = {name: [example.id for example in shots] for name, shots in inputs.shots.items()}
    write_json(out / "few_shot.json", shown)
    _write_views(out, report, predictions)
    timed = {"trials": _timed_trials(config, folder, inputs, test), "report_sha256": report_sha256(folder)}
    write_json(out / "latency.json", latency.model_copy(update=timed))
    write_spending("evaluate", inputs.teacher if config.baselines.gepa else None, folder)


def _inputs(config: Config, folder: Path, resolution: ResolutionReport, student: Student | None) -> SystemInputs:
    train = read_jsonl(folder / "splits/train.jsonl", Example)
    winner = read_record(folder / "best/trial.json", TrialReport)
    rendering = with_settings(config, winner.settings).rendering
    spent, baselines = _sweep_cost(folder), config.baselines
    looped = resolution_cost(spent, resolution)
    explained = frozenset(rule.example_id for rule in read_jsonl(folder / "rules/rules.jsonl", Rule))
    pools = (folder / "resolve/rounds").glob("*/pool.jsonl")
    pool = {row.example_id for path in pools for row in read_jsonl(path, Prediction)}
    return SystemInputs(
        config=config,
        train=train,
        validation=read_jsonl(folder / "splits/validation.jsonl", Example),
        explained=[example for example in train if example.id in explained],
        shots={
            name: few_shot_examples(config.task, train, size, baselines.seed)
            for name, size in baselines.few_shot_systems.items()
        },
        clustered=_prompt_in(folder / "best", rendering, spent, explained),
        distilled=_prompt_in(folder / SHIPS, rendering, looped, explained | pool),
        unreviewed=_prompt_in(folder / "resolve/final", rendering, looped, explained | pool)
        if read_record(folder / "review/review.json", Reviewed).sheets
        else None,
        given_student=student,
    )


def _prompt_in(
    folder: Path, rendering: RenderingParams, training: TrainingCost, labelled: frozenset[str]
) -> DistilledPrompt:
    messages = read_prompt(folder)
    return DistilledPrompt(
        messages=messages,
        calibration=read_record(folder / "calibration.json", Calibration),
        readable=readable_prompt(read_jsonl(folder / "instructions.jsonl", Instruction), messages, rendering),
        training=training,
        labelled=labelled,
    )


def _sweep_cost(folder: Path) -> TrainingCost:
    trials = list(csv.DictReader(io.StringIO(read_text(folder / "trials.csv"))))
    return distillation_cost(
        read_record(folder / "rules/summary.json", ExtractionSummary),
        read_jsonl(folder / "best/instructions.jsonl", Instruction),
        sum(int(row["asked"]) for row in trials),
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
            with progress(f"evaluate: {system.name}", len(asked) + len(system.to_calibrate)) as advance:
                answers[system.name], latency[system.name] = measured(
                    system, asked, config, config.latency.requests, advance
                )
        if system.calibration is not None:
            own.append(system)  # no other one, so that what it is made of can be dropped
        if answers[system.name].calibration is not None:
            # calibrating is one multiplication and addition per label: the same requests, the same latency
            latency[system.name + CALIBRATED] = latency[system.name]
        if system.training_seconds is not None:
            seconds[system.name] = system.training_seconds
    return answers, LatencyReport(machine=served_by(inputs.student), systems=latency, training_seconds=seconds)


def _timed_trials(config: Config, folder: Path, inputs: SystemInputs, test: Sequence[Example]) -> dict[str, Latency]:
    """Trial id → its prompt's latency; the same prompt is timed once."""
    if not config.latency.trial_requests:
        return {}
    prompts = {path.parent.name: read_prompt(path.parent) for path in sorted(folder.glob(f"trials/*/{MESSAGES_FILE}"))}
    timed: dict[tuple[Message, ...], Latency] = {}
    different = sorted(set(prompts.values()), key=prompt_sha256)
    with progress("evaluate: timing the prompts of the sweep", len(different)) as advance:
        for beginning in different:
            answer = Prompted(config.task, inputs.student, beginning)
            system = System("trial", answer, readable="", student=inputs.student, beginning=beginning)
            timed[beginning] = measure_latency(system, test, config.latency.trial_requests, time_prefill(system))
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
