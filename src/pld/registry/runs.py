"""A pipeline result as MLflow runs: one parent, one nested run per trial and per system."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pld.artifacts import SHIPS, read_record
from pld.pricing import tokens_read, tokens_written, total_usd
from pld.progress import progress
from pld.records import (
    EvaluationReport,
    Interval,
    Latency,
    LatencyReport,
    Reviewed,
    Spending,
    SystemReport,
    TrialReport,
    content_id,
)
from pld.registry.promotion_gates import base_name, zero_shot_of
from pld.registry.result import DataSet, FailedTrial, PipelineResult, flattened, provenance, settings
from pld.registry.store import Store, dvc_experiment, experiment_id, translated, user_name
from pld.resolve.records import ResolutionReport

KEY = "pld.key"
KIND = "pld.kind"  # result | trial | system
COMPLETE = "pld.complete"
EVALUATION = "evaluation"  # a run's folder of artifacts
PAGE = Path("report/index.html")  # under artifacts/, and among those of the run
REPORT = "pld.report"  # tag: where among the artifacts the page for people is
SHEETS = "pld.review_sheets"  # tag: how many sheets of reviewers made the list that ships
TEACHER = "teacher/"
SPENDING = "spending"  # a run's folder of artifacts
ROUND = "round/"  # MLflow's UI gives the metrics of one prefix a section of their own
_CONTEXTS = {"train": "training", "validation": "validation", "test": "testing"}
_LONGEST_VALUE = 6000  # of a parameter, in MLflow 3.17
_LONGEST_NOTE = 8000  # of a tag


@dataclass(frozen=True)
class LoggedRun:
    """The parent run of a result; `new` is False when it had been logged before."""

    run_id: str
    new: bool


def log_result(store: Store, result: PipelineResult) -> LoggedRun:
    """Log `result` unless it is there: a run is known by its content key.

    What an interrupted run left half logged is deleted and logged again. Raises RegistryError.
    """
    with translated(store.uri), store.lock:
        experiment = experiment_id(store, result.config.task.name)
        found = store.client.search_runs(
            [experiment], f"tags.`{KEY}` = '{result.key}' and tags.`{KIND}` = 'result'", order_by=["start_time ASC"]
        )
        for run in found:
            if run.data.tags.get(COMPLETE) == "true":
                return LoggedRun(run.info.run_id, new=False)
        for run in found:
            _delete(store, experiment, run.info.run_id)
        return LoggedRun(_Logger(store, experiment, result).log(), new=True)


def _delete(store: Store, experiment: str, run_id: str) -> None:
    nested: list[Any] = store.client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    for run in nested:
        store.client.delete_run(run.info.run_id)
    store.client.delete_run(run_id)


class _Logger:
    """Writes the runs of one result that is not there yet."""

    def __init__(self, store: Store, experiment: str, result: PipelineResult) -> None:
        self._client = store.client
        self._experiment = experiment
        self._result = result
        self._shared_tags = provenance() | who()

    def log(self) -> str:
        result = self._result
        # MLflow's lists and legends show some fifteen characters of a name: first what tells runs apart
        name = f"{result.report.systems[result.report.shipped].macro_f1.value:.3f} {result.key[:8]}"
        parent = self._start(name, "result", result.key, None, {"mlflow.note.content": note(result)})
        params = settings(result.config) | flattened(result.best.settings, "winner.") | {"split": result.report.split}
        # what the settings do not tell: MLflow's comparison shows the parameters in which runs differ
        params |= {"prompt_sha256": result.report.prompt_sha256}
        params |= {f"data.{data.split}.md5": data.digest for data in result.datasets}
        self._values(parent, params, _parent_metrics(result))
        for step, metrics in enumerate(round_metrics(result.resolution, result.best.instructions)):
            self._metrics(parent, metrics, step, ROUND)
        self._spending(parent)
        self._data_sets(parent, result.datasets)
        self._parent_files(parent)
        with progress("track", len(result.trials) + len(result.report.systems)) as advance:
            for trial in result.trials:
                self._trial(parent, trial)
                advance(1)
            for failed in result.failed_trials:
                self._failed_trial(parent, failed)
            for name in result.report.systems:
                self._system(parent, name)
                advance(1)
        self._client.set_tag(parent, COMPLETE, "true")
        self._client.set_terminated(parent)
        return parent

    def _spending(self, run: str) -> None:
        for section, metrics in spending_metrics(self._result.spending).items():
            self._metrics(run, metrics, section=section)
        if any(role.usd is None for stage in self._result.spending for role in stage.roles):
            self._client.set_tag(run, "pld.teacher_usd", "unknown")
        for path in sorted((self._result.folder / "spending").glob("*.json")):
            self._file(run, path, SPENDING)

    def _trial(self, parent: str, trial: TrialReport) -> None:
        winner = {"pld.winner": "true"} if trial.trial_id == self._result.best.trial_id else {}
        key = content_id([self._result.key, "trial", trial.trial_id])
        run = self._start(f"trial {trial.trial_id}", "trial", key, parent, winner)
        self._values(run, {**flattened(trial.settings), "split": "validation"}, trial_metrics(self._result, trial))
        self._data_sets(run, [data for data in self._result.datasets if data.split != "test"])
        for name in ("system_prompt.md", "instructions.jsonl", "clusters.jsonl", "report.json"):
            self._file(run, self._result.folder / "trials" / trial.trial_id / name)
        self._client.set_terminated(run)

    def _failed_trial(self, parent: str, trial: FailedTrial) -> None:
        key = content_id([self._result.key, "trial", trial.trial_id])
        run = self._start(f"trial {trial.trial_id}", "trial", key, parent, {"pld.error": trial.error})
        self._values(run, {**flattened(trial.settings), "split": "validation"}, {})
        self._client.set_terminated(run, "FAILED")

    def _system(self, parent: str, name: str) -> None:
        result = self._result
        shipped = {"pld.shipped": "true"} if name == result.report.shipped else {}
        key = content_id([result.key, "system", name])
        run = self._start(name, "system", key, parent, shipped)
        params = {"system": name, "split": result.report.split, "student": str(result.config.student.get("name"))}
        self._values(run, params, system_metrics(result.report, result.latency, name))
        self._data_sets(run, [data for data in result.datasets if data.split == result.report.split])
        self._client.set_terminated(run)

    def _start(self, name: str, kind: str, key: str, parent: str | None, more: Mapping[str, str] | None = None) -> str:
        nested = {"mlflow.parentRunId": parent} if parent else {}
        tags = {**self._shared_tags, **nested, **(more or {}), KEY: key, KIND: kind}
        return str(self._client.create_run(self._experiment, run_name=name, tags=tags).info.run_id)

    def _values(self, run: str, params: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Param

        pairs = [Param(_name(key), value[:_LONGEST_VALUE]) for key, value in params.items()]
        for start in range(0, len(pairs), 100):  # the most that one batch takes
            self._client.log_batch(run, params=pairs[start : start + 100])
        if metrics:
            self._metrics(run, metrics)

    def _metrics(self, run: str, metrics: Mapping[str, float], step: int = 0, section: str = "") -> None:
        self._client.log_batch(run, metrics=metric_batch(metrics, step, section))

    def _data_sets(self, run: str, datasets: Sequence[DataSet]) -> None:
        self._client.log_inputs(run, data_inputs(self._result.report.task, datasets))

    def _parent_files(self, run: str) -> None:
        folder = self._result.folder
        for path in (
            folder / "config.yaml",
            folder / "trials.csv",
            *(folder / SHIPS / name for name in _SHIPPED_FILES),
        ):
            self._file(run, path)
        for name in ("best", "resolve"):
            self._client.log_artifacts(run, str(folder / name), name)
        for path in sorted((folder / "evaluation").glob("*")):
            self._file(run, path, EVALUATION)
        for path in sorted((folder / "evaluation/plots").glob("*")):
            self._file(run, path, "plots")
        for path in sorted((folder / SHIPS).glob("*")):
            self._file(run, path, SHIPS.as_posix())
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


_SHIPPED_FILES = ("system_prompt.md", "instructions.jsonl", "calibration.json")


def metric_batch(metrics: Mapping[str, float], step: int = 0, section: str = "") -> list[Any]:
    """As MLflow takes them; `section` is a prefix of the names."""
    from mlflow.entities import Metric

    now = time.time_ns() // 1_000_000
    return [Metric(section + _name(key), value, now, step) for key, value in metrics.items()]


def data_inputs(task: str, datasets: Sequence[DataSet]) -> list[Any]:
    """Splits as MLflow's inputs of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return [
        DatasetInput(
            Dataset(
                name=f"{task}-{data.split}",
                digest=data.digest,
                source_type="dvc",
                source=json.dumps({"path": data.path.as_posix(), "md5": data.digest}),
            ),
            [InputTag("mlflow.data.context", _CONTEXTS[data.split])],
        )
        for data in datasets
    ]


def sentence(result: PipelineResult) -> str:
    """What ships, and what it was measured to do."""
    report = result.report
    shipped = report.systems[report.shipped]
    gains = [
        found.macro_f1_delta for found in report.comparisons if (found.a, found.b) == (report.shipped, _rival(report))
    ]
    over = f", {gains[0].signed} over {_rival(report)}" if gains else ""
    return (
        f"Macro-F1 {interval_words(shipped.macro_f1)} on {report.n} test examples{over}: {report.shipped}, prompt "
        f"{report.prompt_sha256[:12]}, {len(result.instructions)} instructions, {shipped.prompt_tokens} tokens."
    )


def note(result: PipelineResult) -> str:
    """The run's description in MLflow, in Markdown."""
    findings = [f"- {finding}" for finding in result.report.findings]
    page = [f"The report is the artifact `{PAGE}`."] if (result.folder / PAGE).is_file() else []
    return "\n\n".join([sentence(result), *(["\n".join(findings)] if findings else []), *page])[:_LONGEST_NOTE]


def interval_words(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _rival(report: EvaluationReport) -> str:
    return zero_shot_of(report.shipped)


def system_metrics(report: EvaluationReport, timed: LatencyReport, name: str) -> dict[str, float]:
    """The figures of one system, under the names that trials and the parent use too."""
    return _scores(report.systems[name]) | _times(timed.systems.get(name) or timed.systems.get(base_name(name)))


def trial_metrics(result: PipelineResult, trial: TrialReport) -> dict[str, float]:
    """Its figures on validation, and its prompt's latency where that was timed."""
    return _scores(trial.report) | _shape(trial) | _times(result.latency.trials.get(trial.trial_id))


def round_metrics(resolution: ResolutionReport, came_in: int) -> list[dict[str, float]]:
    """Step by step: first the list of `came_in` instructions that came into the loop, then each round: its pool, which
    the list that it began with answered, and validation, tokens and instructions of the list that it ended with."""
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
    """Section of metrics → its figures: `teacher/` for all, `teacher/<stage>/<role>/` for each. Where a price is not
    known there is no `usd`; zero would be read as free."""
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
    for found in result.report.comparisons:
        if (found.a, found.b) == (shipped, _rival(result.report)):
            metrics |= _interval("macro_f1_over_zero_shot", found.macro_f1_delta)
    return metrics


def _scores(report: SystemReport) -> dict[str, float]:
    return {
        **_interval("macro_f1", report.macro_f1),
        **_interval("accuracy", report.accuracy),
        **{f"per_label_f1.{label}": score.f1 for label, score in report.per_label.items()},
        "unparsable": float(report.unparsable),
        "prompt_tokens": float(report.prompt_tokens),
    }


def _times(latency: Latency | None) -> dict[str, float]:
    if latency is None:
        return {}
    return {"latency_p50_ms": latency.p50_ms, "latency_p95_ms": latency.p95_ms, "prefill_ms": latency.prefill_ms}


def _shape(trial: TrialReport) -> dict[str, float]:
    return {
        "instructions": float(trial.instructions),
        "clusters": float(trial.clusters),
        "noise_share": trial.noise_share,
    }


def _interval(name: str, found: Interval) -> dict[str, float]:
    return {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}


def _name(key: str) -> str:
    """MLflow takes letters, digits and `_-. :` in names."""
    return re.sub(r"[^\w\-. :]", "_", key)[:250]


def who() -> dict[str, str]:
    tags = {"mlflow.source.name": "pld.stages track", "mlflow.source.type": "LOCAL", "mlflow.user": user_name()}
    if name := dvc_experiment():
        tags["pld.dvc_experiment"] = name
    return tags
