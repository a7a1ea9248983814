"""A project that asks a paid Teacher, ready for the stage `extract`: conf/, params.yaml and a train split."""

import shutil
from pathlib import Path
from typing import Any

import yaml

from pld.artifacts import write_jsonl, write_text
from pld.config.composition import compose
from pld.records import Example

ROOT = Path(__file__).parents[2]
COLOURS = {
    "name": "colours",
    "labels": ["red", "blue"],
    "fields": ["note"],
    "input_template": "{{ note }}",
    "base_instruction": "Say which.",
    "reader": {"format": "stereoset_bias", "path": "none"},
}


def write_asked_project(folder: Path, examples: int = 10, **groups: str) -> None:
    """`examples` red ones, called e0 and so on."""
    shutil.copytree(ROOT / "conf", folder / "conf")
    (folder / "conf/task/colours.yaml").write_text(yaml.safe_dump(COLOURS))
    selected = yaml.safe_load((ROOT / "params.yaml").read_text())["groups"]
    chosen = {**selected, "task": "colours", "teacher": "anthropic", **groups}
    (folder / "params.yaml").write_text(yaml.safe_dump({"groups": chosen, "overrides": []}))
    rows = [
        Example(id=f"e{i}", inputs={"note": f"a warm thing, number {i}"}, label="red", split="train")
        for i in range(examples)
    ]
    write_jsonl(folder / "artifacts/splits/train.jsonl", rows)


def configure(folder: Path, *overrides: str, **groups: str) -> None:
    """Edit params.yaml, and compose it as the stage `config` does."""
    params: dict[str, Any] = yaml.safe_load((folder / "params.yaml").read_text())
    changed = {"groups": {**params["groups"], **groups}, "overrides": list(overrides)}
    (folder / "params.yaml").write_text(yaml.safe_dump(changed))
    config = compose(folder / "conf", folder / "params.yaml")
    write_text(folder / "artifacts/config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
