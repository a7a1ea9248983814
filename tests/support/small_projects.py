"""Small projects: one that asks a paid Teacher, and one under git and DVC whose one stage is `prepare`."""

import csv
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from pld.artifacts import write_jsonl, write_text
from pld.config.composition import compose
from pld.records import Example
from pld.stages import config, prepare

ROOT = Path(__file__).parents[2]
CORPUS = Path("assets/corpus/records/notes.csv")
TASK = {
    "name": "notes",
    "labels": ["keep", "bin"],
    "fields": ["text"],
    "input_template": "{{ text }}",
    "base_instruction": "Answer with one word: keep or bin.",
    "reader": {
        "format": "records",
        "path": "data/records/notes.csv",
        "fields": {"text": "note"},
        "label": "verdict",
        "options": None,
        "id": "no",
        "group": "folder",
        "split": "part",
    },
}
COLOURS = {
    "name": "colours",
    "labels": ["red", "blue"],
    "fields": ["note"],
    "input_template": "{{ note }}",
    "base_instruction": "Say which.",
    "reader": {"format": "stereoset_bias", "path": "none"},
}
STAGES = {
    "prepare": {
        "cmd": "PYTHONPATH=src python -m pld.stages prepare",
        "deps": ["data/records"],
        "outs": [
            f"artifacts/splits/{name}" for name in ("train.jsonl", "validation.jsonl", "test.jsonl", "summary.json")
        ],
    }
}
DATA = {"deps": [{"path": "assets/corpus"}], "outs": [{"path": "data", "hash": "md5"}]}


def git(*arguments: str) -> str:
    assert Path.cwd() != ROOT, "a test's git commands are for a repository of its own"
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    return subprocess.run(["git", *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()


def notes() -> list[dict[str, str]]:
    """Twelve: six of train, three of validation, three of test."""
    parts = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    return [
        {"no": f"n{n}", "note": f"note number {n}", "verdict": ("keep", "bin")[n % 2], "folder": "", "part": part}
        for n, part in enumerate(parts)
    ]


def write_notes(rows: list[dict[str, str]]) -> None:
    CORPUS.parent.mkdir(parents=True, exist_ok=True)
    with CORPUS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def select(task: dict[str, Any], **groups: str) -> None:
    selected = yaml.safe_load((ROOT / "params.yaml").read_text())["groups"]
    Path(f"conf/task/{task['name']}.yaml").write_text(yaml.safe_dump(task))
    chosen = {**selected, "task": task["name"], **groups}
    Path("params.yaml").write_text(yaml.safe_dump({"groups": chosen, "overrides": []}))


def start_project() -> None:
    """In the current folder, with no commit yet."""
    from dvc.repo import Repo

    shutil.copytree(ROOT / "conf", "conf")
    select(TASK)
    write_notes(notes())
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    Path("data.dvc").write_text(yaml.safe_dump(DATA))
    Path(".gitignore").write_text("/artifacts\n/data\n")
    git("init", "-q", "-b", "main")
    with Repo.init(".") as repo:
        assert repo.root_dir == str(Path.cwd())


def prepared(message: str) -> None:
    """What `dvc repro prepare` leaves, without its processes, committed."""
    from dvc.repo import Repo

    shutil.rmtree("data", ignore_errors=True)
    shutil.copytree("assets/corpus", "data")
    config.run()
    prepare.run()
    with Repo(".") as repo:
        repo.commit("prepare", force=True)
    committed(message)


def committed(message: str) -> None:
    git("add", "-A")
    git("commit", "-q", "--allow-empty", "-m", message)


def write_asked_project() -> None:
    """In the current folder, ready for the stage `extract`: a paid Teacher, ten red examples called e0 and so on."""
    shutil.copytree(ROOT / "conf", "conf")
    select(COLOURS, teacher="anthropic")
    rows = [
        Example(id=f"e{i}", inputs={"note": f"a warm thing, number {i}"}, label="red", split="train") for i in range(10)
    ]
    write_jsonl(Path("artifacts/splits/train.jsonl"), rows)


def configure(folder: Path, *overrides: str, **groups: str) -> None:
    """Edit params.yaml, and compose it as the stage `config` does."""
    params: dict[str, Any] = yaml.safe_load((folder / "params.yaml").read_text())
    changed = {"groups": {**params["groups"], **groups}, "overrides": list(overrides)}
    (folder / "params.yaml").write_text(yaml.safe_dump(changed))
    composed = compose(folder / "conf", folder / "params.yaml")
    write_text(folder / "artifacts/config.yaml", yaml.safe_dump(composed.model_dump(mode="json"), sort_keys=False))
