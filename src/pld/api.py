"""The Python API: distil a prompt from labelled examples in a notebook, through the stages that `dvc repro` runs.

All outputs are in one folder, in the shapes of artifacts/, so `pld.load("artifacts")` reads a project's outputs too.
The current folder and the environment stay as they are.
"""

import contextlib
import io
import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import yaml

from pld.artifacts import SHIPS, read_jsonl, read_record, write_jsonl, write_text
from pld.config.build import TARGETS, build
from pld.config.defaults import Choice, default_config, records_task
from pld.config.settings import load_config
from pld.data.readers.in_memory import SPLIT_COLUMN, Examples, add_splits, named_as_examples, rows_of
from pld.data.splits import guess_label
from pld.data.task_drafting import draft_instruction, draft_template, field_names
from pld.distill.trial import groups_of
from pld.errors import ArtifactError, ConfigError, DataError
from pld.metrics import choose, indices, system_report
from pld.params import Config
from pld.ports import Student, Teacher
from pld.records import Example, Instruction, inputs_id
from pld.registry.release import fetch_release, read_release
from pld.reporting.provenance import ExampleUse, InstructionOrigin, Provenance
from pld.reports import EvaluationReport, SystemReport
from pld.resolve.records import ResolutionReport
from pld.serving.model import SPEC_FILE, PromptClassifier, Release, ServedSpec, read_served_prompt, write_files
from pld.serving.requests import read_records
from pld.stages import embed, evaluate, extract, prepare, resolve, review, sweep
from pld.task_params import RecordsReader, TaskParams

if TYPE_CHECKING:
    import pandas as pd

_EXAMPLES = "examples.jsonl"
_CONFIG = "config.yaml"
_INSTRUCTIONS = "instructions.jsonl"
_REGISTERED = re.compile(r"models:/pld-(?P<task>.+?)(?:@(?P<alias>[^@/]+)|/(?P<number>\d+))")
# what explains every line and lets others check it; embeddings and the prompts that lost the sweep are left out
_SAVED = (_CONFIG, _EXAMPLES, "splits", "rules", "best", "trials.csv", "resolve", "review", "evaluation", "spending")


def distill(
    examples: Examples,
    *,
    teacher: Choice | Teacher,
    student: Choice | Student | None = None,
    text: str | Sequence[str] = "text",
    label: str = "label",
    id: str | None = None,
    group: str | None = None,
    split: str | None = None,
    labels: Sequence[str] | None = None,
    instruction: str | None = None,
    template: str | None = None,
    name: str = "task",
    validation: float = 0.2,
    test: float = 0.3,
    overrides: Sequence[str] = (),
    folder: Path | str | None = None,
    verbose: bool = True,
) -> "Distilled":
    """Distil a system prompt for `student` from labelled examples that `teacher` explains.

    The Teacher sees the training split only; prompts and Edits are chosen on validation; the test split is put aside
    for `Distilled.evaluate` and `Distilled.benchmark`.

    Args:
        examples: a DataFrame, a sequence of records (mappings by column name), or of (text, label) pairs.
        teacher: an option of conf/teacher/ (`"anthropic"`), `"anthropic:/MODEL"` (key from ANTHROPIC_API_KEY), a YAML
            file or a mapping like an option, or an object with the interface of `pld.ports.Teacher`.
        student: likewise, of conf/student/ or `pld.ports.Student`; None: the project's default.
        text: the column, or columns, that the Student reads.
        label: the column of the label; must not be one of `text`.
        id: the column of the examples' ids; None: hashes of their text.
        group: a column whose equal values stay in one split (a contract, a thread).
        split: a column that says train, validation or test; None: by hash of the group, else of the id.
        labels: all labels, in the order of reports; None: those of the examples, sorted.
        instruction: the first lines of the prompt: what to decide and what to answer; None: drafted from the columns.
        template: a Jinja template of the user's turn over the columns of `text`; None: each behind its name.
        name: the task's name, in reports, in the registry and for the Teacher's budget.
        validation, test: the shares of these splits when split by hash.
        overrides: in Hydra's grammar: `["clusterer=dbscan", "clusterer.eps=0.3", "consolidator=medoid"]`.
        folder: where the artifacts go; must be new or empty. None: a temporary folder, removed with the result
            (`Distilled.save` keeps what matters) or when a stage fails.
        verbose: print what each stage reports.

    Raises a `pld.errors.PldError` with a message of one line: ConfigError for arguments, DataError for examples, and
    TeacherError, ExtractionError, DistillError or StudentError for what fails later.
    """
    columns = (text,) if isinstance(text, str) else tuple(text)
    rows = rows_of(examples, columns, label, [column for column in (id, group, split) if column is not None])
    found = tuple(labels) if labels is not None else tuple(sorted({row[label] for row in rows}))
    fields = dict(zip(field_names(columns), columns, strict=True))
    if split is None and (validation, test) != (0.2, 0.3):
        split = SPLIT_COLUMN
        add_splits(rows, fields, id, group, validation, test)
    task = records_task(
        name,
        found,
        fields,
        template or draft_template(tuple(fields), columns, (), found),
        instruction or draft_instruction(columns, (), label, found),
        path=_EXAMPLES,
        label=label,
        id=id,
        group=group,
        split=split,
    )
    given_teacher = None if isinstance(teacher, str | Path | Mapping) else teacher
    given_student = None if isinstance(student, str | Path | Mapping) else student
    choices = {
        role: choice
        for role, choice in (("teacher", teacher), ("student", student))
        if isinstance(choice, str | Path | Mapping)
    }
    config = default_config(task, choices, overrides, "pld.distill")
    objects = {"teacher": given_teacher, "student": given_student}
    config = config.model_copy(update={role: _section_of(value) for role, value in objects.items() if value})
    answering: Student = given_student or build(config.student, "student")  # once: its weights take seconds to load
    working = Path(tempfile.mkdtemp(prefix="pld-")) if folder is None else _new_folder(folder, "distill")
    try:
        settings = config.model_dump(mode="json")
        write_text(working / _CONFIG, yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
        write_text(working / _EXAMPLES, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        with _printing(verbose):
            with named_as_examples(working / _EXAMPLES):
                prepare.compute(_reading(config, working / _EXAMPLES), working)
            extract.compute(config, working, given_teacher)
            embed.compute(config, working)
            sweep.compute(config, working, given_teacher, answering)
            resolve.compute(config, working, given_teacher, answering)
            review.compute(config, working, answering)
        distilled = Distilled(read_release(config, working), working, config, answering)
    except BaseException:
        if folder is None:
            shutil.rmtree(working, ignore_errors=True)
        raise
    if folder is None:
        weakref.finalize(distilled, shutil.rmtree, working, ignore_errors=True)
    return distilled


def load(source: Path | str, student: Student | None = None, tracking_uri: str | None = None) -> "Distilled":
    """A distilled prompt from a folder that `Distilled.save` wrote, from a project's artifacts/, or from the registry:
    `pld.load("models:/pld-<task>@production")`, `pld.load("models:/pld-<task>/3")`.

    Args:
        student: the Student that answers; needed only if the prompt was distilled for an object.
        tracking_uri: the MLflow store; None: MLFLOW_TRACKING_URI, else mlflow.db in the current folder.

    Raises ConfigError, ArtifactError or RegistryError.
    """
    if str(source).startswith("models:/"):
        registered = _REGISTERED.fullmatch(str(source))
        if registered is None:
            raise ConfigError(
                f"expected models:/pld-<task>@<alias> or models:/pld-<task>/<number>, got {source} (load)"
            )
        task, alias, number = registered.group("task", "alias", "number")
        tracked = [] if tracking_uri is None else [f"tracking.uri={json.dumps(tracking_uri)}"]
        config = default_config(_placeholder(task), {}, tracked, "pld.load")
        return Distilled(fetch_release(config, alias or number), student=student)
    folder = Path(source)
    if (folder / SPEC_FILE).exists():
        release = Release(
            read_record(folder / SPEC_FILE, ServedSpec),
            read_served_prompt(folder),
            instructions=tuple(read_jsonl(folder / _INSTRUCTIONS, Instruction)),
        )
        return Distilled(release, student=student)
    if not (folder / _CONFIG).exists():
        raise ArtifactError(
            f"expected {_CONFIG} or {SPEC_FILE}, got neither ({folder}); name a folder that Distilled.save wrote, or "
            "artifacts/"
        )
    config = load_config(folder / _CONFIG)
    return Distilled(read_release(config, folder), folder, config, student)


class Distilled:
    """A distilled prompt: what `pld.distill` made or `pld.load` read.

    Attributes:
        prompt: the exact text of the system prompt.
        messages: the whole prompt: the system prompt, then example turns, if it has any.
        instructions: its lines, each with the ids of the rules behind it; `lineage` follows them to the examples.
        spec: the task, Student, calibration and prompt hash that answers depend on.
        folder: the artifacts; None for a registered version.
    """

    def __init__(
        self,
        release: Release,
        folder: Path | None = None,
        config: Config | None = None,
        student: Student | None = None,
    ) -> None:
        """Use `pld.distill` or `pld.load`."""
        target = str(release.spec.student.get("_target_"))
        if student is None and not target.startswith(TARGETS):
            raise ConfigError(
                f"expected the Student that the prompt was distilled for ({target}), got none (load); pass it: "
                "pld.load(..., student=...)"
            )
        self.prompt = release.prompt
        self.messages = release.messages
        self.spec = release.spec
        self.folder = folder
        self.instructions = (
            release.instructions if folder is None else tuple(read_jsonl(folder / SHIPS / _INSTRUCTIONS, Instruction))
        )
        self._config = config
        self._student: Student = student or build(release.spec.student, "student")
        self._classifier = PromptClassifier(release.spec, release.messages, self._student)

    def __repr__(self) -> str:
        count, sha256 = len(self.instructions), self.spec.prompt_sha256
        return f"<Distilled {self.spec.task.name}: {count} instructions, prompt {sha256[:12]}>"

    @property
    def report(self) -> ResolutionReport:
        """The conflict loop's report: `came_in` and `result` on validation, `gain`, `accepted` Edits. Optimistically
        biased by selection: `evaluate` measures on the test split. Raises ArtifactError for a registered version."""
        return read_record(self._artifacts() / "resolve/report.json", ResolutionReport)

    @overload
    def predict(self, texts: Any, *, scores: Literal[False] = False) -> list[str | None]: ...

    @overload
    def predict(self, texts: Any, *, scores: Literal[True]) -> "pd.DataFrame": ...

    def predict(self, texts: Any, *, scores: bool = False) -> "list[str | None] | pd.DataFrame":
        """The label of each of `texts`, as a served version answers.

        Args:
            texts: a list or a column of texts (if the task has one field), records by column name, or a DataFrame.
            scores: return a DataFrame instead, with `label`, `score_<label>` (calibrated score) for every
                label, and the prompt's hash and version.

        A label is None if the Student could not score the text (longer than its context). Raises DataError.
        """
        found = self._classifier.classify(read_records(self.spec.task, self._by_field(texts)))
        if scores:
            frame: pd.DataFrame = self._classifier.frame(found)
            return frame
        return list(found.labels)

    def evaluate(
        self, examples: "Examples | None" = None, *, label: str | None = None, group: str | None = None
    ) -> SystemReport:
        """Macro-F1 and accuracy with 95 % intervals, figures per label and confusion of this prompt on `examples`.

        Args:
            examples: as `distill` takes them, with the same columns of text; None: the test split that `distill` put
                aside.
            label: the column of the gold label; None: as in `distill`.
            group: a column of groups, over which the intervals are resampled; None: over examples.

        Raises DataError, also for a label that the task does not have.
        """
        if examples is None:
            gold = read_jsonl(self._artifacts() / "splits/test.jsonl", Example)
        else:
            gold = self._labelled(examples, label, group)
        config = self._config or default_config(_placeholder("task"), {})
        labels = self.spec.task.labels
        return system_report(
            indices([example.label for example in gold], labels),
            choose(self._classifier.scores([example.inputs for example in gold])),
            labels,
            groups_of(gold),
            config.evaluation.resamples,
            config.evaluation.seed,
            self._student.count_tokens(self.messages),
        )

    def benchmark(self, *, verbose: bool = True) -> EvaluationReport:
        """The stage `evaluate`: this prompt, zero-shot, few-shot, chain of thought and the other baselines on the test
        split, with paired comparisons; takes minutes. Raises ArtifactError for a registered version."""
        folder = self._artifacts()
        with _printing(verbose):
            evaluate.compute(load_config(folder / _CONFIG), folder, self._student)
        return read_record(folder / "evaluation/report.json", EvaluationReport)

    @property
    def lineage(self) -> list[InstructionOrigin]:
        """For each instruction, in the order of the prompt: its clusters, the Edits that made it, its effect on
        validation, and the training examples and rules behind it. Raises ArtifactError for a registered version."""
        provenance = Provenance.read(self._artifacts())
        found = (provenance.look_up(instruction.id) for instruction in self.instructions)
        return [origin for origin in found if isinstance(origin, InstructionOrigin)]

    def explain(self, id: str) -> InstructionOrigin | ExampleUse:
        """What `pld explain` prints of an instruction, a rule, or a training or validation example (its id, or the
        beginning of it). Raises ArtifactError for an unknown id, and for a registered version."""
        return Provenance.read(self._artifacts()).look_up(id)

    def save(self, path: Path | str) -> Path:
        """Copy what is needed to predict, to explain each line and to audit into the new or empty folder `path`, which
        `pld.load` reads; the Student's weights are not copied. Returns the folder. Raises ConfigError."""
        target = _new_folder(path, "save")
        if self.folder is None:
            write_files(target, self.spec, self.messages)
            write_jsonl(target / _INSTRUCTIONS, self.instructions)
            return target
        for name in _SAVED:
            source = self.folder / name
            if source.is_dir():
                shutil.copytree(source, target / name)
            elif source.exists():
                shutil.copyfile(source, target / name)
        return target

    def _artifacts(self) -> Path:
        if self.folder is None:
            raise ArtifactError(
                f"expected the artifacts of a distillation, got a served version alone ({self!r}); load the folder "
                "that Distilled.save wrote, or the artifacts/ of its project"
            )
        return self.folder

    @property
    def _reader(self) -> RecordsReader | None:
        reader = self._config.task.reader if self._config else None
        return reader if isinstance(reader, RecordsReader) else None

    def _by_field(self, texts: Any) -> Any:
        """`texts` with the columns that `distill` was given named as the task's fields."""
        names = {column: field for field, column in self._reader.fields.items()} if self._reader else {}
        if hasattr(texts, "columns"):
            return texts.rename(columns=names)
        if isinstance(texts, Mapping):
            return {names.get(key, key): value for key, value in texts.items()}
        if isinstance(texts, list | tuple):
            return [self._by_field(item) if isinstance(item, Mapping) else item for item in texts]
        return texts

    def _labelled(self, examples: "Examples", label: str | None, group: str | None) -> list[Example]:
        task, reader = self.spec.task, self._reader
        columns = reader.fields if reader else {field: field for field in task.fields}
        label = label or (reader.label if reader else "label")
        rows = rows_of(examples, tuple(columns.values()), label, [] if group is None else [group])
        inputs = read_records(task, [{field: row[column] for field, column in columns.items()} for row in rows])
        for number, row in enumerate(rows):
            if row[label] not in task.labels:
                raise DataError(
                    f"expected a label of task {task.name} ({', '.join(task.labels):.300}), got {row[label]!r:.60}"
                    f"{guess_label(row[label], task.labels)} (examples[{number}]); correct it or leave the example out"
                )
        return [
            Example(
                id=inputs_id(record),
                inputs=record,
                label=row[label],
                split="test",
                group=None if group is None else row[group],
            )
            for record, row in zip(inputs, rows, strict=True)
        ]


def _placeholder(name: str) -> TaskParams:
    """A task for settings that do not depend on one."""
    return records_task(name, ("yes", "no"), {"text": "text"}, "", "", path=_EXAMPLES, label="label")


def _section_of(value: Any) -> dict[str, Any]:
    """What config.yaml says of a Teacher or Student that was given as an object; `build` refuses it."""
    return {"_target_": f"object {type(value).__module__}.{type(value).__qualname__}", "name": value.name}


def _reading(config: Config, path: Path) -> Config:
    """`config` for the stage `prepare`; config.yaml names the file relative to its folder, so that it can move."""
    reader = config.task.reader.model_copy(update={"path": str(path)})
    return config.model_copy(update={"task": config.task.model_copy(update={"reader": reader})})


def _printing(verbose: bool) -> contextlib.AbstractContextManager[object]:
    return contextlib.nullcontext() if verbose else contextlib.redirect_stdout(io.StringIO())


def _new_folder(path: Path | str, where: str) -> Path:
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"expected a new or empty folder, got {folder}, which is not ({where}); name another one")
    folder.mkdir(parents=True, exist_ok=True)
    return folder
