"""Logs a pipeline result to MLflow: one parent run, and a nested run for each trial and system."""

import json
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pld.artifacts import SHIPS, read_record
from pld.pricing import tokens_read, tokens_written, total_usd
from pld.progress import progress
from pld.records import SPLITS, Reviewed, Split, content_id
from pld.registry.limits import LONGEST_TAG, LONGEST_VALUE, METRICS_AT_ONCE, PARAMS_AT_ONCE, cut, names
from pld.registry.promotion_gates import base_name, zero_shot_of
from pld.registry.result import DataSet, FailedTrial, PipelineResult, flattened, provenance, settings
from pld.registry.store import Store, experiment_id, translated
from pld.registry.versions import EVALUATION
from pld.reports import EvaluationReport, Interval, Latency, LatencyReport, Spending, SystemReport, TrialReport
from pld.resolve.records import ResolutionReport

KEY = "pld.key"
KIND = "pld.kind"  # result | trial | system
COMPLETE = "pld.complete"
PAGE = Path("report/index.html")  # under artifacts/, and among the run's artifacts
REPORT = "pld.report"  # tag: the HTML report's path among the artifacts
SHEETS = "pld.review_sheets"  # tag: number of review sheets behind the shipped list
TEACHER = "teacher/"
ROUND = "round/"  # MLflow's UI groups metrics by prefix
_CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}
_SHIPPED = ("system_prompt.md", "messages.json", "instructions.jsonl", "calibration.json")


@dataclass(frozen=True)
class LoggedRun:
    """The parent run of a result; `new` is False when it had been logged before."""

    run_id: str
    new: bool


def log_result(store: Store, result: PipelineResult) -> LoggedRun:
    """Log `result` unless a complete run with its content key exists; an incomplete one is replaced.

    Raises RegistryError.
    """
    with translated(store.uri), store.lock:
        experiment = experiment_id(store, result.config.task.name)
        found = store.client.search_runs(
            [experiment], f"tags.`{KEY}` = '{result.key}' and tags.`{KIND}` = 'result'", order_by=["start_time ASC"]
        )
        for run in found:
            if run.data.tags.get(COMPLETE) == "true":
                _add_latency(store, run, result)
                return LoggedRun(run.info.run_id, new=False)
        for run in found:
            _delete(store, experiment, run.info.run_id)
        return LoggedRun(_Logger(store, experiment, result).log(), new=True)


def _add_latency(store: Store, run: Any, result: PipelineResult) -> None:
    """Log the latency of a result that was logged without one and has been timed since."""
    times = _times(result.latency, result.report.shipped)
    if times and not times.keys() & run.data.metrics.keys():
        store.client.log_artifact(run.info.run_id, str(result.folder / EVALUATION / "latency.json"), EVALUATION)
        _log_metrics(store.client, run.info.run_id, times)


def _delete(store: Store, experiment: str, run_id: str) -> None:
    nested: list[Any] = store.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    for run in nested:
        store.client.delete_run(run.info.run_id)
    store.client.delete_run(run_id)


class _Logger:
    """Writes the runs of one result."""

    def __init__(self, store: Store, experiment: str, result: PipelineResult) -> None:
        self._client = store.client
        self._experiment = experiment
        self._result = result
        self._shared_tags = provenance()

    def log(self) -> str:
        result, report = self._result, self._result.report
        # MLflow's lists and legends show about fifteen characters of a name, so the distinctive part comes first
        name = f"{report.systems[report.shipped].macro_f1.value:.3f} {result.key[:8]}"
        params = settings(result.config) | flattened(result.best.settings, "winner.") | {"split": report.split}
        # not settings, but MLflow's run comparison shows parameters that differ
        params |= {"prompt_sha256": report.prompt_sha256}
        params |= {f"data.{data.split}.md5": data.digest for data in result.datasets}
        tags = {"mlflow.note.content": note(result)}
        parent = self._start("result", name, tags, params, _parent_metrics(result), SPLITS)
        for step, metrics in enumerate(round_metrics(result.resolution, result.best.instructions)):
            _log_metrics(self._client, parent, metrics, step, ROUND)
        for section, metrics in spending_metrics(result.spending).items():
            _log_metrics(self._client, parent, metrics, section=section)
        if any(role.usd is None for stage in result.spending for role in stage.roles):
            self._client.set_tag(parent, "pld.teacher_usd", "unknown")
        self._parent_files(parent)
        with progress("track", len(result.trials) + len(report.systems)) as advance:
            for trial in result.trials:
                self._trial(parent, trial)
                advance(1)
            for failed in result.failed_trials:
                self._failed_trial(parent, failed)
            for name in report.systems:
                self._system(parent, name)
                advance(1)
        self._client.set_tag(parent, COMPLETE, "true")
        self._client.set_terminated(parent)
        return parent

    def _trial(self, parent: str, trial: TrialReport) -> None:
        winner = {"pld.winner": "true"} if trial.trial_id == self._result.best.trial_id else {}
        params = {**flattened(trial.settings), "split": "validation"}
        metrics = trial_metrics(self._result, trial)
        run = self._start("trial", trial.trial_id, winner, params, metrics, ("train", "validation"), parent)
        for name in ("system_prompt.md", "messages.json", "instructions.jsonl", "clusters.jsonl", "report.json"):
            self._file(run, self._result.folder / "trials" / trial.trial_id / name)
        self._client.set_terminated(run)

    def _failed_trial(self, parent: str, trial: FailedTrial) -> None:
        params = {**flattened(trial.settings), "split": "validation"}
        run = self._start("trial", trial.trial_id, {"pld.error": cut(trial.error, LONGEST_TAG)}, params, {}, (), parent)
        self._client.set_terminated(run, "FAILED")

    def _system(self, parent: str, name: str) -> None:
        report = self._result.report
        shipped = {"pld.shipped": "true"} if name == report.shipped else {}
        params = {"system": name, "split": report.split, "student": str(self._result.config.student.get("name"))}
        metrics = system_metrics(report, self._result.latency, name)
        run = self._start("system", name, shipped, params, metrics, (report.split,), parent)
        self._client.set_terminated(run)

    def _start(
        self,
        kind: str,
        name: str,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        metrics: Mapping[str, float],
        splits: Collection[Split],
        parent: str | None = None,
    ) -> str:
        from mlflow.entities import Param

        key = content_id([self._result.key, kind, name]) if parent else self._result.key
        nested = {"mlflow.parentRunId": parent} if parent else {}
        tags = {**self._shared_tags, **nested, **tags, KEY: key, KIND: kind}
        name = f"trial {name}" if kind == "trial" else name
        run = str(self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id)
        named = names(params)
        pairs = [Param(named[key], cut(value, LONGEST_VALUE)) for key, value in params.items()]
        for start in range(0, len(pairs), PARAMS_AT_ONCE):
            self._client.log_batch(run, params=pairs[start : start + PARAMS_AT_ONCE])
        _log_metrics(self._client, run, metrics)
        task = self._result.report.task
        inputs = [_data_input(task, data) for data in self._result.datasets if data.split in splits]
        self._client.log_inputs(run, inputs)
        return run

    def _parent_files(self, run: str) -> None:
        folder = self._result.folder
        for path in (folder / "config.yaml", folder / "trials.csv", *(folder / SHIPS / name for name in _SHIPPED)):
            self._file(run, path)
        for name in ("best", "resolve", SHIPS.as_posix(), "spending"):
            self._client.log_artifacts(run, str(folder / name), name)
        for path in sorted((folder / EVALUATION).glob("*")):
            self._file(run, path, EVALUATION)
        for path in sorted((folder / EVALUATION / "plots").glob("*")):
            self._file(run, path, "plots")
        reviewed = folder / "review/review.json"
        if reviewed.is_file():
            self._file(run, reviewed, "review")
            self._client.set_tag(run, SHEETS, str(len(read_record(reviewed, Reviewed).sheets)))
        if (folder / PAGE).is_file():
            self._file(run, folder / PAGE, PAGE.parent.as_posix())
            self._client.set_tag(run, REPORT, PAGE.as_posix())

    def _file(self, run: str, path: Path, place: str | None = None) -> None:
        if path.is_file():
            self._client.log_artifact(run, str(path), place)


def _log_metrics(client: Any, run: str, metrics: Mapping[str, float], step: int = 0, section: str = "") -> None:
    """`section` is a prefix of the metrics' names."""
    from mlflow.entities import Metric

    now, named = time.time_ns() // 1_000_000, names(metrics)
    found = [Metric(section + named[key], value, now, step) for key, value in metrics.items()]
    for start in range(0, len(found), METRICS_AT_ONCE):
        client.log_batch(run, metrics=found[start : start + METRICS_AT_ONCE])


def _data_input(task: str, data: DataSet) -> Any:
    """A split as MLflow's data set input of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"path": data.path.as_posix(), "md5": data.digest})
    dataset = Dataset(name=f"{task}-{data.split}", digest=data.digest, source_type="dvc", source=source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", _CONTEXTS[data.split])])


def sentence(result: PipelineResult) -> str:
    """One sentence about the shipped prompt and its test scores."""
    report = result.report
    shipped = report.systems[report.shipped]
    gain = _gain(report)
    over = f", {gain.signed} over {zero_shot_of(report.shipped)}" if gain else ""
    return (
        f"Macro-F1 {interval_words(shipped.macro_f1)} on {report.n} test examples{over}: {report.shipped}, prompt "
        f"{report.prompt_sha256[:12]}, {len(result.instructions)} instructions, {shipped.prompt_tokens} tokens."
    )


def _gain(report: EvaluationReport) -> Interval | None:
    """Macro-F1 gain of the shipped system over zero-shot; None if the report does not compare them."""
    systems = (report.shipped, zero_shot_of(report.shipped))
    return next((found.macro_f1_delta for found in report.comparisons if (found.a, found.b) == systems), None)


def note(result: PipelineResult) -> str:
    """The run's description in MLflow, in Markdown."""
    findings = [f"- {finding}" for finding in result.report.findings]
    page = [f"The report is the artifact `{PAGE}`."] if (result.folder / PAGE).is_file() else []
    return cut("\n\n".join([sentence(result), *(["\n".join(findings)] if findings else []), *page]), LONGEST_TAG)


def interval_words(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def system_metrics(report: EvaluationReport, timed: LatencyReport, name: str) -> dict[str, float]:
    """Metrics of one system, with the same names as those of trials and of the parent run."""
    return _scores(report.systems[name]) | _times(timed, name)


def trial_metrics(result: PipelineResult, trial: TrialReport) -> dict[str, float]:
    """Metrics on validation, and the prompt's latency if it was measured."""
    return _scores(trial.report) | _shape(trial) | _milliseconds(result.latency.trials.get(trial.trial_id))


def round_metrics(resolution: ResolutionReport, came_in: int) -> list[dict[str, float]]:
    """Metrics per step: step 0 is the list of `came_in` instructions that entered the loop, then one step per round,
    with the pool score at its start, and validation score, tokens and instructions at its end."""
    return [
        _list_metrics(resolution.came_in, came_in),
        *(
            {
                "pool_macro_f1": found.pool.macro_f1.value,
                **_list_metrics(found.validation, found.instructions),
                "failures": float(found.failures),
                "edits_proposed": float(found.proposed),
                "edits_refused": float(found.refused),
                "edits_accepted": float(len(found.accepted)),
            }
            for found in resolution.rounds
        ),
    ]


def spending_metrics(spending: Sequence[Spending]) -> dict[str, dict[str, float]]:
    """Prefix → metrics: `teacher/` has the totals, `teacher/<stage>/<role>/` one role's. `usd` is missing if a price is
    unknown; zero would mean free."""
    sections = {
        f"{TEACHER}{stage.stage}/{role.role}/": {
            "calls": float(role.calls),
            "input_tokens": float(tokens_read(role.tokens)),
            "output_tokens": float(tokens_written(role.tokens)),
            **({} if role.usd is None else {"usd": role.usd}),
        }
        for stage in spending
        for role in stage.roles
    }
    roles = [role for stage in spending for role in stage.roles]
    total = {"calls": float(sum(role.calls for role in roles))}
    if (usd := total_usd(roles)) is not None:
        total["usd"] = usd
    return {TEACHER: total, **sections}


def _list_metrics(validation: SystemReport, instructions: int) -> dict[str, float]:
    return {
        "validation_macro_f1": validation.macro_f1.value,
        "prompt_tokens": float(validation.prompt_tokens),
        "instructions": float(instructions),
    }


def _parent_metrics(result: PipelineResult) -> dict[str, float]:
    shipped, loop = result.report.shipped, result.report.loop
    metrics = (
        system_metrics(result.report, result.latency, shipped)
        | _shape(result.best)
        | {"instructions": float(len(result.instructions))}
    )
    if loop is not None:
        metrics |= {"loop_candidates": float(loop.candidates), "loop_accepted": float(loop.accepted)}
        metrics |= _interval("loop_gain_validation", loop.validation.macro_f1_delta)
        metrics |= _interval("loop_gain_test", loop.test.macro_f1_delta)
    if (gain := _gain(result.report)) is not None:
        metrics |= _interval("macro_f1_over_zero_shot", gain)
    return metrics


def _scores(report: SystemReport) -> dict[str, float]:
    return {
        **_interval("macro_f1", report.macro_f1),
        **_interval("accuracy", report.accuracy),
        **{f"per_label_f1.{label}": score.f1 for label, score in report.per_label.items()},
        "unparsable": float(report.unparsable),
        "prompt_tokens": float(report.prompt_tokens),
    }


def _times(timed: LatencyReport, system: str) -> dict[str, float]:
    return _milliseconds(timed.systems.get(system) or timed.systems.get(base_name(system)))


def _milliseconds(latency: Latency | None) -> dict[str, float]:
    if latency is None:
        return {}
    return {"latency_p50_ms": latency.p50_ms, "latency_p95_ms": latency.p95_ms, "prefill_ms": latency.prefill_ms}


def _shape(trial: TrialReport) -> dict[str, float]:
    return {
        "instructions": float(trial.instructions),
        "clusters": float(trial.clusters),
        "noise_share": trial.noise_share,
        **({} if trial.stability is None else {"stability": trial.stability}),
    }


def _interval(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
