"""A side of `pld diff`: a registered version, or a list under artifacts/ or elsewhere, with the answers that are kept
of it, or that the Student gives now."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pld.artifacts import SHIPS, read_json, read_jsonl, read_record
from pld.config.build import build
from pld.distill.cached_scorer import Answering
from pld.distill.render import prompt_messages
from pld.distill.trial import groups_of
from pld.errors import ArtifactError, PldError
from pld.metrics import calibrate, predictions
from pld.params import Config
from pld.ports import OnProgress
from pld.records import (
    CALIBRATED,
    CLUSTERED,
    UNREVIEWED,
    Calibration,
    EvaluationReport,
    Example,
    Instruction,
    Prediction,
    Split,
    SystemPrompt,
    Task,
    TrialReport,
    canonical_json,
    sha256,
)
from pld.registry.release import fetch_release
from pld.registry.result import flattened
from pld.registry.shipped import read_prompt
from pld.resolve.records import Descent, ResolutionReport

ALIASES = ("production", "candidate", "previous")
_PREFIX = 4


@dataclass(frozen=True)
class Answers:
    """`rows` by the system's answers; `of`: what tells the examples apart from those of another set (None: unknown);
    `searching`: at the precision for searching."""

    rows: Sequence[Prediction]
    of: str | None = None
    searching: bool = False


@dataclass(frozen=True)
class Side:
    """`tokens`: of the prompt with its chat markup, where they were counted; `instructions` None: they are gone;
    `earlier`: instruction id → ids of what it was before its Edits; `calibration` None: none is applied, or
    (`calibrated`) it is not kept; `trial`: settings of the trial that it goes back to; `answers` by split."""

    name: str
    what: str
    prompt: str
    task: Task
    student: Mapping[str, Any]
    calibrated: bool
    tokens: int | None = None
    instructions: Sequence[Instruction] | None = None
    earlier: Mapping[str, Collection[str]] = field(default_factory=dict)
    calibration: Calibration | None = None
    trial: Mapping[str, str] = field(default_factory=dict)
    answers: Mapping[Split, Answers] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, str]:
        """What answers depend on beside the prompt, flattened."""
        calibration = "none"
        if self.calibrated:
            calibration = "batch" if self.calibration is None else f"batch, {_means(self.calibration)}"
        spec = {"task": self.task.model_dump(mode="json"), "student": dict(self.student)}
        return {**flattened(spec), "calibration": calibration}


def read_side(config: Config, folder: Path, wanted: str) -> Side:
    """`wanted`: an alias or a number of the registry, `artifacts`, `best`, `resolve`, a trial's id or its beginning, or
    a folder with a list and its prompt. `folder` is artifacts/.

    Raises ArtifactError for anything else, and for a list whose files are not there.
    """
    local: dict[str, Callable[[], Side]] = {
        "artifacts": lambda: _shipping(config, folder),
        "best": lambda: _best(config, folder),
        "resolve": lambda: _resolved(config, folder),
    }
    if wanted in local:
        return local[wanted]()
    if wanted in ALIASES or (wanted.isascii() and wanted.isdigit()):
        return _released(config, wanted)
    if Path(wanted).is_dir():
        return _in_folder(config, Path(wanted), wanted, f"folder {wanted}")
    trials = [path.parent.name for path in sorted(folder.glob("trials/*/system_prompt.md"))]
    begins = [trial for trial in trials if trial.startswith(wanted)] if len(wanted) >= _PREFIX else []
    if len(begins) == 1:
        return _trial(config, folder, begins[0])
    raise ArtifactError(
        f"expected {', '.join(ALIASES)}, a version's number, {', '.join(local)}, a folder with instructions.jsonl "
        f"and system_prompt.md, or a trial of {folder}/trials ({_PREFIX} characters at least), got {wanted!r}, with "
        f"which {len(begins) or 'none'} of {len(trials)} trials begin (diff)"
    )


def groups_in(folder: Path, split: Split, of: str | None) -> dict[str, str]:
    """Example id → group of the examples of `folder` (artifacts/); {}: there are none, or the set is another one."""
    if split == "test":
        path = folder / "evaluation/groups.json"
        same = of is not None and of == _test_digest(folder) and path.exists()
        return {str(key): str(value) for key, value in read_json(path).items()} if same else {}
    examples = read_jsonl(folder / "splits/validation.jsonl", Example)
    groups = groups_of(examples) or []
    return dict(zip((example.id for example in examples), groups, strict=False))


@dataclass
class Asked:
    """Lets Students answer validation, each loaded once; nothing is written."""

    config: Config
    folder: Path
    on_progress: OnProgress | None = None

    def __post_init__(self) -> None:
        from pld.resolve.inputs import load_answering

        self._lists = load_answering(self.config, self.folder)
        self._students = {canonical_json(self.config.student): self._lists.answering.student}

    def examples(self, side: Side) -> int:
        """How many one call of `answer` asks about."""
        return len(self._lists.validation) + len(self._lists.answering.calibrated_on) * _calibrates_now(side)

    def answer(self, side: Side) -> Side:
        """`side` with its own Student's answers on validation, at the precision of reported figures."""
        answering = self._answering(side)
        prompt = SystemPrompt(text=side.prompt, instruction_ids=(), sha256=sha256(side.prompt), tokens=0)
        scores = answering.raw_scores(prompt, self._lists.validation)
        if side.calibrated:
            scores = calibrate(scores, side.calibration or answering.calibration(prompt))
        rows = predictions(self._lists.validation, side.name, scores, side.task.labels)
        return replace(side, answers={**side.answers, "validation": Answers(rows)})

    def _answering(self, side: Side) -> Answering:
        own = canonical_json(dict(side.student))
        if own not in self._students:
            self._students[own] = build(side.student, "student")
        task = self._lists.config.task.model_copy(update=dict(side.task))
        return replace(
            self._lists.answering,
            config=self._lists.config.model_copy(update={"task": task}),
            student=self._students[own],
            on_progress=self.on_progress,
        )


def with_tokens(side: Side) -> Side:
    """`side` with its tokens counted by its Student where they are not known and it can be loaded."""
    if side.tokens is not None:
        return side
    try:
        return replace(side, tokens=build(side.student, "student").count_tokens(prompt_messages(side.prompt)))
    except PldError:
        return side


def _shipping(config: Config, folder: Path) -> Side:
    side = _of_trial(_in_folder(config, folder / SHIPS, "artifacts", "what ships now"), _winner(folder))
    side = replace(side, tokens=None)
    report = _report(folder)
    if report is None or report.prompt_sha256 != sha256(side.prompt):
        return side
    tokens = report.systems[report.shipped].prompt_tokens
    return replace(_with_test(side, folder, report.shipped), tokens=tokens)


def _best(config: Config, folder: Path) -> Side:
    side = _of_trial(_in_folder(config, folder / "best", "best", "what won the sweep"), _winner(folder))
    return _with_test(side, folder, CLUSTERED)


def _resolved(config: Config, folder: Path) -> Side:
    side = _of_trial(_in_folder(config, folder / "resolve/final", "resolve", "what the loop left"), _winner(folder))
    report = _report(folder)
    tokens = read_record(folder / "resolve/report.json", ResolutionReport).result.prompt_tokens
    ships = report is not None and report.prompt_sha256 == sha256(side.prompt)
    system = report.shipped if report is not None and ships else UNREVIEWED
    return replace(_with_test(side, folder, system), tokens=tokens)


def _trial(config: Config, folder: Path, trial: str) -> Side:
    path = folder / "trials" / trial
    report = read_record(path / "report.json", TrialReport)
    side = _of_trial(_in_folder(config, path, trial, "a trial of the sweep"), report)
    return replace(side, answers={split: replace(found, searching=True) for split, found in side.answers.items()})


def _of_trial(side: Side, report: TrialReport) -> Side:
    settings = {key: str(value) for key, value in report.settings.items()}
    return replace(side, tokens=report.report.prompt_tokens, trial=settings)


def _winner(folder: Path) -> TrialReport:
    return read_record(folder / "best/trial.json", TrialReport)


def _in_folder(config: Config, folder: Path, name: str, what: str) -> Side:
    descent, rows, means = folder / "descent.jsonl", folder / "predictions.jsonl", folder / "calibration.json"
    calibrated = config.calibration.method == "batch"
    return Side(
        name=name,
        what=what,
        prompt=read_prompt(folder / "system_prompt.md"),
        task=config.task.bare,
        student=config.student,
        calibrated=calibrated,
        instructions=read_jsonl(folder / "instructions.jsonl", Instruction),
        earlier=_earlier(read_jsonl(descent, Descent)) if descent.exists() else {},
        calibration=read_record(means, Calibration) if calibrated and means.exists() else None,
        answers={"validation": Answers(read_jsonl(rows, Prediction))} if rows.exists() else {},
    )


def _released(config: Config, wanted: str) -> Side:
    release = fetch_release(config, wanted)
    test: dict[Split, Answers] = {"test": Answers(release.predictions, of=release.test_digest)}
    return Side(
        name=wanted,
        what=f"{release.model} version {release.number}",
        prompt=release.prompt,
        task=release.spec.task,
        student=release.spec.student,
        calibrated=release.spec.calibration is not None,
        instructions=release.instructions or None,
        calibration=release.spec.calibration,
        tokens=release.prompt_tokens,
        answers=test if release.predictions else {},
    )


def _with_test(side: Side, folder: Path, system: str) -> Side:
    """`side` with `system`'s answers on test, where these are of its prompt."""
    report, path = _report(folder), folder / "evaluation/predictions.jsonl"
    if report is None or not path.exists():
        return side
    base = system.removesuffix(CALIBRATED)
    if report.shipped.endswith(CALIBRATED):
        system = base + CALIBRATED
    prompts = folder / "evaluation/prompts.json"
    asked = read_json(prompts).get(base) if prompts.exists() else None
    if asked is not None and asked != [message.model_dump() for message in prompt_messages(side.prompt)]:
        return side
    rows = [row for row in read_jsonl(path, Prediction) if row.system == system]
    test: dict[Split, Answers] = {"test": Answers(rows, of=_test_digest(folder))}
    return replace(side, answers={**side.answers, **test}) if rows else side


def _report(folder: Path) -> EvaluationReport | None:
    path = folder / "evaluation/report.json"
    return read_record(path, EvaluationReport) if path.exists() else None


def _test_digest(folder: Path) -> str:
    return str(read_json(folder / "splits/md5.json")["test"])


def _earlier(descents: Sequence[Descent]) -> dict[str, tuple[str, ...]]:
    return {own.instruction_id: tuple(step.from_id for step in own.edits if step.from_id) for own in descents}


def _calibrates_now(side: Side) -> bool:
    return side.calibrated and side.calibration is None


def _means(calibration: Calibration) -> str:
    means = zip(calibration.labels, calibration.mean_log_scores, strict=True)
    return ", ".join(f"{label} {mean:.6g}" for label, mean in means)
