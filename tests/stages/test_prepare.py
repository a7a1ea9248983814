import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from pld.adapters.teachers.recorded import RecordedTeacher
from pld.artifacts import read_jsonl
from pld.config.composition import compose
from pld.config.settings import CONFIG_PATH, load_config
from pld.data.splits import split_of
from pld.distill.extract import extract
from pld.errors import DataError
from pld.records import SPLITS, Example
from pld.stages import prepare

ROOT = Path(__file__).parents[2]
FOLDER = Path("artifacts/splits")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of the shipped tickets with composed settings."""
    monkeypatch.chdir(tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["groups"]["task"] = "tickets"
    params["groups"]["teacher"] = "recorded_tickets"
    Path("params.yaml").write_text(yaml.safe_dump(params))
    config = compose(ROOT / "conf", Path("params.yaml"))
    CONFIG_PATH.parent.mkdir()
    CONFIG_PATH.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    Path("data").symlink_to(ROOT / "assets/corpus")
    return tmp_path


def splits() -> dict[str, list[Example]]:
    return {split: read_jsonl(FOLDER / f"{split}.jsonl", Example) for split in SPLITS}


def test_the_shipped_tickets_become_three_splits_in_the_order_of_their_file(project: Path) -> None:
    prepare.run()
    found = splits()
    assert {split: len(examples) for split, examples in found.items()} == {"train": 80, "validation": 32, "test": 48}
    for split, examples in found.items():
        assert all(example.split == split == split_of(example.id) for example in examples)
        assert [example.id for example in examples] == sorted(example.id for example in examples)
        assert set(examples[0].inputs) == {"subject", "body"}
        assert set(Counter(example.label for example in examples)) == {"billing", "technical", "account"}


def test_the_summary_and_the_printed_table_hold_the_counts(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare.run()
    summary = json.loads((FOLDER / "summary.json").read_text())
    assert summary["counts"]["train"] == {"billing": 26, "technical": 30, "account": 24}
    assert (summary["rows"], summary["examples"], summary["merged_duplicates"]) == (160, 160, 0)
    printed = capsys.readouterr().out
    assert "tickets: 160 examples from data/records/tickets.csv" in printed
    assert re.search(r"^train +26 +30 +24 +80$", printed, re.MULTILINE)


def test_a_second_run_writes_the_same_bytes(project: Path) -> None:
    prepare.run()
    before = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    prepare.run()
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == before
    assert sorted(before) == ["md5.json", "summary.json", "test.jsonl", "train.jsonl", "validation.jsonl"]


def test_bad_data_leave_the_earlier_splits_as_they_were(project: Path) -> None:
    prepare.run()
    before = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    Path("data").unlink()
    Path("data/records").mkdir(parents=True)
    text = (ROOT / "assets/corpus/records/tickets.csv").read_text()
    Path("data/records/tickets.csv").write_text(text + "T-9999,late,a row with another label,sales\n")
    with pytest.raises(DataError, match=r"got 'sales' .*: row 162 "):
        prepare.run()
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == before
    assert [path.name for path in FOLDER.parent.iterdir() if path.name.startswith(".")] == []


def test_a_write_that_fails_leaves_the_earlier_splits_whole(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare.run()
    before = {path.name: path.read_bytes() for path in FOLDER.iterdir()}

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    (FOLDER / "train.jsonl").write_text("of another task")
    before["train.jsonl"] = b"of another task"
    monkeypatch.setattr(prepare, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        prepare.run()
    assert {path.name: path.read_bytes() for path in FOLDER.iterdir()} == before


def test_a_label_missing_from_a_split_is_reported(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("data").unlink()
    Path("data/records").mkdir(parents=True)
    with (ROOT / "assets/corpus/records/tickets.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    with Path("data/records/tickets.csv").open("w", newline="", encoding="utf-8") as file:
        kept = [row for row in rows if not (row[3] == "account" and split_of(row[0]) == "test")]
        csv.writer(file).writerows([header, *kept])
    prepare.run()
    assert "no test example of 'account': its F1 there is 0, whatever the prompt" in capsys.readouterr().out


def test_every_training_ticket_has_a_recorded_rule_that_the_extraction_accepts(project: Path) -> None:
    prepare.run()
    config = load_config()
    teacher = RecordedTeacher(path="data/teacher/tickets.jsonl")
    rules, rejections, summary = extract(config.task, splits()["train"], config.extraction, teacher, 1)
    assert rejections == []
    assert summary.rules_per_label == {"billing": 26, "technical": 30, "account": 24}
    assert all(20 <= len(rule.text.split()) <= 60 for rule in rules)
    assert sum(rule.doubtful for rule in rules) == 7
