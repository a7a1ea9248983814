"""Measures a registered version again if it was measured on another test set or Student than the present one.

Two versions can be compared only on the same examples, so this reads the test split, as otherwise only `evaluate` does.
A version is measured with its own prompt, calibration and Student, once for each test set.
"""

import hashlib
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pld.artifacts import file_sha256, read_json, read_jsonl, read_record, write_json, write_jsonl
from pld.config.build import build
from pld.distill.render import base_messages
from pld.distill.trial import groups_of
from pld.errors import ArtifactError, PldError, RegistryError
from pld.evaluate.latency import NOT_MEASURED, served_by
from pld.evaluate.measure import Answers, evaluation_report, measured
from pld.evaluate.systems import Prompted, System
from pld.params import Config
from pld.ports import Student
from pld.progress import progress
from pld.records import CALIBRATED, DISTILLED, ZERO_SHOT, Calibration, Example, Message, Prediction, content_id
from pld.registry.promotion_gates import Evidence
from pld.registry.runs import interval_words
from pld.registry.store import Store
from pld.registry.versions import MACRO_F1, MEASURED, TEST_DIGEST, TOKENS, Version
from pld.reports import EvaluationReport, LatencyReport, SystemCost, TrainingCost
from pld.serving.model import ServedSpec

Read = Callable[[Version], tuple[ServedSpec, tuple[Message, ...]]]


@dataclass(frozen=True)
class Conditions:
    """What versions are compared on: the test set (md5 `test_digest`) in the artifacts `folder`, and the Student as the
    report there describes it."""

    test_digest: str
    student: Mapping[str, str]
    folder: Path

    @property
    def key(self) -> str:
        return content_id([self.test_digest, dict(self.student)])


def current_conditions(config: Config, folder: Path = Path("artifacts")) -> Conditions | None:
    """Those of the present artifacts; None if they hold no evaluation of the task."""
    try:
        report = read_record(folder / "evaluation/report.json", EvaluationReport)
        digest = str(read_json(folder / "splits/md5.json")["test"])
    except ArtifactError:
        return None
    return Conditions(digest, report.student, folder) if report.task == config.task.name else None


class Measurements:
    """Measurements of the versions of the registered `model`; `read` loads a version's spec and prompt."""

    def __init__(self, store: Store, model: str, read: Read) -> None:
        self._store = store
        self._client = store.client
        self._model = model
        self._read = read

    def evidence(self, version: Version, config: Config, conditions: Conditions | None) -> Evidence:
        """The measurement of `version` under `conditions` (None: its last one, whatever it was measured on).

        A new one is kept among the artifacts of the run that the version comes from. Raises RegistryError where it is
        neither stored nor can be made now.
        """
        stored = self._stored(*version.measured_in, version.test_digest)
        if conditions is None:
            if stored is None:
                raise RegistryError(
                    f"expected its measurement in run {version.measured_in[0]}, got it deleted or incomplete "
                    f"({self._model} version {version.number}); run `dvc repro` on the commit that made it"
                )
            return stored
        if stored and version.test_digest == conditions.test_digest and stored.report.student == conditions.student:
            return stored
        folder = f"measured/{conditions.key}"
        found = self._stored(version.evidence_run, folder, conditions.test_digest)
        if found is None:
            try:
                found = self._measure(version, config, conditions, stored)
            except PldError as error:
                raise RegistryError(
                    f"{self._model} version {version.number} was not measured on the present test set and Student, and "
                    f"can't be now: {error}"
                ) from None
            self._keep(version, folder, found, conditions)
        return found

    def _measure(self, version: Version, config: Config, conditions: Conditions, stored: Evidence | None) -> Evidence:
        spec, messages = self._read(version)
        if spec.task.labels != config.task.labels:
            raise RegistryError(
                f"it answers with the labels {', '.join(spec.task.labels)}, and the task's are now "
                f"{', '.join(config.task.labels)}"
            )
        name = f"{self._model} version {version.number}"
        # as fitted when the version was made: the training examples may be gone
        zero_shot = stored.report.calibrations.get(ZERO_SHOT) if stored and spec.calibration else None
        return _measure(name, spec, messages, conditions, config, zero_shot)

    def _keep(self, version: Version, folder: str, found: Evidence, conditions: Conditions) -> None:
        """Where the version's run is deleted for good, nothing is kept."""
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary)
            write_json(path / "report.json", found.report)
            write_json(path / "latency.json", found.latency)
            write_jsonl(path / "predictions.jsonl", found.rows)
            write_json(path / "groups.json", found.groups)
            try:
                self._client.log_artifacts(version.evidence_run, temporary, folder)
            except MlflowException:
                self._store.must_answer()
                return
        shipped = found.report.systems[found.report.shipped]
        tags = {
            MEASURED: f"{version.evidence_run}/{folder}",
            TEST_DIGEST: conditions.test_digest,
            MACRO_F1: interval_words(shipped.macro_f1),
            TOKENS: str(shipped.prompt_tokens),
        }
        for key, value in tags.items():
            self._client.set_model_version_tag(self._model, str(version.number), key, value)

    def _stored(self, run_id: str, folder: str, test_digest: str) -> Evidence | None:
        from mlflow.exceptions import MlflowException

        with tempfile.TemporaryDirectory() as temporary:
            try:
                path = Path(self._client.download_artifacts(run_id, folder, temporary))
                return Evidence(
                    report=read_record(path / "report.json", EvaluationReport),
                    latency=_latency(path),
                    rows=read_jsonl(path / "predictions.jsonl", Prediction),
                    test_digest=test_digest,
                    groups=read_json(path / "groups.json"),
                )
            except (MlflowException, ArtifactError, OSError):
                self._store.must_answer()
                return None


def _latency(folder: Path) -> LatencyReport:
    """Nothing is timed if the report came from DVC's cache, or the times belong to another report."""
    path = folder / "latency.json"
    if path.exists():
        found = read_record(path, LatencyReport)
        if found.report_sha256 in ("", file_sha256(folder / "report.json")):
            return found
    return LatencyReport(machine=NOT_MEASURED, systems={})


def _read_test(conditions: Conditions) -> list[Example]:
    path = conditions.folder / "splits/test.jsonl"
    test = read_jsonl(path, Example)
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    if digest != conditions.test_digest:
        raise ArtifactError(
            f"expected the test set that was evaluated (md5 {conditions.test_digest[:12]}), got {digest[:12]} "
            f"({path}); run `dvc repro`"
        )
    return test


def _measure(
    name: str,
    spec: ServedSpec,
    messages: tuple[Message, ...],
    conditions: Conditions,
    config: Config,
    zero_shot: Calibration | None,
) -> Evidence:
    """Measure the version, and zero-shot with the calibration `zero_shot`, as `evaluate` does. The rivals of the gates
    answered the same test examples when the present artifacts were evaluated."""
    test = _read_test(conditions)
    student: Student = build(spec.student, "student")
    systems = [
        System(base, Prompted(spec.task, student, own), "", student, own, calibration=calibration)
        for base, own, calibration in (
            (ZERO_SHOT, base_messages(spec.task), zero_shot),
            (DISTILLED, messages, spec.calibration),
        )
    ]
    with progress(f"{name}, on the present test set", 2 * len(test)) as advance:
        found = {system.name: measured(system, test, config, config.latency.requests, advance) for system in systems}
    answers = {system: own for system, (own, _) in found.items()} | _rivals(conditions, config, test)
    latency = {system: timing for system, (_, timing) in found.items()}
    method = spec.calibration.method if spec.calibration else "none"
    calibration = config.calibration.model_copy(update={"method": method})
    config = config.model_copy(update={"calibration": calibration})
    report, rows = evaluation_report(config, spec.prompt_sha256, test, answers, student.describe(), None)
    report = report.model_copy(update={"verdict": None})  # few of the systems were measured
    timed = LatencyReport(machine=served_by(student), systems=latency)
    groups = zip((example.id for example in test), groups_of(test) or (), strict=False)
    return Evidence(report, timed, rows, conditions.test_digest, dict(groups))


def _rivals(conditions: Conditions, config: Config, test: Sequence[Example]) -> dict[str, Answers]:
    """The stored answers of `promotion.rivals` and of their calibrated variants."""
    labels, by_id = config.task.labels, {example.id: example for example in test}
    rows: dict[str, list[Prediction]] = {}
    for row in read_jsonl(conditions.folder / "evaluation/predictions.jsonl", Prediction):
        if row.system.removesuffix(CALIBRATED) in config.promotion.rivals and row.example_id in by_id:
            rows.setdefault(row.system, []).append(row)
    nothing = (math.nan,) * len(labels)
    cost = SystemCost(tokens_per_request=0, training=TrainingCost(), readable="")
    return {
        system: Answers(
            [by_id[row.example_id] for row in own],
            np.array([row.scores or nothing for row in own], dtype=np.float64),
            None,
            0,
            cost,
        )
        for system, own in rows.items()
    }
