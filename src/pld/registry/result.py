"""Reads the outputs of one pipeline run from artifacts/, and computes the content key under which they are logged."""

import hashlib
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pld.artifacts import MESSAGES_FILE, SHIPS, read_json, read_jsonl, read_prompt, read_record, read_text
from pld.errors import ArtifactError
from pld.evaluate.latency import read_latency
from pld.params import Config
from pld.records import (
    CALIBRATED,
    SPLITS,
    Calibration,
    Instruction,
    Message,
    Split,
    canonical_json,
    content_id,
    prompt_sha256,
    sha256,
)
from pld.registry.store import dvc_experiment, user_name
from pld.reports import TEACHER_STAGES, EvaluationReport, LatencyReport, Spending, TrialReport
from pld.resolve.records import ResolutionReport

DVC_LOCK = Path("dvc.lock")
# settings that do not change the result, and so are not part of its key
_NOT_IN_KEY = {"tracking", "promotion", "budget", "prices"}


@dataclass(frozen=True)
class DataSet:
    """One split; `digest` is the md5 that DVC records for its file."""

    split: Split
    path: Path
    digest: str


@dataclass(frozen=True)
class FailedTrial:
    """A trial that produced no prompt, and why."""

    trial_id: str
    settings: dict[str, Any]
    error: str


@dataclass(frozen=True)
class PipelineResult:
    """Everything that `track` logs. `messages`, `instructions` and `calibration` (None: uncalibrated) are what ships,
    `best` is the trial that the conflict loop started from, `spending` has an entry per stage that may ask the Teacher.

    `key` hashes the settings and the content of splits, trials, rounds, prompt, report and predictions. Latency, cost
    and the git commit are left out: they may change while the result stays the same.
    """

    folder: Path
    config: Config
    report: EvaluationReport
    latency: LatencyReport
    best: TrialReport
    trials: tuple[TrialReport, ...]
    failed_trials: tuple[FailedTrial, ...]
    resolution: ResolutionReport
    messages: tuple[Message, ...]
    instructions: tuple[Instruction, ...]
    calibration: Calibration | None
    datasets: tuple[DataSet, ...]
    spending: tuple[Spending, ...]
    key: str

    @property
    def test_digest(self) -> str:
        return next(data.digest for data in self.datasets if data.split == "test")


def read_result(config: Config, folder: Path = Path("artifacts")) -> PipelineResult:
    """Read and check the outputs of all earlier stages.

    Raises ArtifactError for a missing file, and for a prompt that is not the one that was evaluated.
    """
    report = read_record(folder / "evaluation/report.json", EvaluationReport)
    final = folder / SHIPS
    messages = read_prompt(final)
    if (digest := prompt_sha256(messages)) != report.prompt_sha256:
        raise ArtifactError(
            f"expected the prompt that was evaluated (sha256 {report.prompt_sha256[:12]}), got another one "
            f"({digest[:12]}) ({final / MESSAGES_FILE}); run `dvc repro`"
        )
    if report.shipped not in report.systems or report.task != config.task.name:
        raise ArtifactError(
            f"expected figures of {report.shipped!r} on task {config.task.name!r}, got {', '.join(report.systems)} "
            f"on {report.task!r} ({folder / 'evaluation/report.json'}); run `dvc repro`"
        )
    digests = read_json(folder / "splits/md5.json")
    shipped_calibrated = report.shipped.endswith(CALIBRATED)
    return PipelineResult(
        folder=folder,
        config=config,
        report=report,
        latency=read_latency(folder),
        best=read_record(folder / "best/trial.json", TrialReport),
        trials=tuple(read_record(path, TrialReport) for path in sorted(folder.glob("trials/*/report.json"))),
        resolution=read_record(folder / "resolve/report.json", ResolutionReport),
        messages=messages,
        instructions=tuple(read_jsonl(final / "instructions.jsonl", Instruction)),
        calibration=read_record(final / "calibration.json", Calibration) if shipped_calibrated else None,
        failed_trials=tuple(_failed_trial(path) for path in sorted(folder.glob("trials/*/error.json"))),
        datasets=tuple(DataSet(split, folder / f"splits/{split}.jsonl", digests[split]) for split in SPLITS),
        spending=read_spending(folder),
        key=_key(config, folder),
    )


def read_spending(folder: Path) -> tuple[Spending, ...]:
    """What the Teacher's answers cost, per stage."""
    return tuple(read_record(folder / f"spending/{stage}.json", Spending) for stage in TEACHER_STAGES)


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings → dotted keys; a list is its JSON."""
    flat: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = canonical_json(value) if isinstance(value, Mapping | list | tuple) else str(value)
    return flat


def settings(config: Config) -> dict[str, str]:
    """The composed settings, flattened, without the tracking store and the single prices."""
    return flattened(config.model_dump(mode="json", exclude={"tracking": True, "prices": {"models"}}))


def provenance() -> dict[str, str]:
    """Tags for who logged a run, and from which code: the git commit, whether the working tree was dirty, and a hash of
    dvc.lock (without `track`, whose entry is written after it ran). Unknown ones are left out."""
    tags = {"mlflow.source.name": "pld.stages track", "mlflow.source.type": "LOCAL", "mlflow.user": user_name()}
    if name := dvc_experiment():
        tags["pld.dvc_experiment"] = name
    if commit := _git("rev-parse", "HEAD"):
        tags["mlflow.source.git.commit"] = commit
        tags["pld.git_dirty"] = str(bool(_git("status", "--porcelain", "--untracked-files=no"))).lower()
    if DVC_LOCK.exists():
        stages = dict((yaml.safe_load(read_text(DVC_LOCK)) or {}).get("stages") or {})
        stages.pop("track", None)
        tags["pld.dvc_lock"] = sha256(canonical_json(stages))
    return tags


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _failed_trial(path: Path) -> FailedTrial:
    found = read_json(path)
    return FailedTrial(path.parent.name, dict(found["settings"]), str(found["error"]))


def _key(config: Config, folder: Path) -> str:
    held = config.model_dump(mode="json", exclude=_NOT_IN_KEY)
    return content_id({"config": held, "files": _digests(folder, _hashed_files(folder))})


def _hashed_files(folder: Path) -> Iterable[Path]:
    for pattern in ("trials/*/*", "best/*", "resolve/rounds/*/*", "resolve/final/*", f"{SHIPS}/*"):
        yield from sorted(folder.glob(pattern))
    yield folder / "resolve/report.json"
    yield folder / "splits/md5.json"
    yield folder / "evaluation/report.json"
    yield folder / "evaluation/predictions.jsonl"


def _digests(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
