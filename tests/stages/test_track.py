from pathlib import Path

import pytest

from pld.registry.store import Store
from pld.stages import track
from support.artifact_tree import write_artifacts
from support.stories import PROMPT


def test_it_prints_the_run_the_promotion_and_how_to_open_mlflow(
    project: Path, store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_artifacts(project / "artifacts", right=0.7)
    track.run()
    logged, outcome, ui = capsys.readouterr().out.splitlines()
    assert logged.startswith("logged as MLflow run ")
    assert outcome.startswith("pld-mail version 1 is production: all gates hold")
    assert ui == "look at the runs: `make ui`"
    track.run()
    again = capsys.readouterr().out.splitlines()
    assert again[0] == f"already {logged}"
    assert again[1] == "pld-mail version 1 is production: the same prompt as before"

    # a better one from a queued experiment's workspace is logged in the main store, and moves nothing
    workspace = project / "workspace"
    write_artifacts(workspace / "artifacts", prompt=PROMPT + "more\n")
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("DVC_ROOT", str(project))
    monkeypatch.setenv("DVC_EXP_NAME", "brave-newt")
    track.run()
    queued = capsys.readouterr().out.splitlines()
    assert queued[0].startswith("logged as MLflow run ")
    assert "left out, because DVC experiment brave-newt must not move production" in queued[1]
    assert [path.name for path in workspace.iterdir()] == ["artifacts"], "nothing is lost with the workspace"

    # applied to the main workspace, the run is known, and now it is registered
    monkeypatch.delenv("DVC_EXP_NAME")
    track.run()
    applied = capsys.readouterr().out.splitlines()
    assert applied[0] == f"already {queued[0]}"
    assert applied[1].startswith("pld-mail version 2 is production")
