"""`pld diff` on made-up artifacts and on a registered version."""

import io
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from pld.artifacts import read_jsonl, read_prompt, write_json, write_jsonl, write_prompt
from pld.cli.diff import difference, show
from pld.cli.main import main, pld
from pld.distill.render import example_turns, prompt_messages
from pld.metrics import predictions
from pld.records import Prediction, sha256
from support.artifact_tree import write_artifacts
from support.mails import LABELS, TASK, mails, scores
from support.stories import ADDED, CAME_IN, CLUSTERED, FINAL, KEPT, PROMPT, TWO_ROUNDS

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
    write_prompt(folder, prompt_messages(CLUSTERED + trial))
    write_jsonl(folder / "predictions.jsonl", predictions(VALIDATION, trial, scores(VALIDATION, share), LABELS))


def test_the_shipped_prompt_is_compared_with_the_winner_of_the_sweep_on_test(project):
    write_artifacts(project / "artifacts", groups=True)
    told = found("best", "artifacts")
    assert [side["prompt_sha256"] for side in (told["a"], told["b"])] == [sha256(CLUSTERED), sha256(PROMPT)]
    assert [side["prompt_tokens"] for side in (told["a"], told["b"])] == [55, 60]
    assert [own["id"] for own in told["instructions"]["added"]] == [ADDED.id]
    assert [own["id"] for own in told["instructions"]["unchanged"]] == [KEPT.id]
    report = json.loads(Path("artifacts/evaluation/report.json").read_text())
    measured = next(own for own in report["comparisons"] if (own["a"], own["b"]) == ("distilled", "clustered"))
    answers = told["answers"]
    assert answers["split"] == "test"
    # the very figures of the evaluation, over groups
    assert answers["comparison"] | {"a": "distilled", "b": "clustered"} == measured
    assert len(answers["fixed"]) == measured["fixed"] > 0


def test_the_text_fits_into_80_columns(project):
    write_artifacts(project / "artifacts")
    page = io.StringIO()
    show(difference("best", "artifacts"), True, Console(width=80, file=page))
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    text = " ".join(page.getvalue().split())
    assert "1 added, 0 removed, 0 reworded, 1 unchanged" in text
    assert f"+ {ADDED.id[:8]} (delivery) {ADDED.text}" in text
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
        assert "the same prompt" in shown(side, side)
    assert "the same prompt" not in shown("best", "artifacts")


def test_trials_are_compared_on_validation_with_the_settings_that_they_tried(project):
    write_artifacts(project / "artifacts")
    for trial, share in (("aaaa11", 0.2), ("bbbb22", 0.9)):
        add_trial(trial, share)
    told = found("aaaa", "bbbb22")  # the beginning of an id is enough
    assert told["answers"]["split"] == "validation"
    assert told["settings"] == [{"key": "rendering.frame", "before": "aaaa11", "after": "bbbb22"}]
    assert "the same instructions, in another order or rendered differently" in shown("aaaa11", "bbbb22")
    assert "search_dtype" not in shown("aaaa11", "bbbb22")
    assert "aaaa11 answered at student.search_dtype" in shown("aaaa11", "artifacts")


def test_a_folder_with_a_list_is_a_side_and_missing_answers_are_named(project):
    write_artifacts(project / "artifacts")
    shutil.copytree("artifacts/review/final", "elsewhere")
    reworded = KEPT.model_copy(update={"id": "i3", "text": "money back, {{ curly }} and everything"})
    write_jsonl(Path("elsewhere/instructions.jsonl"), [reworded, ADDED])
    write_prompt(Path("elsewhere"), prompt_messages("Another prompt."))
    told = found("elsewhere", "artifacts")
    assert told["answers"]["split"] == "validation"
    assert (told["a"]["prompt_tokens"], told["b"]["prompt_tokens"]) == (None, 60)
    assert "~ i3 → i1 (refund) money back, {{ curly }} and [-everything-] {+all+}" in shown("elsewhere", "artifacts")
    Path("elsewhere/predictions.jsonl").unlink()
    assert found("elsewhere", "artifacts")["missing"] == (
        "expected answers on the same test split or on validation, got those on no split (elsewhere)"
    )


def test_example_turns_are_compared_by_input_and_label(project):
    first, second, third = mails("train", 3)
    write_artifacts(project / "artifacts", turns=example_turns(TASK.bare, [first, second]))
    shutil.copytree("artifacts/review/final", "elsewhere")
    write_prompt(Path("elsewhere"), (*read_prompt(Path("elsewhere"))[:1], *example_turns(TASK.bare, [third, first])))
    turns = found("artifacts", "elsewhere")["turns"]
    texts = {kind: [turn["input"] for turn in turns[kind]] for kind in ("added", "removed", "unchanged")}
    rendered = {
        example.id: message.content
        for example in (first, second, third)
        for message in example_turns(TASK.bare, [example])[:1]
    }
    assert texts == {"added": [rendered[third.id]], "removed": [rendered[second.id]], "unchanged": [rendered[first.id]]}
    text = shown("artifacts", "elsewhere")
    assert "example turns: 1 added, 1 removed, 1 unchanged" in text
    assert f"→ {third.label}" in text
    assert "the same prompt" not in text
    write_prompt(Path("elsewhere"), (*read_prompt(Path("elsewhere"))[:1], *example_turns(TASK.bare, [second, first])))
    assert "0 added, 0 removed, 2 unchanged, in another order" in shown("artifacts", "elsewhere")


def test_answers_of_another_prompt_or_of_another_task_are_not_compared(project):
    write_artifacts(project / "artifacts")
    write_json(Path("artifacts/evaluation/prompts.json"), {"clustered": [{"role": "system", "content": "another"}]})
    assert "got those on no split (best)" in found("best", "artifacts")["missing"]
    rows = read_jsonl(Path("artifacts/review/final/predictions.jsonl"), Prediction)
    write_jsonl(Path("artifacts/best/predictions.jsonl"), [row.model_copy(update={"label": "x"}) for row in rows])
    assert found("best", "artifacts")["missing"] == (
        "expected the labels refund, delivery, praise, got others on validation (best)"
    )


def test_an_instruction_that_the_loop_revised_is_reworded(project):
    write_artifacts(project / "artifacts", story=TWO_ROUNDS)
    told = found("best", "resolve")
    assert [(own["before"]["id"], own["after"]["id"]) for own in told["instructions"]["reworded"]] == [
        (CAME_IN[0].id, FINAL[0].id)
    ]
    assert [own["id"] for own in told["instructions"]["removed"]] == [CAME_IN[2].id, CAME_IN[4].id]


def test_nothing_is_written(project):
    write_artifacts(project / "artifacts", story=TWO_ROUNDS)
    before = {path: path.read_bytes() for path in Path("artifacts").rglob("*") if path.is_file()}
    shown("best", "resolve")
    assert {path: path.read_bytes() for path in Path("artifacts").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("wanted", ["nothing", "bbb", "aaaa"])
def test_an_unknown_side_is_one_line_that_names_the_sides_that_there_are(project, capsys, wanted):
    write_artifacts(project / "artifacts")
    for trial in ("aaaa11", "aaaa22", "bbbb22"):
        add_trial(trial, 0.5)
    told = fails(capsys, wanted, "artifacts")
    assert told.startswith("pld: expected production, candidate, previous, a version's number, artifacts, best, ")
    assert f"got {wanted!r}" in told
    assert not Path("mlflow.db").exists()
