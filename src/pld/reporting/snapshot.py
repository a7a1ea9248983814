"""Reads a side of `pld diff`: the prompt of a registered version or of a folder under artifacts/, with the settings
that its answers depend on and the answers that are kept of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pld.artifacts import SHIPS, read_json, read_jsonl, read_prompt, read_record
from pld.distill.trial import groups_of
from pld.errors import ArtifactError
from pld.params import Config
from pld.records import (
    CALIBRATED,
    CLUSTERED,
    DISTILLED,
    UNREVIEWED,
    Calibration,
    Example,
    Instruction,
    Message,
    Messages,
    Prediction,
    Split,
    Task,
)
from pld.registry.release import fetch_release
from pld.registry.result import flattened
from pld.reports import EvaluationReport, TrialReport

ALIASES = ("production", "candidate", "previous")
LISTS = {
    "artifacts": (SHIPS, "what ships now"),
    "best": (Path("best"), "the winner of the sweep"),
    "resolve": (Path("resolve/final"), "what the conflict loop left"),
}
_PREFIX = 4  # characters of a trial's id


@dataclass(frozen=True)
class Snapshot:
    """`settings`: task, Student and calibration, flattened; `trial`: what the sweep varied, if known; `tokens` and
    `instructions` None: not kept; `test_digest`: md5 of the test split that the answers on test are of; `searching`:
    answers on validation come from the sweep, at `student.search_dtype`."""

    name: str
    what: str
    messages: tuple[Message, ...]
    labels: tuple[str, ...]
    settings: Mapping[str, str]
    instructions: Sequence[Instruction] | None
    tokens: int | None
    answers: Mapping[Split, Sequence[Prediction]]
    test_digest: str | None = None
    trial: Mapping[str, str] = field(default_factory=dict)
    searching: bool = False


def read_snapshot(config: Config, artifacts: Path, name: str) -> Snapshot:
    """`name`: an alias or a number of the registry, `artifacts`, `best`, `resolve`, the beginning of a trial's id, or a
    folder with instructions.jsonl, system_prompt.md and messages.json.

    Raises ArtifactError for anything else and for missing files, RegistryError for a version that can't be read.
    """
    if name in LISTS:
        folder, what = LISTS[name]
        winner = read_record(artifacts / "best/trial.json", TrialReport)
        return _in_folder(config, artifacts, artifacts / folder, name, what, winner)
    if name in ALIASES or (name.isascii() and name.isdigit()):
        return _registered(config, name)
    if Path(name).is_dir():
        return _in_folder(config, artifacts, Path(name), name, f"folder {name}")
    trials = [path.parent for path in sorted(artifacts.glob("trials/*/system_prompt.md"))]
    begins = [path for path in trials if path.name.startswith(name)] if len(name) >= _PREFIX else []
    if len(begins) == 1:
        trial = read_record(begins[0] / "report.json", TrialReport)
        return _in_folder(config, artifacts, begins[0], trial.trial_id, "a trial of the sweep", trial, searching=True)
    raise ArtifactError(
        f"expected {', '.join(ALIASES)}, a version's number, {', '.join(LISTS)}, a folder with instructions.jsonl and "
        f"messages.json, or {_PREFIX} or more characters of a trial's id, got {name!r}, which begins "
        f"{len(begins) or 'none'} of {len(trials)} trials ({artifacts}/trials)"
    )


def groups_in(artifacts: Path, split: Split, test_digest: str | None) -> dict[str, str]:
    """Example id → group; {}: examples are independent, or `test_digest` is not that of the present test split."""
    if split == "test":
        path = artifacts / "evaluation/groups.json"
        same = path.exists() and test_digest == _test_digest(artifacts)
        return {str(key): str(value) for key, value in read_json(path).items()} if same else {}
    examples = read_jsonl(artifacts / "splits/validation.jsonl", Example)
    return dict(zip((example.id for example in examples), groups_of(examples) or [], strict=False))


def _in_folder(
    config: Config,
    artifacts: Path,
    folder: Path,
    name: str,
    what: str,
    trial: TrialReport | None = None,
    searching: bool = False,
) -> Snapshot:
    messages = read_prompt(folder)
    answers: dict[Split, Sequence[Prediction]] = {}
    if (folder / "predictions.jsonl").exists():
        answers["validation"] = read_jsonl(folder / "predictions.jsonl", Prediction)
    tokens = trial.report.prompt_tokens if trial and searching else None
    if evaluated := _evaluated(artifacts, messages):
        report, system = evaluated
        rows = read_jsonl(artifacts / "evaluation/predictions.jsonl", Prediction)
        answers["test"] = [row for row in rows if row.system == system]
        tokens = report.systems[system].prompt_tokens
    method, fitted = config.calibration.method, folder / "calibration.json"
    calibration = read_record(fitted, Calibration) if method != "none" and fitted.exists() else None
    return Snapshot(
        name=name,
        what=what,
        messages=messages,
        labels=config.task.labels,
        settings=_settings(config.task.bare, config.student, calibration, method),
        instructions=read_jsonl(folder / "instructions.jsonl", Instruction),
        tokens=tokens,
        answers=answers,
        test_digest=_test_digest(artifacts) if evaluated else None,
        trial={key: str(value) for key, value in trial.settings.items()} if trial else {},
        searching=searching,
    )


def _registered(config: Config, name: str) -> Snapshot:
    release = fetch_release(config, name)
    spec = release.spec
    return Snapshot(
        name=name,
        what=f"{release.model} version {release.number}",
        messages=release.messages,
        labels=spec.task.labels,
        settings=_settings(spec.task, spec.student, spec.calibration),
        instructions=release.instructions or None,
        tokens=release.prompt_tokens,
        answers={"test": release.predictions} if release.predictions else {},
        test_digest=release.test_digest,
    )


def _evaluated(artifacts: Path, messages: Messages) -> tuple[EvaluationReport, str] | None:
    """The evaluation, and which of its systems answered test examples with `messages`."""
    report_file, prompts_file = artifacts / "evaluation/report.json", artifacts / "evaluation/prompts.json"
    if not (report_file.exists() and prompts_file.exists()):
        return None
    report, asked = read_record(report_file, EvaluationReport), read_json(prompts_file)
    own = [message.model_dump() for message in messages]
    suffix = CALIBRATED if report.shipped.endswith(CALIBRATED) else ""
    system = next((name for name in (DISTILLED, UNREVIEWED, CLUSTERED) if asked.get(name) == own), None)
    return (report, system + suffix) if system else None


def _settings(
    task: Task, student: Mapping[str, object], calibration: Calibration | None, method: str = "none"
) -> dict[str, str]:
    """`method` of a prompt whose calibration was not fitted."""
    if calibration is not None:
        biases = (f"{label} {bias:+.6g}" for label, bias in zip(calibration.labels, calibration.bias, strict=True))
        method = f"{calibration.method}, scale {calibration.scale:g}, {', '.join(biases)}"
    return {**flattened({"task": task.model_dump(mode="json"), "student": dict(student)}), "calibration": method}


def _test_digest(artifacts: Path) -> str:
    return str(read_json(artifacts / "splits/md5.json")["test"])
