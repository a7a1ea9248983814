"""A version's measurement on the present test set: the stored one where it is of that, else a new one, made once.

Beside `evaluate` this alone reads the test split: what compares two versions must be answers to the same examples,
given by Students as they are now. A version is measured with its own prompt, calibration and Student.
"""

import hashlib
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pld.artifacts import read_json, read_jsonl, read_record, write_json, write_jsonl
from pld.config.build import build
from pld.distill.render import base_messages, prompt_messages
from pld.distill.trial import groups_of
from pld.errors import ArtifactError, PldError, RegistryError
from pld.evaluate.baselines import shipped_system
from pld.evaluate.latency import measure_latency, served_by
from pld.evaluate.measure import answers_of
from pld.evaluate.systems import Prompted, System
from pld.metrics import calibrate, choose, compare, indices, predictions, system_report
from pld.params import Config
from pld.ports import Student
from pld.progress import progress
from pld.records import (
    CALIBRATED,
    DISTILLED,
    ZERO_SHOT,
    Calibration,
    EvaluationReport,
    Example,
    LatencyReport,
    Prediction,
    SystemReport,
    content_id,
)
from pld.registry.promotion_gates import Evidence, zero_shot_of
from pld.registry.result import DataSet, PipelineResult, provenance
from pld.registry.runs import (
    EVALUATION,
    KEY,
    KIND,
    data_inputs,
    interval_words,
    metric_batch,
    system_metrics,
    who,
)
from pld.registry.store import Store, experiment_id
from pld.registry.versions import MACRO_F1, MEASURED, TEST_DIGEST, TOKENS, Version
from pld.serving.model import ServedSpec

REMEASURED = "pld.measured."
Read = Callable[[Version], tuple[ServedSpec, str]]


@dataclass(frozen=True)
class Present:
    """What versions are compared on: the test set (md5) that the artifacts in `folder` hold, and the Student as their
    report describes it."""

    test_digest: str
    student: Mapping[str, str]
    folder: Path

    @property
    def key(self) -> str:
        return content_id([self.test_digest, dict(self.student)])


def present_of(result: PipelineResult) -> Present:
    return Present(result.test_digest, result.report.student, result.folder)


def find_present(config: Config, folder: Path = Path("artifacts")) -> Present | None:
    """That of the artifacts as they lie there; None where they are not those of an evaluation of the task."""
    try:
        report = read_record(folder / "evaluation/report.json", EvaluationReport)
        digest = str(read_json(folder / "splits/md5.json")["test"])
    except ArtifactError:
        return None
    return Present(digest, report.student, folder) if report.task == config.task.name else None


@dataclass(frozen=True)
class _Stored:
    report: EvaluationReport
    latency: LatencyReport
    rows: list[Prediction]
    groups: Mapping[str, str]

    def evidence(self, test_digest: str) -> Evidence:
        shipped = [row for row in self.rows if row.system == self.report.shipped]
        return Evidence(self.report, self.latency, shipped, test_digest, self.groups)


class Measurements:
    """Of the versions of one task in one store; `read` gives what a version answers with."""

    def __init__(self, store: Store, task: str, model: str, read: Read) -> None:
        self._store = store
        self._client = store.client
        self._task = task
        self._model = model
        self._read = read

    def evidence(self, version: Version, config: Config, present: Present | None) -> Evidence:
        """What `version` was measured to do on `present` (None: on whatever it was measured on last).

        Raises RegistryError where that is neither stored nor can be measured now.
        """
        stored = self._stored(version.measured_run)
        if present is None:
            if stored is None:
                raise RegistryError(
                    f"{self._model} version {version.number}: wanted its measurement in run {version.measured_run}, "
                    "found it deleted or incomplete; run `dvc repro` on the commit that made it"
                )
            return stored.evidence(version.test_digest)
        if stored and version.test_digest == present.test_digest and stored.report.student == present.student:
            return stored.evidence(version.test_digest)
        remembered = self._stored(version.tags.get(REMEASURED + present.key))
        if remembered is not None:
            return remembered.evidence(present.test_digest)
        try:
            return self._anew(version, config, present, stored)
        except PldError as error:
            raise RegistryError(
                f"{self._model} version {version.number} was not measured on the present test set and Student, and "
                f"can't be now: {error}"
            ) from None

    def _anew(self, version: Version, config: Config, present: Present, stored: _Stored | None) -> Evidence:
        spec, prompt = self._read(version)
        if spec.task.labels != config.task.labels:
            raise RegistryError(
                f"it answers with the labels {', '.join(spec.task.labels)}, and the task's are now "
                f"{', '.join(config.task.labels)}"
            )
        test = _read_test(present)
        student: Student = build(spec.student, "student")
        found = _measured(f"{self._model} version {version.number}", spec, prompt, student, test, config, stored)
        run = self._log(version, found, present)
        shipped = found.report.systems[found.report.shipped]
        tags = {
            REMEASURED + present.key: run,
            MEASURED: run,
            TEST_DIGEST: present.test_digest,
            MACRO_F1: interval_words(shipped.macro_f1),
            TOKENS: str(shipped.prompt_tokens),
        }
        for key, value in tags.items():
            self._client.set_model_version_tag(self._model, str(version.number), key, value)
        return found.evidence(present.test_digest)

    def _log(self, version: Version, found: _Stored, present: Present) -> str:
        from mlflow.exceptions import MlflowException

        try:
            parent = self._client.get_run(version.evidence_run)
            nested = {"mlflow.parentRunId": version.evidence_run} if parent.info.lifecycle_stage == "active" else {}
        except MlflowException:
            nested = {}
        key = content_id([version.number, present.key])
        tags = {**provenance(), **who(), **nested, KIND: "measurement", KEY: key, "pld.shipped": "true"}
        experiment = experiment_id(self._store, self._task)
        name = f"version {version.number} on test {present.test_digest[:8]}"
        run = str(self._client.create_run(experiment, run_name=name, tags=tags).info.run_id)
        data = DataSet("test", present.folder / "splits/test.jsonl", present.test_digest)
        self._client.log_inputs(run, data_inputs(self._task, [data]))
        metrics = system_metrics(found.report, found.latency, found.report.shipped)
        self._client.log_batch(run, metrics=metric_batch(metrics))
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_json(folder / "report.json", found.report)
            write_json(folder / "latency.json", found.latency)
            write_jsonl(folder / "predictions.jsonl", found.rows)
            write_json(folder / "groups.json", found.groups)
            self._client.log_artifacts(run, temporary, EVALUATION)
        self._client.set_terminated(run)
        return run

    def _stored(self, run_id: str | None) -> _Stored | None:
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        with tempfile.TemporaryDirectory() as temporary:
            try:
                folder = Path(self._client.download_artifacts(run_id, EVALUATION, temporary))
                return _Stored(
                    report=read_record(folder / "report.json", EvaluationReport),
                    latency=read_record(folder / "latency.json", LatencyReport),
                    rows=read_jsonl(folder / "predictions.jsonl", Prediction),
                    groups=read_json(folder / "groups.json"),
                )
            except (MlflowException, ArtifactError, OSError):
                self._store.must_answer()
                return None


def _read_test(present: Present) -> list[Example]:
    path = present.folder / "splits/test.jsonl"
    test = read_jsonl(path, Example)
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    if digest != present.test_digest:
        raise ArtifactError(
            f"{path}: wanted the test set that was evaluated (md5 {present.test_digest[:12]}), found {digest[:12]}; "
            "run `dvc repro`"
        )
    return test


def _measured(
    name: str,
    spec: ServedSpec,
    prompt: str,
    student: Student,
    test: list[Example],
    config: Config,
    stored: _Stored | None,
) -> _Stored:
    """The version and zero-shot beside it, as `evaluate` measures them."""
    task, settings = spec.task, config.evaluation
    groups = groups_of(test)
    gold = indices([example.label for example in test], task.labels)
    shipped = shipped_system("batch" if spec.calibration else "none")
    reports: dict[str, SystemReport] = {}
    rows: list[Prediction] = []
    latency = {}
    beginnings = {ZERO_SHOT: base_messages(task), DISTILLED: prompt_messages(prompt)}
    calibrations = {ZERO_SHOT: _zero_shot_calibration(spec, stored), DISTILLED: spec.calibration}
    with progress(f"{name}, on the present test set", 2 * len(test)) as advance:
        for base, beginning in beginnings.items():
            calibration = calibrations[base]
            answer = Prompted(task, student, beginning)
            system = System(base, answer, readable="", student=student, beginning=beginning, calibration=calibration)
            found = answers_of(system, test, task.labels, advance)
            scores = calibrate(found.scores, calibration) if calibration else found.scores
            own = base + (CALIBRATED if calibration else "")
            reports[own] = system_report(
                gold, choose(scores), task.labels, groups, settings.resamples, settings.seed, found.prompt_tokens
            )
            rows += predictions(test, own, scores, task.labels)
            latency[own] = measure_latency(system, test, config.latency.requests)
    chosen = {own: [row.predicted for row in rows if row.system == own] for own in reports}
    comparisons = [
        compare(
            shipped,
            rival,
            gold,
            indices(chosen[shipped], task.labels),
            indices(chosen[rival], task.labels),
            len(task.labels),
            groups,
            settings.resamples,
            settings.seed,
        )
        for rival in chosen
        if rival == zero_shot_of(shipped)
    ]
    report = EvaluationReport(
        task=task.name,
        split="test",
        n=len(test),
        labels=task.labels,
        prompt_sha256=spec.prompt_sha256,
        shipped=shipped,
        systems=reports,
        comparisons=tuple(comparisons),
        student=dict(student.describe()),
    )
    timed = LatencyReport(machine=served_by(student), systems=latency)
    return _Stored(report, timed, rows, dict(zip((example.id for example in test), groups or (), strict=False)))


def _zero_shot_calibration(spec: ServedSpec, stored: _Stored | None) -> Calibration | None:
    """Zero-shot's calibration as it was when the version was made: what its calibrated scores lack of its plain ones.
    The training examples of that time, of which it was the mean, may be gone."""
    if spec.calibration is None or stored is None:
        return None
    rows = {(row.system, row.example_id): row.scores for row in stored.rows if row.scores}
    for (system, example), plain in rows.items():
        calibrated = rows.get((ZERO_SHOT + CALIBRATED, example))
        if system == ZERO_SHOT and calibrated:
            return Calibration(
                labels=spec.task.labels,
                mean_log_scores=tuple(a - b for a, b in zip(plain, calibrated, strict=True)),
                examples=spec.calibration.examples,
            )
    return None
