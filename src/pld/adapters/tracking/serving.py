"""A registered version as a classifier: prompt + calibration + Task + Student spec, and how it becomes a pyfunc model.

Weights are not copied: the Student's section of conf/ names an asset, a hub id or a folder.
"""

import importlib.metadata
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import pld
from pld.adapters.assets import ASSET_PREFIX, asset
from pld.adapters.build import build
from pld.adapters.tracking.result import PipelineResult
from pld.adapters.tracking.served_input import read_records
from pld.adapters.tracking.store import Store
from pld.artifacts import read_record, read_text, write_json, write_text
from pld.errors import RegistryError
from pld.method.evaluation import calibrate, choose
from pld.method.system_prompt import prompt_messages, render_input
from pld.ports import OnProgress, Scores, Student
from pld.records import Calibration, Record, Task, content_id, sha256

PROMPT_FILE = "system_prompt.md"
SPEC_FILE = "served.json"
_CODE = Path(__file__).with_name("served_model.py")
# what serving imports, beside the copy of pld that travels with the model. Of MLflow only its small distribution:
# the whole one brings a tracking server, plots and scikit-learn
_REQUIREMENTS = ("filelock", "jinja2", "mlflow-skinny", "numpy", "pandas", "platformdirs", "pydantic", "pyyaml")
_LOCAL_STUDENT = ("torch", "transformers")


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
        task=result.config.task.bare,
        student=result.config.student,
        calibration=result.calibration,
        prompt_sha256=sha256(result.prompt),
    )


@dataclass(frozen=True)
class Classified:
    """Of records [n]: their `labels` (None: could not be scored) and `scores` [n, k], calibrated."""

    labels: Sequence[str | None]
    scores: Scores


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

    def scores(self, records: Sequence[Mapping[str, str]], on_progress: OnProgress | None = None) -> Scores:
        """[n, k] log-scores in the order of the declared labels, less the calibration; NaN: can't be scored."""
        task = self.spec.task
        inputs = [render_input(task, record) for record in records]
        scores = self._student.score(self._messages, inputs, task.labels, on_progress)
        return scores if self.spec.calibration is None else calibrate(scores, self.spec.calibration)

    def classify(self, records: Sequence[Mapping[str, str]], on_progress: OnProgress | None = None) -> Classified:
        """Labels and scores of the task's `records` [n]."""
        labels = self.spec.task.labels
        scores = self.scores(records, on_progress) if records else np.empty((0, len(labels)))
        return Classified([labels[best] if best >= 0 else None for best in choose(scores)], scores)

    def answer(self, model_input: Any) -> Any:
        """A DataFrame with a row per record of what `read_records` takes; see `frame`."""
        return self.frame(self.classify(read_records(self.spec.task, model_input)))

    def rows(self, found: Classified) -> list[dict[str, Any]]:
        """Per record: `label`, `score_<label>` per label (None: could not be scored), `prompt_sha256`,
        `prompt_version`."""
        names = [f"score_{label}" for label in self.spec.task.labels]
        nothing = dict.fromkeys(names)
        version = {"prompt_sha256": self.spec.prompt_sha256, "prompt_version": self.spec.prompt_version}
        return [
            {"label": label, **(nothing if label is None else dict(zip(names, row, strict=True))), **version}
            for label, row in zip(found.labels, found.scores.tolist(), strict=True)
        ]

    def frame(self, found: Classified) -> Any:
        """`rows` as a DataFrame; columns of scores are of floats as long as every record could be scored."""
        import pandas as pd

        names = [f"score_{label}" for label in self.spec.task.labels]
        columns = ["label", *names, "prompt_sha256", "prompt_version"]
        frame = pd.DataFrame(self.rows(found), columns=columns, dtype=object)
        return frame if None in found.labels else frame.astype(dict.fromkeys(names, "float64"))


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
    student = spec.student
    wanted = {*_REQUIREMENTS}
    if "openai_compatible" in str(student.get("_target_")):
        wanted.add("openai")
    else:
        wanted |= {*_LOCAL_STUDENT}
        if _from_gguf(student):
            wanted |= {"accelerate", "gguf"}  # to dequantise it, once
        if student.get("quantization", "none") != "none":
            wanted |= {"accelerate", "bitsandbytes"}
    # a local version (2.0+cpu) is a build, which the index of a serving host may not have
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in sorted(wanted)]


def _from_gguf(student: Mapping[str, Any]) -> bool:
    model = str(student.get("model"))
    in_asset = model.startswith(ASSET_PREFIX) and asset(model).file_name.endswith(".gguf")
    return in_asset or student.get("gguf_file") is not None
