"""The stage with a scripted Student, on a made-up list of three instructions."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pld.artifacts import SHIPS, read_json, read_jsonl, read_record
from pld.config.settings import load_config
from pld.errors import ReviewError
from pld.records import Instruction, Prediction, Reviewed, sha256
from pld.resolve.records import Descent, Effect
from pld.review.decisions import apply_decisions
from pld.review.inputs import ReviewedList
from pld.review.log import read_log, record
from pld.stages import review
from support.artifact_tree import write_artifacts
from support.stories import DELIVERY, FINAL, NEW_ID, NEW_TEXT, PRAISE, REFUND, TWO_ROUNDS, decision
from support.word_student import WordStudent

LEFT, FINAL_FOLDER = Path("artifacts/resolve/final"), Path("artifacts") / SHIPS
EDITED = [decision(REFUND, "edit", NEW_TEXT), decision(DELIVERY, "reject"), decision(PRAISE)]


@pytest.fixture(autouse=True)
def digest(project):
    write_artifacts(project / "artifacts", story=replace(TWO_ROUNDS, validation=9))
    return reviewed().ships


def run_stage():
    review.compute(load_config(), Path("artifacts"), WordStudent())


def held(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def reviewed():
    return read_record(Path("artifacts/review/review.json"), Reviewed)


def imported(decisions):
    """An entry for the list that ships, as `pld review import` makes it."""
    found = ReviewedList.read(load_config(), Path("artifacts"))
    makes = found.digest_of(apply_decisions(found.instructions, decisions))
    return record("mail", found.prompt_sha256, decisions, makes)[0]


def told(capsys):
    return capsys.readouterr().out.strip()


def test_without_edits_what_the_loop_left_ships_byte_for_byte_and_no_student_is_loaded(digest, project):
    (FINAL_FOLDER / "of-an-earlier-run").touch()
    imported([decision(own) for own in FINAL])
    code = "import sys; from pld.stages import review; review.run(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert held(FINAL_FOLDER) == held(LEFT)
    assert reviewed() == Reviewed(came_in=digest, ships=digest, sheets=())


def test_what_reviewers_made_of_the_list_is_measured_like_any_other_and_the_same_each_time(digest, capsys):
    entry = imported(EDITED)
    run_stage()
    assert "sheet 1: 1 approve, 1 edit, 1 reject by Ann; 3 → 2 instructions" in told(capsys)
    ships = read_jsonl(FINAL_FOLDER / "instructions.jsonl", Instruction)
    assert [own.id for own in ships] == [NEW_ID, PRAISE.id]
    text = (FINAL_FOLDER / "system_prompt.md").read_text()
    assert (sha256(text), reviewed()) == (entry.makes, Reviewed(came_in=digest, ships=entry.makes, sheets=(1,)))
    assert NEW_TEXT in text
    assert DELIVERY.text not in text
    rows = read_jsonl(FINAL_FOLDER / "predictions.jsonl", Prediction)
    before = read_jsonl(LEFT / "predictions.jsonl", Prediction)
    assert [(row.example_id, row.system) for row in rows] == [(row.example_id, row.system) for row in before]
    assert [row.scores for row in rows] != [row.scores for row in before]
    assert read_json(FINAL_FOLDER / "calibration.json")["examples"] == 13  # of 15, two of which the prompt shows
    effects = read_jsonl(FINAL_FOLDER / "ablation.jsonl", Effect)
    descents = read_jsonl(FINAL_FOLDER / "descent.jsonl", Descent)
    assert [own.instruction_id for own in effects] == [own.instruction_id for own in descents] == [NEW_ID, PRAISE.id]
    assert [own.fixed for own in descents] == [own.fixed for own in effects]
    assert [(step.edit_id, step.proposer) for step in descents[0].edits][-1] == ("sheet 1", "Ann")

    first = held(FINAL_FOLDER)
    run_stage()
    assert held(FINAL_FOLDER) == first

    back = [decision(ships[0], "edit", REFUND.text), decision(PRAISE)]
    second = imported(back)
    run_stage()
    assert reviewed() == Reviewed(came_in=digest, ships=second.makes, sheets=(1, 2))
    assert [own.text for own in read_jsonl(FINAL_FOLDER / "instructions.jsonl", Instruction)] == [
        REFUND.text, PRAISE.text,
    ]  # fmt: skip
    assert "sheet 1" in read_jsonl(FINAL_FOLDER / "descent.jsonl", Descent)[0].edits[-2].edit_id


def test_edits_of_a_list_that_the_loop_no_longer_leaves_are_said_to_rest(capsys):
    record("mail", sha256("an older prompt"), EDITED, sha256("another"))
    run_stage()
    assert "no sheet of reviews/mail.jsonl changes prompt" in told(capsys)
    assert reviewed().sheets == ()


def test_a_broken_log_stops_the_stage_with_one_line(capsys):
    imported(EDITED)
    log = Path("reviews/mail.jsonl")
    log.write_text(log.read_text().replace(NEW_TEXT, "If it is anything, answer refund."))
    before = held(FINAL_FOLDER)
    with pytest.raises(ReviewError, match=r"^expected the hash of what the line says.* \(reviews/mail.jsonl:1\)"):
        run_stage()
    assert held(FINAL_FOLDER) == before


def test_a_sheet_that_makes_another_prompt_by_now_is_told_and_nothing_is_measured(digest, monkeypatch):
    record("mail", digest, EDITED, sha256("as it was rendered then"))
    monkeypatch.setattr("pld.stages.review.ablate", lambda *_: pytest.fail("measured"))
    with pytest.raises(ReviewError, match=r"of sheet 1, got .*: rendering settings changed since"):
        run_stage()
    assert len(read_log("mail")) == 1
