"""Real DVC, a scripted Teacher: what a changed data set costs."""

import csv
import json
import re

import pytest
import yaml

from support.anthropic_server import answer
from support.project import copy_project
from support.small_projects import TASK, notes

FILE = "assets/corpus/records/notes.csv"


def respond(body, attempt):
    label = re.search(r"Gold label: (\w+)", body["messages"][0]["content"])[1]
    return answer({"rationale": "It is so.", "rule": f"If it is so, answer {label}.", "label": label})


def write(project, rows):
    with (project.folder / FILE).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def row(number, part, note=None):
    return {"no": f"n{number}", "note": note or f"note number {number}", "verdict": "keep", "folder": "", "part": part}


def asked(server):
    """The texts that were sent, each as often as it was."""
    sent = sorted(json.loads(re.search(r"{.*}", prompt, re.DOTALL)[0])["text"] for prompt in server.prompts)
    server.requests.clear()
    return sent


@pytest.mark.slow
def test_a_rerun_asks_only_about_new_training_examples_as_data_diff_said(tmp_path, anthropic_server):
    server = anthropic_server(respond)
    project = copy_project(tmp_path / "project")
    (project.folder / "conf/task/notes.yaml").write_text(yaml.safe_dump(TASK))
    write(project, notes())
    project.select(task="notes", teacher="anthropic")
    paid = {
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "test-key",
        "PLD_CACHE": str(tmp_path / "cache"),
    }
    project.run("dvc", "repro", "extract", **paid)
    assert asked(server) == [f"note number {n}" for n in range(6)]
    project.commit("first")

    rows = notes()
    rows[0]["verdict"] = "bin"
    rows[1]["note"] = "a new wording"
    rows[9] |= {"part": "train", "verdict": rows[9]["verdict"]}
    rows[10]["verdict"] = "keep"  # of test: nothing to ask
    del rows[2]
    rows += [row(20, "train"), row(21, "train"), row(22, "validation"), row(23, "test")]
    write(project, rows)
    told = json.loads(project.run("pld", "data", "diff", "HEAD", "--json").stdout)
    assert told["new_to_teacher"] == ["n0", "n1", "n9", "n20", "n21"]
    project.run("dvc", "repro", "extract", **paid)
    assert asked(server) == ["a new wording", "note number 0", "note number 20", "note number 21", "note number 9"]
    rules = (project.folder / "artifacts/rules/rules.jsonl").read_text().splitlines()
    assert len(rules) == 8
    assert "n2" not in {json.loads(line)["example_id"] for line in rules}
