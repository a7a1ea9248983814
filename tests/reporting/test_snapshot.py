"""A registered version as a side of `pld diff`."""

import json

import pytest
from click.testing import CliRunner

from pld.cli.main import pld
from pld.distill.render import prompt_messages
from pld.records import sha256
from pld.reporting import snapshot
from pld.serving.model import Release, ServedSpec
from pld.stages.track import track
from support.artifact_tree import composed, write_artifacts
from support.stories import ADDED, KEPT, PROMPT


def ran(*arguments):
    return CliRunner().invoke(pld, arguments, catch_exceptions=False).stdout


def test_a_version_whose_run_is_gone_has_a_prompt_but_no_instructions_and_no_answers(project, monkeypatch):
    config = write_artifacts(project / "artifacts")
    spec = ServedSpec(task=config.task.bare, student=config.student, calibration=None, prompt_sha256=sha256(PROMPT))
    monkeypatch.setattr(
        snapshot, "fetch_release", lambda config, name: Release(spec, prompt_messages(PROMPT), model="m", number=3)
    )
    told = json.loads(ran("diff", "production", "artifacts", "--json"))
    assert (told["a"]["what"], told["a"]["instructions"], told["instructions"]) == ("m version 3", None, None)
    assert "got those on no split (production)" in told["missing"]
    assert "instructions: those of production were not kept" in ran("diff", "production", "artifacts")


@pytest.mark.slow
def test_a_registered_version_is_compared_on_the_test_set_that_both_were_measured_on(store, project):
    track(write_artifacts(project / "artifacts", right=0.7))
    batch = composed().model_copy(update={"calibration": composed().calibration.model_copy(update={"method": "batch"})})
    write_artifacts(project / "artifacts", config=batch, prompt="new", right=0.9)
    told = json.loads(ran("diff", "production", "artifacts", "--json"))
    assert told["a"]["what"] == "pld-mail version 1"
    assert told["a"]["prompt_sha256"] == sha256(PROMPT)
    assert [own["id"] for own in told["instructions"]["unchanged"]] == [KEPT.id, ADDED.id]
    assert [own["key"] for own in told["settings"]] == ["calibration"]
    assert (told["answers"]["split"], told["answers"]["n"]) == ("test", 60)
    assert len(told["answers"]["fixed"]) > len(told["answers"]["broken"])
    assert ran("export", "--alias", "production") == PROMPT

    write_artifacts(project / "artifacts", prompt="new", test_size=57)
    assert "got those on test (1)" in json.loads(ran("diff", "1", "artifacts", "--json"))["missing"]
