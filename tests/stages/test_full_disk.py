"""On a full disk a stage says so in one line, and the files of the run before stay whole; on a small file system of its
own, where the kernel lets an ordinary user mount one."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from pld.stages import __main__ as stages
from support.artifact_tree import composed, write_artifacts
from support.project import ROOT

WRITTEN_BY = {
    "config": "artifacts/config.yaml",
    "prepare": "artifacts/splits/train.jsonl",
    "extract": "artifacts/rules/rules.jsonl",
    "report": "artifacts/report/index.html",
    "track": "mlflow.db",
}
ON_A_FULL_DISK = """
import json, subprocess, sys
from hashlib import md5
from pathlib import Path

def held():
    files = [file for name in ("artifacts", "mlartifacts") for file in Path(name).rglob("*") if file.is_file()]
    return {str(file): md5(file.read_bytes()).hexdigest() for file in sorted(files)}

def run(stage):
    done = subprocess.run([sys.executable, "-m", "pld.stages", stage], capture_output=True, text=True)
    return {"status": done.returncode, "said": done.stderr}

stage, found = sys.argv[1], {}
found["before"] = run(stage if stage != "track" else "report")  # what is tracked already isn't written again
first = held()
with Path("fill").open("wb", buffering=0) as fill:
    try:
        while True:
            fill.write(bytes(4096))
    except OSError:
        pass
found["full"] = run(stage)
found["same"] = held() == first
Path("fill").unlink()
found["after"] = run(stage)
print(json.dumps(found))
"""


@pytest.fixture
def in_a_small_file_system(tmp_path):
    """Runs ON_A_FULL_DISK for a stage in a project that lies on a tmpfs."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("conf", "assets/corpus/records", "assets/corpus/teacher"):
        shutil.copytree(ROOT / name, project / name)
    text = (ROOT / "params.yaml").read_text().replace("task: stereoset_bias", "task: tickets")
    (project / "params.yaml").write_text(text.replace("teacher: recorded\n", "teacher: recorded_tickets\n"))
    (tmp_path / "script.py").write_text(ON_A_FULL_DISK)

    def run(stage, before):
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PLD_CACHE": str(tmp_path / "cache")}
        for earlier in before:
            subprocess.run([sys.executable, "-m", "pld.stages", earlier], cwd=project, env=environment, check=True)
        script = (
            "mkdir ../disk && mount -t tmpfs -o size=24m none ../disk || exit 77; "
            'cp -r . ../disk/project && cd ../disk/project && exec "$0" ../../script.py "$1"'
        )
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script, sys.executable, stage],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 77 or "unshare" in done.stderr:
            pytest.skip("may not mount")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return project, run


@pytest.mark.slow
@pytest.mark.parametrize("stage", WRITTEN_BY)
def test_a_stage_on_a_full_disk_says_so_in_one_line_and_keeps_what_is_there(stage, in_a_small_file_system):
    project, run = in_a_small_file_system
    before = list(WRITTEN_BY)[: list(WRITTEN_BY).index(stage)][:3]
    if stage in ("report", "track"):
        before = []
        write_artifacts(project / "artifacts", composed())
    found = run(stage, before)
    assert found["before"]["status"] == 0, found
    assert found["full"]["status"] == 1, found
    assert found["full"]["said"].count("\n") == 1, found
    assert "o space left" in found["full"]["said"] or "disk is full" in found["full"]["said"], found
    assert found["same"], found
    assert found["after"]["status"] == 0, found


@pytest.mark.parametrize("stage", stages.STAGES)
def test_a_stage_that_may_not_write_is_one_line(stage, project, monkeypatch, capsys):
    def refused():
        raise PermissionError(13, "Permission denied", WRITTEN_BY.get(stage, "artifacts"))

    monkeypatch.setattr(f"pld.stages.{stage}.run", refused)
    assert stages.main([stage]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{stage}: expected files that can be read and written, got: Permission denied (")
    assert said.endswith("; make it writable for this user and run it again\n")
    assert said.count("\n") == 1


def test_only_pld_artifacts_writes_what_stages_leave():
    """Its functions write beside the old file and replace it at the end."""
    code = "\n".join(file.read_text() for file in (ROOT / "src/pld/stages").glob("*.py"))
    for writer in (".write_bytes(", 'open("w', "json.dump(", ".mkdir(", "rmtree(", ".unlink("):
        assert writer not in code, writer
