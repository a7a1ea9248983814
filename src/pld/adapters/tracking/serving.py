"""A registered version as a classifier: prompt + calibration + Task + Student spec, and how it becomes a pyfunc model.

Weights are not copied: the Student's section of conf/ names an asset, a hub id or a folder.
"""

import importlib.metadata
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pld
from pld.adapters.build import build
from pld.adapters.tracking.result import PipelineResult
from pld.adapters.tracking.store import Store
from pld.artifacts import read_record, read_text, write_json, write_text
from pld.errors import DataError, RegistryError
from pld.method.evaluation import calibrate, choose
from pld.method.system_prompt import prompt_messages, render_input
from pld.ports import Scores, Student
from pld.records import Calibration, Record, Task, content_id, sha256

PROMPT_FILE = "system_prompt.md"
SPEC_FILE = "served.json"
_CODE = Path(__file__).with_name("served_model.py")
# what serving imports, beside the copy of pld that travels with the model
_REQUIREMENTS = (
    "accelerate", "filelock", "gguf", "jinja2", "mlflow", "numpy", "pandas", "platformdirs", "pydantic", "pyyaml",
    "safetensors", "scipy", "tokenizers", "torch", "tqdm", "transformers",
)  # fmt: skip


class ServedSpec(Record):
    """What answers depend on beside the prompt's text; `student` is the composed section of conf/."""

    task: Task
    student: dict[str, Any]
    calibration: Calibration | None
    prompt_sha256: str
    prompt_version: str = ""

    @property
    def key(self) -> str:
        """Content id of the version: same prompt, calibration, Student and task, same version."""
        return content_id(self.model_dump(mode="json", exclude={"prompt_version"}))


def spec_of(result: PipelineResult) -> ServedSpec:
    """What `result` ships."""
    return ServedSpec(
        task=Task(**{name: getattr(result.config.task, name) for name in Task.model_fields}),
        student=result.config.student,
        calibration=result.calibration,
        prompt_sha256=sha256(result.prompt),
    )


class PromptClassifier:
    """Classifies records exactly as `evaluate` measured it."""

    def __init__(self, spec: ServedSpec, prompt: str, student: Student | None = None) -> None:
        if sha256(prompt) != spec.prompt_sha256:
            raise RegistryError(
                f"{PROMPT_FILE}: wanted the text with sha256 {spec.prompt_sha256[:12]}, found {sha256(prompt)[:12]}; "
                "register the prompt again"
            )
        self.spec = spec
        self._messages = prompt_messages(prompt)
        self._student: Student = student or build(spec.student, "student")

    @classmethod
    def load(cls, folder: Path) -> "PromptClassifier":
        """From the two files that `write_files` wrote."""
        return cls(read_record(folder / SPEC_FILE, ServedSpec), read_text(folder / PROMPT_FILE))

    def warm_up(self) -> None:
        """Load the weights and hold the system prompt's cache."""
        self._student.prefill(self._messages)

    def scores(self, records: Sequence[Mapping[str, str]]) -> Scores:
        """[n, k] log-scores in the order of the declared labels, less the calibration; NaN: can't be scored."""
        task = self.spec.task
        inputs = [render_input(task, record) for record in records]
        scores = self._student.score(self._messages, inputs, task.labels)
        return scores if self.spec.calibration is None else calibrate(scores, self.spec.calibration)

    def answer(self, model_input: Any) -> Any:
        """A DataFrame with a row per record: `label` (None: could not be scored), `score_<label>` per label,
        `prompt_sha256`, `prompt_version`. Raises DataError for input that `read_records` refuses."""
        import pandas as pd

        task = self.spec.task
        records = read_records(task, model_input)
        columns: dict[str, Any] = {"label": []} | {f"score_{label}": [] for label in task.labels}
        if records:
            scores = self.scores(records)
            columns["label"] = [task.labels[best] if best >= 0 else None for best in choose(scores)]
            for i, label in enumerate(task.labels):
                columns[f"score_{label}"] = scores[:, i]
        frame = pd.DataFrame(columns)
        frame["label"] = frame["label"].astype(object)
        return frame.assign(prompt_sha256=self.spec.prompt_sha256, prompt_version=self.spec.prompt_version)


def read_records(task: Task, model_input: Any) -> list[dict[str, str]]:
    """The task's fields of each record of a DataFrame, a list of records, one record, a mapping of columns, or,
    for a task of one field, a column of texts. Other columns are left out.

    Raises DataError that names the row and the field for a missing field, or one that is no text or empty.
    """
    if hasattr(model_input, "to_frame"):  # a pandas Series
        model_input = model_input.tolist()
    if hasattr(model_input, "columns"):
        columns = [str(column) for column in model_input.columns]
        if len(columns) == 1 and len(task.fields) == 1:
            columns = list(task.fields)
        rows: Any = model_input.set_axis(columns, axis=1).to_dict("records")
    elif isinstance(model_input, Mapping):
        rows = _from_columns(model_input)
    elif isinstance(model_input, str):
        rows = [model_input]
    else:
        rows = model_input.tolist() if hasattr(model_input, "tolist") else model_input
    if not isinstance(rows, list | tuple):
        raise DataError(f"input: wanted {_wanted(task)}, found {type(model_input).__name__}")
    return [_record(task, row, number) for number, row in enumerate(rows, 1)]


def _from_columns(columns: Mapping[Any, Any]) -> list[dict[str, Any]]:
    if not columns or any(isinstance(value, str) or not hasattr(value, "__len__") for value in columns.values()):
        return [{str(key): value for key, value in columns.items()}]
    if len({len(value) for value in columns.values()}) != 1:
        found = ", ".join(f"{key} {len(value)}" for key, value in columns.items())
        raise DataError(f"input: wanted columns of one length, found {found}")
    return [dict(zip(map(str, columns), row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _record(task: Task, row: Any, number: int) -> dict[str, str]:
    if isinstance(row, str) and len(task.fields) == 1:
        row = {task.fields[0]: row}
    if not isinstance(row, Mapping):
        raise DataError(f"input, row {number}: wanted {_wanted(task)}, found {type(row).__name__}")
    for name in task.fields:
        if name not in row:
            found = ", ".join(map(str, row)) or "none"
            raise DataError(f"input, row {number}: wanted the field {name!r}, found {found}")
        if not isinstance(row[name], str) or not row[name].strip():
            raise DataError(f"input, row {number}: wanted text in {name!r}, found {row[name]!r:.40}")
    return {name: row[name] for name in task.fields}


def _wanted(task: Task) -> str:
    texts = " or a column of texts" if len(task.fields) == 1 else ""
    return f"records with the fields {', '.join(task.fields)}{texts}"


def write_files(folder: Path, spec: ServedSpec, prompt: str) -> dict[str, str]:
    """Write what `PromptClassifier.load` reads; the artifact names and paths for MLflow."""
    write_text(folder / PROMPT_FILE, prompt)
    write_json(folder / SPEC_FILE, spec)
    return {"prompt": str(folder / PROMPT_FILE), "spec": str(folder / SPEC_FILE)}


def log_model(store: Store, experiment: str, run_id: str, name: str, spec: ServedSpec, prompt: str) -> Any:
    """Log the pyfunc model (models-from-code, with a copy of this package) under `run_id`; MLflow's ModelInfo."""
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    task = spec.task
    answer = [
        ColSpec("string", "label", required=False),
        *(ColSpec("double", f"score_{label}") for label in task.labels),
        ColSpec("string", "prompt_sha256"),
        ColSpec("string", "prompt_version"),
    ]
    logged = store.client.create_logged_model(experiment, name=name, source_run_id=run_id)
    with tempfile.TemporaryDirectory() as temporary:
        return Model.log(
            artifact_path=None,
            flavor=mlflow.pyfunc,
            model_id=logged.model_id,
            run_id=run_id,
            python_model=str(_CODE),
            artifacts=write_files(Path(temporary), spec, prompt),
            code_paths=[str(Path(pld.__path__[0]))],
            # no input schema: MLflow would refuse a plain column of texts; `read_records` checks
            signature=ModelSignature(outputs=Schema(answer)),
            metadata={"task": task.name, "labels": list(task.labels), "fields": list(task.fields)},
            pip_requirements=requirements(spec),
        )


def requirements(spec: ServedSpec) -> list[str]:
    """Pinned packages that serving needs; asset packages are installed beside them (docs/assets.md)."""
    wanted = list(_REQUIREMENTS)
    if spec.student.get("quantization", "none") != "none":
        wanted.append("bitsandbytes")
    if "openai_compatible" in str(spec.student.get("_target_")):
        wanted.append("openai")
    # a local version (2.0+cpu) is a build, which the index of a serving host may not have
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in wanted]
