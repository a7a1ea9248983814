"""`pld new-task` in a project of its own, on made-up rows."""

import csv
import random
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pld.cli.main import pld
from pld.config.composition import compose
from pld.data.readers import read
from pld.data.splits import assemble

ROOT = Path(__file__).parents[2]
WORDS = ["invoice", "login", "crash", "refund", "password", "server", "charge", "screen", "report", "slow",
         "twice", "lamp"]  # fmt: skip
STANDARD = ("--text", "text", "--label", "label")


@pytest.fixture
def here(project, monkeypatch):
    """A project without data, whose Student's tokenizer is not on the machine."""
    monkeypatch.setenv("PLD_CACHE", str(project / "cache"))
    shutil.copytree(ROOT / "conf", project / "conf")
    shutil.copy(ROOT / "params.yaml", project)
    return project


@pytest.fixture
def file(here):
    """90 different rows, two labels, each on both sides of every split; the tenth has 40 characters."""
    found = rows()
    found[9]["text"] = "this text has forty characters, no more."
    return write(here / "claims.csv", found)


def rows(count=90):
    drawn = random.Random(5)
    return [{"text": " ".join(drawn.choices(WORDS, k=9)), "label": ("bill", "tech")[i % 2]} for i in range(count)]


def write(path, found):
    with path.open("w", newline="", encoding="utf-8") as target:
        writer = csv.DictWriter(target, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    return path


def run(*arguments):
    """The output, with a refusal as the exception that it is."""
    done = CliRunner().invoke(pld, ["new-task", *map(str, arguments)], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def tree():
    return {str(path): path.read_bytes() for path in sorted(Path().rglob("*")) if path.is_file()}


def task(name="mine"):
    """As the stages read it, with the new task selected."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["groups"]["task"] = name
    Path("other.yaml").write_text(yaml.safe_dump(params))
    found = compose(Path("conf"), Path("other.yaml")).task
    Path("other.yaml").unlink()
    return found


def prepared(name="mine"):
    """Bring assets/corpus/ to data/ as DVC does, and read the task's data as `prepare` does."""
    shutil.copytree("assets/corpus", "data", dirs_exist_ok=True)
    return assemble(task(name), read(task(name)))
