import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pld.artifacts import write_text
from pld.cli.ablate import could_go, summary_lines
from pld.cli.main import main, pld
from support.artifact_tree import write_artifacts
from support.stories import EFFECTS, FINAL, TWO_ROUNDS
from support.word_student import WordStudent


def shown(*arguments):
    return CliRunner().invoke(pld, ["ablate", *arguments], catch_exceptions=False).stdout


def effect(label, low, high, identity="x" * 12):
    interval = EFFECTS[0].macro_f1.model_copy(update={"value": (low + high) / 2, "low": low, "high": high})
    return EFFECTS[0].model_copy(update={"instruction_id": identity, "label": label, "macro_f1": interval})


def test_the_table_says_of_each_instruction_what_it_does_in_120_columns(project):
    write_artifacts(project / "artifacts", story=TWO_ROUNDS)
    output = shown()
    assert max(map(len, output.splitlines())) <= 120
    row = next(line for line in output.splitlines() if FINAL[2].id[:8] in line)
    for cell in (" praise ", " 22 ", " -0.040 [-0.050, -0.010] ", " 12 ", " 1 ", " praise -0.040 ", " If somebody is "):
        assert cell in row
    assert f"harmful: {FINAL[2].id[:8]}: without it macro-F1 is clearly higher" in output
    points = "70 tokens 0.700 (pruned 1), 90 tokens 0.800 (what the loop left)"
    front = f"Pareto front of 3 lists, macro-F1 on validation: {points}"
    assert front in " ".join(output.split())
    assert "measured now" not in output


def test_an_instruction_could_go_if_its_effect_is_not_clear_and_its_label_has_another():
    rest = [effect("refund", 0.1, 0.2, "kept"), effect("refund", 0.0, 0.2, "idle"), effect("praise", -0.1, 0.1, "only")]
    assert [found.instruction_id for found in could_go(rest)] == ["idle"]
    lines = summary_lines(rest)
    assert lines[0].startswith("could go, each alone: idle (20 tokens together)")
    assert lines[2] == "not clearly above 0 either, but the only one of its label: only"
    assert summary_lines(rest[:1]) == ["each instruction is missed: without it macro-F1 is clearly lower"]


def test_a_program_gets_effects_and_front_as_one_object(project):
    write_artifacts(project / "artifacts", story=TWO_ROUNDS)
    found = json.loads(shown("--json"))
    assert found["effects"] == [own.model_dump(mode="json") for own in EFFECTS]
    assert (found["measured_now"], found["could_go"]) == (False, [])  # each is the only one of its label
    assert [(point["tokens"], point["on_front"]) for point in found["pareto"]] == [(70, True), (90, True), (120, False)]


def test_effects_that_the_stage_did_not_measure_are_measured_now_and_not_written(project, monkeypatch):
    monkeypatch.setattr("pld.resolve.inputs.build", lambda section, role: WordStudent())
    write_artifacts(project / "artifacts", story=TWO_ROUNDS, ablated=False)
    before = {path: path.read_bytes() for path in Path("artifacts").rglob("*") if path.is_file()}
    found = json.loads(shown("--json"))
    assert found["measured_now"]
    assert [own["instruction_id"] for own in found["effects"]] == [own.id for own in FINAL]
    assert all(own["tokens"] > 10 for own in found["effects"])  # counted by the Student
    assert {path: path.read_bytes() for path in Path("artifacts").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("measured", ["nothing", "another list"])
def test_a_list_that_does_not_render_to_the_shipped_prompt_is_not_measured(project, capsys, monkeypatch, measured):
    monkeypatch.setattr("pld.resolve.inputs.build", lambda section, role: WordStudent())
    write_artifacts(project / "artifacts", story=TWO_ROUNDS, ablated=measured != "nothing")
    if measured == "another list":
        path = Path("artifacts/review/final/ablation.jsonl")
        write_text(path, path.read_text().split("\n", 1)[1])
    write_text(Path("artifacts/review/final/system_prompt.md"), "another")
    with pytest.raises(SystemExit):
        main(["ablate"])
    told = capsys.readouterr().err
    assert told.startswith(
        "pld: expected the system message of artifacts/review/final/messages.json, got another text ("
    )
    assert told.count("\n") == 1
