import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pld.cli.main import main, pld
from pld.cli.registry import history, promote, rollback, status
from pld.records import sha256
from pld.registry.store import Store
from support.artifact_tree import write_artifacts
from support.shelf import register
from support.stories import PROMPT


def ran(command: click.Command, *arguments: str) -> Result:
    # as a person does it, from the root: click keeps a command's help option as it was first asked for
    return CliRunner().invoke(pld, [str(command.name), *arguments], catch_exceptions=False)


def test_status_promote_rollback_and_history_work_together(
    project: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    write_artifacts(project / "artifacts", right=0.7)
    assert "pld-mail has no version yet; `make repro` registers one" in ran(status).output
    register(store, right=0.7)
    register(store, prompt=PROMPT + "worse\n", right=0.4)

    shown = ran(status).output
    assert "version 2: better_than_zero_shot failed: macro-F1 +0.000 [+0.000, +0.000] against zero_shot" in shown
    rows = [line for line in shown.splitlines() if sha256(PROMPT)[:12] in line]
    assert len(rows) == 1
    assert all(cell in rows[0] for cell in (" 1 ", "production", " 60 ", " hold ", " no ", " 20"))
    assert "look at the runs: `make ui`" in shown

    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["promote"])
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("pld: pld-mail version 2 stays candidate: better_than_zero_shot failed")

    assert "version 2 is production: forced (a trial)" in ran(promote, "--force", "--reason", "a trial").output
    assert ran(rollback, "--reason", "it was no good").output == (
        "pld-mail version 1 is production again, version 2 is previous\n"
    )
    assert "version 2: rolled back: from production to version 1" in ran(status).output

    told = ran(history).output
    reasons = ["it was no good", "a trial (failed: better_than_zero_shot", "all gates hold"]
    assert [told.index(reason) for reason in reasons] == sorted(told.index(reason) for reason in reasons), (
        "newest first"
    )
    lines = json.loads(ran(history, "--json").output)
    assert [(line["number"], line["kind"], line["from"], line["to"]) for line in lines] == [
        (3, "rollback", 2, 1), (2, "force", 1, 2), (1, "promote", None, 1),
    ]  # fmt: skip
    assert set(lines[0]) == {
        "number", "at", "kind", "from", "to", "previous", "by", "reason", "prompt_sha256", "commit",
    }  # fmt: skip
    assert lines[0]["prompt_sha256"] == sha256(PROMPT)

    found = json.loads(ran(status, "--json").output)
    assert found["model"] == "pld-mail"
    assert [(version["version"], version["aliases"]) for version in found["versions"]] == [
        (2, ["previous"]), (1, ["production"]),
    ]  # fmt: skip
    newest, oldest = found["versions"]
    assert newest["decision"] == "rolled back: from production to version 1"
    path = project / "artifacts/config.yaml"
    path.write_text(path.read_text().replace("require_review: false", "require_review: true"))
    capsys.readouterr()
    for command in (["promote", "--version", "2", "--force", "--reason", "in a hurry"], ["rollback"]):
        with pytest.raises(SystemExit):
            main(command)
        told = capsys.readouterr().err
        assert "no sheet decides on prompt" in told
        assert ("--force can't override the review" in told) == (command[0] == "promote")
    assert {gate["gate"]: gate["holds"] for gate in newest["gates"]}["better_than_zero_shot"] is False
    assert (oldest["promoted_at"], oldest["reviewed"], oldest["review"]) == (lines[0]["at"], False, None)


def test_without_moves_the_history_is_empty(project: Path, store: Store) -> None:
    write_artifacts(project / "artifacts")
    assert ran(history).output == "pld-mail: production was never moved\n"
    assert json.loads(ran(history, "--json").output) == []


@pytest.mark.parametrize("arguments", [["--force"], ["--reason", "because"], ["--force", "--reason", " "]])
def test_force_and_reason_come_together(project: Path, arguments: list[str]) -> None:
    done = ran(promote, *arguments)
    assert done.exit_code == 2
    assert "expected --force and --reason TEXT together" in done.output


def test_the_commands_are_imported_without_mlflow() -> None:
    code = "import sys, pld.cli.registry; print([name for name in sys.modules if name.startswith(('mlflow', 'torch'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
