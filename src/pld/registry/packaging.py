"""Packages a prompt with its calibration, task and Student settings as an MLflow pyfunc model."""

import importlib.metadata
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pld.config.assets import ASSET_PREFIX, asset
from pld.records import Messages, prompt_sha256
from pld.registry.result import PipelineResult
from pld.registry.store import Store
from pld.serving.model import ServedSpec, write_files

_PACKAGE = Path(__file__).parents[1]
_CODE = _PACKAGE / "serving/pyfunc.py"
# what serving imports besides the copy of pld inside the model; mlflow-skinny, because the full MLflow depends on a
# tracking server, plots and scikit-learn
_REQUIREMENTS = ("filelock", "jinja2", "mlflow-skinny", "numpy", "pandas", "platformdirs", "pydantic", "pyyaml")
_LOCAL_STUDENT = ("torch", "transformers")


def spec_of(result: PipelineResult) -> ServedSpec:
    """The spec of the prompt that `result` ships."""
    return ServedSpec(
        task=result.config.task.bare,
        student=result.config.student,
        calibration=result.calibration,
        prompt_sha256=prompt_sha256(result.messages),
    )


def log_model(store: Store, experiment: str, run_id: str, name: str, spec: ServedSpec, messages: Messages) -> Any:
    """Log the pyfunc model (models from code, with a copy of pld) under `run_id`; returns MLflow's ModelInfo."""
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
            artifacts=write_files(Path(temporary), spec, messages),
            code_paths=[str(_PACKAGE)],
            # no input schema: MLflow would refuse a plain column of texts; `read_records` checks
            signature=ModelSignature(outputs=Schema(answer)),
            metadata={"task": task.name, "labels": list(task.labels), "fields": list(task.fields)},
            pip_requirements=requirements(spec),
        )


def requirements(spec: ServedSpec) -> list[str]:
    """Pinned requirements for serving, without asset packages (docs/reference/assets.md)."""
    student = spec.student
    needed = {*_REQUIREMENTS}
    if "openai_compatible" in str(student.get("_target_")):
        needed.add("openai")
    else:
        needed |= {*_LOCAL_STUDENT}
        if _from_gguf(student):
            needed |= {"accelerate", "gguf"}  # dequantizes it once, while loading
        if student.get("quantization", "none") != "none":
            needed |= {"accelerate", "bitsandbytes"}
    # drop local build tags (2.0+cpu), which another host's package index may not have
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in sorted(needed)]


def _from_gguf(student: Mapping[str, Any]) -> bool:
    model = str(student.get("model"))
    in_asset = model.startswith(ASSET_PREFIX) and asset(model).file_name.endswith(".gguf")
    return in_asset or student.get("gguf_file") is not None
