"""A small project under git and DVC whose one stage is `prepare`: versions of a data set, without a pipeline's run."""

import csv
import shutil
import subprocess
from pathlib import Path

import yaml

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


def select(task: dict[str, object]) -> None:
    groups = yaml.safe_load((ROOT / "params.yaml").read_text())["groups"]
    Path(f"conf/task/{task['name']}.yaml").write_text(yaml.safe_dump(task))
    Path("params.yaml").write_text(yaml.safe_dump({"groups": {**groups, "task": task["name"]}, "overrides": []}))


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
