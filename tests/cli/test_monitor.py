import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pld.artifacts import read_jsonl
from pld.cli.main import main, pld
from pld.cli.monitor import DRIFTED
from pld.records import Prediction, inputs_id, sha256
from pld.registry.store import Store
from support.artifact_tree import write_artifacts
from support.mails import LABELS
from support.served import served, write_log
from support.shelf import register
from support.stories import PROMPT

HERE = ("--evaluation", "artifacts/evaluation")


@pytest.fixture
def config(project: Path):
    return write_artifacts(project / "artifacts", test_size=240)


SHA = sha256(PROMPT)


def as_served(sha=SHA, at="2026-11-20T10:00:00Z", change=lambda label: label):
    """A log of the shipped system's own answers on test, each label changed by `change`."""
    rows = read_jsonl(Path("artifacts/evaluation/predictions.jsonl"), Prediction)
    own = [row for row in rows if row.system == "distilled"]
    return [served(change(row.predicted), 2.9, f"text {n}", at=at, sha=sha, logged=False) for n, row in enumerate(own)]


def ran(*arguments):
    return CliRunner().invoke(pld, ["monitor", *arguments], catch_exceptions=False)


def test_answers_as_on_test_are_no_drift_and_drift_is_named_with_its_label(config, project):
    calm = ran(str(write_log(project / "calm.jsonl", as_served())), *HERE, "--fail-on-drift")
    assert calm.exit_code == 0, calm.output
    assert "No drift seen in 240 inputs, against 240 test examples." in calm.output
    assert f"prompt {SHA[:12]}: 240 answers" in calm.output

    log = write_log(project / "odd.jsonl", as_served(change=lambda label: "refund" if label == "praise" else label))
    assert ran(str(log), *HERE).exit_code == 0
    odd = ran(str(log), *HERE, "--fail-on-drift")
    assert odd.exit_code == DRIFTED == 3
    (verdict,) = [line for line in odd.output.splitlines() if line.startswith("Drift: ")]
    assert "labels (PSI " in verdict
    assert "points" in verdict
    assert f"`pld data add-from-log {log}" in odd.output
    for label in LABELS:
        assert any(line.startswith(f"│ {label}") for line in odd.output.splitlines())


def test_a_registered_version_is_the_reference(project: Path, store: Store):
    register(store, test_size=240)
    log = write_log(project / "log.jsonl", [*as_served(), *as_served(sha="f" * 64)])
    told = ran(str(log), "--json")
    assert told.exit_code == 0, told.output
    found = json.loads(told.output)
    assert found["measured"] == "pld-mail version 1 (production)"
    assert (found["lines"], found["other_prompts"], found["measured_on"]) == (240, 240, 240)
    assert found["verdict"] == "no_drift"
    assert found["sentence"].startswith("No drift seen")
    assert json.loads(ran(str(log), "--json", "--version", "1").output) == found
    with pytest.raises(SystemExit):
        main(["monitor", str(log), "--alias", "previous"])


def test_since_and_window_select_answers(config, project):
    old = [
        answer.model_copy(update={"id": inputs_id({"text": f"old {n}"})})
        for n, answer in enumerate(as_served(at="2026-10-01T00:00:00Z"))
    ]
    log = write_log(project / "log.jsonl", [*as_served(), *old])
    other = write_log(project / "other.jsonl", as_served(at="2026-11-21T10:00:00Z"))
    told = ran(str(log), str(other), *HERE, "--since", "2026-11-01", "--window", "day")
    assert "240 before 2026-11-01T00:00:00+00:00 left out" in told.output
    assert "240 different inputs; 240 repeats counted once" in told.output
    assert "2026-11-20" in told.output
    assert "2026-11-21" in told.output
    assert "2026-10-01 " not in told.output


def test_an_empty_log_is_too_few_and_exits_with_0(config, project):
    told = ran(str(write_log(project / "none.jsonl", [])), *HERE, "--fail-on-drift")
    assert told.exit_code == 0
    assert "Too few to tell: 0 different inputs, and about " in told.output


def test_version_alias_and_evaluation_exclude_each_other(config, project):
    log = write_log(project / "log.jsonl", [])
    told = ran(str(log), *HERE, "--version", "1")
    assert told.exit_code == 2
    assert "expected one of --version, --alias and --evaluation" in told.output


def test_a_broken_line_is_named_in_one_line(config, project, capsys):
    log = write_log(project / "log.jsonl", as_served()[:2])
    log.write_text(log.read_text() + "{}\n")
    with pytest.raises(SystemExit) as ended:
        main(["monitor", str(log), *HERE])
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "expected a line of a serving log, got " in told
    assert "log.jsonl, line 3)" in told
