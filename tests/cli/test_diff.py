import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from pld.artifacts import read_jsonl, write_json, write_jsonl, write_text
from pld.cli.diff import difference, show
from pld.cli.main import main, pld
from pld.metrics import predictions
from pld.params import load_config
from pld.records import Calibration, Example, Prediction, sha256
from pld.reporting import snapshot as compared
from pld.resolve import inputs as lists
from pld.resolve.records import Descent
from support.artifact_tree import PROMPT, write_artifacts
from support.mails import LABELS, mails, scores
from support.resolve_tree import ADDED, CLUSTERED, KEPT
from support.two_rounds import CAME_IN, FINAL, write_two_rounds
from support.word_student import WordStudent

VALIDATION = mails("validation", 9)


def shown(*arguments):
    return CliRunner().invoke(pld, ["diff", *arguments], catch_exceptions=False).stdout


def found(*arguments):
    return json.loads(shown(*arguments, "--json"))


def fails(capsys, *arguments):
    with pytest.raises(SystemExit):
        main(["diff", *arguments])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def add_trial(trial, share, instructions=(KEPT,)):
    """Another trial, with answers of which `share` is right."""
    folder, model = Path("artifacts/trials", trial), next(Path("artifacts/trials").glob("*/report.json"))
    settings = json.loads(model.read_text()) | {"trial_id": trial, "settings": {"rendering.frame": trial}}
    write_json(folder / "report.json", settings)
    write_jsonl(folder / "instructions.jsonl", instructions)
    write_text(folder / "system_prompt.md", CLUSTERED + trial)
    write_jsonl(folder / "predictions.jsonl", predictions(VALIDATION, trial, scores(VALIDATION, share), LABELS))


def test_what_ships_is_set_against_the_winner_of_the_sweep_on_test(project):
    write_artifacts(project / "artifacts", groups=True)
    told = found("best", "artifacts")
    assert [side["prompt_sha256"] for side in (told["a"], told["b"])] == [sha256(CLUSTERED), sha256(PROMPT)]
    assert [side["prompt_tokens"] for side in (told["a"], told["b"])] == [55, 60]
    assert [own["id"] for own in told["instructions"]["added"]] == [ADDED.id]
    assert [pair["after"]["id"] for pair in told["instructions"]["unchanged"]] == [KEPT.id]
    report = json.loads(Path("artifacts/evaluation/report.json").read_text())
    measured = next(own for own in report["comparisons"] if (own["a"], own["b"]) == ("distilled", "clustered"))
    answers = told["answers"]
    assert answers["split"] == "test"
    # the very figures of the evaluation, over groups
    assert answers["comparison"] | {"a": "distilled", "b": "clustered"} == measured
    assert len(answers["fixed"]) == measured["fixed"] > 0


def test_the_page_is_readable_at_80_columns_and_says_all_in_words(project):
    write_artifacts(project / "artifacts")
    page = io.StringIO()
    show(difference("best", "artifacts"), True, Console(width=80, file=page))
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(page.getvalue().split())
    assert "1 added, 0 removed, 0 reworded, 1 unchanged, 0 of those in both at another place" in text
    assert f"+ {ADDED.id} (delivery) {ADDED.text}" in text
    answers = found("best", "artifacts")["answers"]
    assert f"answers on test, n = 60: {len(answers['fixed'])} fixed, 0 broken, 0 wrong in another way" in text
    for change in answers["fixed"]:
        assert f"fixed {change['example_id']}: {change['label']}, {change['before']} → {change['label']}" in text
    row = next(line for line in lines if "refund" in line and "0." in line)
    assert row.count("│") == 9


def test_ids_are_listed_only_where_they_are_asked_for(project):
    write_artifacts(project / "artifacts")
    assert "fixed test-" not in shown("best", "artifacts")
    assert "fixed test-" in shown("best", "artifacts", "--ids")


def test_a_side_does_not_differ_from_itself(project):
    write_artifacts(project / "artifacts")
    for side in ("artifacts", "best", "resolve"):
        told = found(side, side)
        assert (told["settings"], told["answers"]["fixed"], told["answers"]["n"]) == ([], [], 60)
        assert "no difference" in shown(side, side)
    assert "no difference" not in shown("best", "artifacts")


def test_trials_are_compared_on_validation_with_the_settings_that_they_tried(project):
    write_artifacts(project / "artifacts")
    for trial, share in (("aaaa11", 0.2), ("bbbb22", 0.9)):
        add_trial(trial, share)
    told = found("aaaa", "bbbb22")  # the beginning of an id is enough
    assert told["answers"]["split"] == "validation"
    assert told["settings"] == [{"key": "rendering.frame", "before": "aaaa11", "after": "bbbb22"}]
    assert "the same list, rendered otherwise" in shown("aaaa11", "bbbb22")
    assert "precision" not in shown("aaaa11", "bbbb22")
    assert "answers of aaaa11 were given at the sweep's precision" in shown("aaaa11", "artifacts")


class FirstLabelStudent(WordStudent):
    """Counts words, and always answers with the first label."""

    def score(self, messages, inputs, labels, on_progress=None):
        self.asked += [(messages[0].content, text) for text in inputs]
        return np.tile(np.linspace(-0.1, -5, len(labels)), (len(inputs), 1))


@pytest.fixture
def student(monkeypatch):
    """Takes the place of every Student; its attribute `built`: the settings that it was built by."""
    own = FirstLabelStudent()
    own.built = []

    def build(settings, role):
        own.built.append(settings)
        return own

    monkeypatch.setattr(compared, "build", build)
    monkeypatch.setattr(lists, "build", build)
    return own


def test_a_folder_with_a_list_is_a_side_and_what_is_missing_is_said(project, student):
    write_artifacts(project / "artifacts")
    shutil.copytree("artifacts/review/final", "elsewhere")
    reworded = KEPT.model_copy(update={"id": "i3", "text": "money back, {{ curly }} and everything"})
    write_jsonl(Path("elsewhere/instructions.jsonl"), [reworded, ADDED])
    told = found("elsewhere", "artifacts")
    assert told["answers"]["split"] == "validation"
    assert (told["a"]["prompt_tokens"], told["b"]["prompt_tokens"]) == (len(PROMPT.split()), 60)
    assert [pair["by"] for pair in told["instructions"]["reworded"]] == ["rules"]
    assert "~ i3 → i1 (refund) (common rules) money back, {{ curly }} and [-everything-] {+all+}" in shown(
        "elsewhere", "artifacts"
    )
    Path("elsewhere/predictions.jsonl").unlink()
    assert found("elsewhere", "artifacts")["missing"] == (
        "no answers of both are kept on the same examples: elsewhere has those on nothing, artifacts has those on "
        "validation and test; `--measure` asks the Student on validation"
    )


def test_answers_of_another_prompt_or_of_another_task_are_not_taken(project):
    write_artifacts(project / "artifacts")
    chat = [{"role": "system", "content": "another"}]
    write_json(Path("artifacts/evaluation/prompts.json"), {"clustered": chat})
    assert "best has those on nothing" in found("best", "artifacts")["missing"]
    rows = read_jsonl(Path("artifacts/review/final/predictions.jsonl"), Prediction)
    write_jsonl(Path("artifacts/best/predictions.jsonl"), [row.model_copy(update={"label": "x"}) for row in rows])
    assert found("best", "artifacts")["missing"] == (
        "answers on validation have other labels than refund, delivery, praise"
    )


def test_an_edit_links_an_instruction_with_what_it_was(project):
    write_two_rounds(project / "artifacts")
    told = found("best", "resolve")
    assert [pair["by"] for pair in told["instructions"]["reworded"]] == ["edit"]
    assert [own["id"] for own in told["instructions"]["removed"]] == [CAME_IN[2].id, CAME_IN[4].id]
    descents = read_jsonl(Path("artifacts/resolve/final/descent.jsonl"), Descent)
    assert told["instructions"]["reworded"][0]["after"]["id"] == descents[0].instruction_id == FINAL[0].id


def test_measure_asks_the_student_on_validation_where_nothing_is_kept_and_writes_nothing(project, student):
    write_two_rounds(project / "artifacts")
    validation = read_jsonl(Path("artifacts/splits/validation.jsonl"), Example)
    kept = predictions(validation, "best", scores(validation, 1.0), LABELS)
    write_jsonl(Path("artifacts/best/predictions.jsonl"), kept)
    Path("artifacts/splits/test.jsonl").write_text("not to be read")
    before = {path: path.read_bytes() for path in Path("artifacts").rglob("*") if path.is_file()}
    assert "has those on nothing" in found("best", "resolve")["missing"]
    assert student.asked == []
    answers = found("best", "resolve", "--measure")["answers"]
    assert (answers["split"], answers["n"], answers["fixed"]) == ("validation", 30, [])
    assert {(change["label"], change["after"]) for change in answers["broken"]} == {
        ("delivery", "refund"), ("praise", "refund")
    }  # fmt: skip
    prompt = Path("artifacts/resolve/final/system_prompt.md").read_text()
    assert student.asked == [(prompt, example.inputs["text"]) for example in validation]
    assert {path: path.read_bytes() for path in Path("artifacts").rglob("*") if path.is_file()} == before


def test_with_measure_answers_on_validation_are_compared_although_those_on_test_are_kept(project, student):
    write_artifacts(project / "artifacts")
    assert found("resolve", "artifacts", "--measure")["answers"]["split"] == "validation"
    assert student.built == []  # both are kept


def test_a_side_is_measured_with_its_own_student_and_calibration(project, student):
    write_two_rounds(project / "artifacts")
    config = load_config()
    side = compared.read_side(config, Path("artifacts"), "resolve")
    calibration = Calibration(labels=LABELS, mean_log_scores=(0.0, -100.0, 0.0), examples=9)
    other = replace(side, student={"_target_": "another"}, calibrated=True, calibration=calibration)
    asked = compared.Asked(config, Path("artifacts"))
    for own, label in ((side, "refund"), (other, "delivery")):
        rows = asked.answer(own).answers["validation"].rows
        assert ({row.predicted for row in rows}, len(rows)) == ({label}, 30)
    assert student.built == [config.student, {"_target_": "another"}]


@pytest.mark.parametrize("wanted", ["nothing", "bbb", "aaaa"])
def test_what_is_no_side_is_one_line_that_names_those_that_there_are(project, capsys, wanted):
    write_artifacts(project / "artifacts")
    for trial in ("aaaa11", "aaaa22", "bbbb22"):
        add_trial(trial, 0.5)
    told = fails(capsys, wanted, "artifacts")
    assert told.startswith("pld: expected production, candidate, previous, a version's number, artifacts, best, ")
    assert f"got {wanted!r}" in told
    assert not Path("mlflow.db").exists()
