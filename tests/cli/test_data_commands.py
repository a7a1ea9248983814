import csv
import io
import json
import os
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pld.artifacts import write_jsonl, write_text
from pld.cli.main import main, pld
from pld.data.readers import read
from pld.data.splits import assemble, split_of
from pld.records import SPLITS, Prediction, inputs_id
from pld.task_params import BenchmarkReader, RecordsReader
from support.artifact_tree import composed
from support.mails import LABELS, TASK, mails
from support.served import served, write_log

CORPUS = Path("assets/corpus/mail.csv")
NEW = ["=1+1 is what I paid", 'a "quoted", comma', "two\nlines\r\nand one\rmore", "ünï\r👍", "plain"]


def reader(path="data/mail.csv", **columns):
    names = {"fields": {"text": "message"}, "label": "team", "options": None, "id": None, "group": None, "split": None}
    return RecordsReader(format="records", path=path, **{**names, **columns})


def write(source=None, rows=None, header="message,team,seen"):
    """The task's data file, and what `prepare` and `evaluate` leave, without the file of the test split."""
    source = source or reader()
    if isinstance(source, RecordsReader):
        lines = [f"{example.inputs['text']},{example.label},x" for example in mails("train", 60)]
        CORPUS.parent.mkdir(parents=True, exist_ok=True)
        CORPUS.write_text(rows or "\n".join([header, *lines]) + "\n")
        Path("data").mkdir(exist_ok=True)
        Path("data/mail.csv").write_bytes(CORPUS.read_bytes())
    task = TASK.model_copy(update={"reader": source})
    plain = composed().model_copy(update={"task": task}).model_dump(mode="json")
    write_text(Path("artifacts/config.yaml"), yaml.safe_dump(plain))
    examples = mails("train", 9) if isinstance(source, BenchmarkReader) else assemble(task, read(task))[0]
    for split in ("train", "validation"):
        write_jsonl(Path(f"artifacts/splits/{split}.jsonl"), [item for item in examples if item.split == split])
    rows = [
        Prediction(example_id=item.id, system="distilled", label=item.label, predicted=item.label, scores=())
        for item in examples
        if item.split == "test"
    ]
    write_jsonl(Path("artifacts/evaluation/predictions.jsonl"), rows)
    return task


@pytest.fixture(autouse=True)
def tree(project):
    return write()


def log(*answers, name="log.jsonl"):
    return str(write_log(Path(name), answers))


def new_answers(**changes):
    return [served(LABELS[n % 3], 1.0 + n, text, **changes) for n, text in enumerate(NEW)]


def ran(*arguments):
    return CliRunner().invoke(pld, ["data", "add-from-log", *arguments], catch_exceptions=False)


def sheet(path="s.csv"):
    return list(csv.DictReader(io.StringIO(Path(path).read_bytes().decode(), newline="")))


def labelled(labels, path="s.csv", **changes):
    """The sheet as a person leaves it."""
    rows = sheet(path)
    for row, label in zip(rows, labels, strict=True):
        row |= {"team": label, **changes}
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    Path(path).write_bytes(buffer.getvalue().encode())


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["data", "add-from-log", *arguments])
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1, told
    return told


def test_the_least_certain_inputs_come_first_once_each_and_none_that_the_data_have():
    known = [served("praise", 0.001, item.inputs["text"]) for item in mails("train", 60)]  # of all three splits
    later = served("refund", 5.0, NEW[4], at="2026-12-01T00:00:00Z")
    path = log(*known, *new_answers(), served(None, text="unanswered"), later)
    told = ran(path, "--out", "s.csv", "--count", "4")
    assert told.output.splitlines()[0] == "s.csv: 4 inputs to label, the least certain first"
    assert [row["message"] for row in sheet()] == ["unanswered", *NEW[:3]]
    assert list(sheet()[0]) == ["message", "team", "answered", "margin", "id"]
    first, second = [[row["answered"], row["margin"], row["team"]] for row in sheet()][:2]
    assert (first, second) == (["", "", ""], ["refund", "1.000000", ""])
    assert [row["id"] for row in sheet()] == [f"sha256:{inputs_id({'text': row['message']})}" for row in sheet()]


def test_with_per_label_each_answered_label_gets_the_same_number():
    answers = [served("refund", n / 10, f"r{n}") for n in range(8)]
    path = log(*answers, served("praise", 5.0, "p"), served(None, text="u"))
    ran(path, "--out", "s.csv", "--count", "4", "--per-label")
    assert [row["message"] for row in sheet()] == ["u", "r0", "p", "r1"]


def test_texts_come_from_a_file_where_the_log_has_none(capsys):
    path = log(*new_answers(logged=False), served("refund", text="no text anywhere", logged=False))
    assert "serve with PLD_SERVING_LOG_INPUTS=true, or name a file" in refused(capsys, path, "--out", "s.csv")
    write_jsonl_rows("inputs.jsonl", [{"message": text, "more": "x"} for text in [*NEW, "another"]])
    told = ran(path, "--out", "s.csv", "--inputs", "inputs.jsonl")
    assert "s.csv: 5 inputs to label, the least certain first; 1 inputs have no text here" in told.output
    assert [row["message"] for row in sheet()] == NEW
    assert "inputs.jsonl has none of them" in refused(
        capsys, log(served("refund", text="q", logged=False)), "--out", "t.csv", "--inputs", "inputs.jsonl"
    )


def write_jsonl_rows(path, rows):
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_only_the_prompt_that_answered_last_is_looked_at():
    old = [served("refund", 0.01, f"old {n}", sha="b" * 64, at="2026-01-01T00:00:00Z") for n in range(3)]
    told = ran(log(*old, *new_answers()), "--out", "s.csv")
    assert "3 answers of earlier prompts are left out" in told.output
    assert {row["message"] for row in sheet()} == set(NEW)


def test_labelled_rows_are_added_once_and_every_other_byte_stays():
    before = CORPUS.read_bytes()
    ran(log(*new_answers()), "--out", "s.csv")
    labelled(["refund", "", "praise", " ", "delivery"])
    told = ran("--labelled", "s.csv")
    assert "assets/corpus/mail.csv: 3 rows added (" in told.output
    assert "2 without a label left out" in told.output
    assert "next: `dvc repro`" in told.output
    after = CORPUS.read_bytes()
    assert after.startswith(before)
    added = list(csv.DictReader(io.StringIO(after.decode(), newline="")))[-3:]
    assert [(row["message"], row["team"], row["seen"]) for row in added] == [
        (NEW[0], "refund", ""),
        (NEW[2], "praise", ""),
        (NEW[4], "delivery", ""),
    ]
    again = ran("--labelled", "s.csv")
    assert "0 rows added; 2 without a label left out; 3 were there already" in again.output
    assert CORPUS.read_bytes() == after
    Path("before.csv").write_bytes(before)
    earlier, now = splits_of("before.csv"), splits_of(str(CORPUS))
    assert len(now) == len(earlier) + 3
    assert earlier.items() <= now.items()  # no other example changes its split


def splits_of(path):
    """As `prepare` would have them: id → split."""
    task = TASK.model_copy(update={"reader": reader(path=path)})
    return {item.id: item.split for item in assemble(task, read(task))[0]}


def test_a_file_under_dvc_is_added_to_dvc_again_and_a_link_into_its_cache_is_not_written_through():
    cache = Path("cache")
    os.link(CORPUS, cache)
    before = cache.read_bytes()
    Path(f"{CORPUS}.dvc").write_text("outs: []\n")
    ran(log(*new_answers()), "--out", "s.csv")
    labelled(["refund"] * 5)
    assert "next: `dvc add assets/corpus/mail.csv`, `dvc repro`" in ran("--labelled", "s.csv").output
    assert cache.read_bytes() == before != CORPUS.read_bytes()


def test_rows_are_added_to_jsonl_with_natural_ids_and_splits():
    columns = {"id": "no", "group": "customer", "split": "part"}
    rows = [
        {"message": item.inputs["text"], "team": item.label, "no": item.id, "customer": None, "part": item.split}
        for split in SPLITS
        for item in mails(split, 9)
    ]
    write_jsonl_rows("own.jsonl", rows)
    Path("own.jsonl").write_text(Path("own.jsonl").read_text().rstrip("\n"))  # no line end at the end
    task = write(reader(path="own.jsonl", **columns))
    of_train, of_test = mails("train", 9)[0].inputs["text"], mails("test", 9)[0].inputs["text"]
    ran(log(*new_answers(), served("refund", 0.1, of_test), served("refund", 0.1, of_train)), "--out", "s.csv")
    texts = {row["message"] for row in sheet()}
    assert of_train not in texts
    assert of_test in texts  # its natural id says nothing of its text
    labelled(["refund"] * 6)
    told = ran("--labelled", "s.csv")
    assert "own.jsonl: 5 rows added (5 train); 1 were there already" in told.output
    examples, _ = assemble(task, read(task))
    assert len(examples) == 32
    assert {item.inputs["text"] for item in examples if item.split == "train"} >= set(NEW)


def test_rows_are_added_to_nested_lines_as_nested_ones():
    rows = [
        {"in": {"message": item.inputs["text"], "lang": "en"}, "out": {"team": item.label}}
        for split in SPLITS
        for item in mails(split, 9)
    ]
    write_jsonl_rows("own.jsonl", rows)
    write(reader(path="own.jsonl", fields={"text": "in.message"}, label="out.team"))
    ran(log(*new_answers()), "--out", "s.csv")
    with Path("s.csv").open(newline="") as file:
        found = [row | {"out.team": "refund"} for row in csv.DictReader(file)]
    with Path("s.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    ran("--labelled", "s.csv")
    added = [json.loads(line) for line in Path("own.jsonl").read_text().splitlines()[len(rows) :]]
    assert added
    assert all(set(row) == {"in", "out"} and row["out"] == {"team": "refund"} for row in added)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"team": "Refund"},
            ("expected a label of task mail (refund, delivery, praise), got 'Refund' (did you mean 'refund'?) ("),
        ),
        ({"message": "another text"}, "expected text and id unchanged, got id "),
        ({"id": "1.2E+15"}, "a spreadsheet may have changed them"),
    ],
)
def test_nothing_is_written_unless_every_row_is_good(change, words, capsys):
    before = CORPUS.read_bytes()
    ran(log(*new_answers()), "--out", "s.csv", "--count", "2")
    labelled(["refund", "refund"])
    labelled(["refund", "praise"], **change) if "team" not in change else labelled(["Refund", "Praise"])
    told = refused(capsys, "--labelled", "s.csv")
    assert words in told
    assert "(and 1 more such rows)" in told
    assert CORPUS.read_bytes() == before


def test_one_input_has_one_label(capsys):
    ran(log(*new_answers()), "--out", "s.csv", "--count", "1")
    labelled(["refund"])
    Path("s.csv").write_text(
        Path("s.csv").read_text() + Path("s.csv").read_text().splitlines()[1].replace("refund,", "praise,", 1) + "\n"
    )
    assert (
        "expected one label per input, got 'praise' here and 'refund' for the same input in row 2 (s.csv: row 3"
        in refused(capsys, "--labelled", "s.csv")
    )
    labelled(["refund", "refund"])
    assert "1 rows added" in ran("--labelled", "s.csv").output
    labelled(["praise", "praise"])
    assert "for the same input in row 62 of assets/corpus/mail.csv" in refused(capsys, "--labelled", "s.csv")


def test_a_file_to_which_rows_cannot_be_added_is_refused_in_one_line(capsys):
    ran(log(*new_answers()), "--out", "s.csv")
    labelled(["refund"] * 5)
    assert "expected a .csv or .jsonl file to append to, got no such file (x.parquet)" in refused(
        capsys, "--labelled", "s.csv", "--into", "x.parquet"
    )
    assert "expected a .csv or .jsonl file to append to, got no such file (x.csv)" in refused(
        capsys, "--labelled", "s.csv", "--into", "x.csv"
    )
    Path(f"{CORPUS}.dvc").write_text("outs: []\n")
    CORPUS.unlink()
    assert "run `dvc pull`" in refused(capsys, "--labelled", "s.csv")


def test_a_packaged_data_set_takes_no_examples_but_makes_a_sheet(capsys):
    write(BenchmarkReader(format="stereoset_bias", path="package:x/y"))
    assert "5 inputs to label" in ran(log(*new_answers()), "--out", "s.csv").output
    assert list(sheet()[0]) == ["text", "label", "answered", "margin", "id"]
    assert "expected your own data file, got" in refused(capsys, "--labelled", "s.csv")


def test_sheet_columns_are_renamed_if_the_task_has_columns_of_that_name():
    write(reader(fields={"text": "id"}, label="answered"), header="id,answered,x")
    ran(log(*new_answers()), "--out", "s.csv")
    assert list(sheet()[0]) == ["id", "answered", "served answered", "margin", "served id"]


def test_a_sheet_is_never_written_over_and_strange_logs_are_refused(capsys):
    Path("s.csv").write_text("mine")
    assert "expected a new file that ends in .csv, got 's.csv'" in refused(
        capsys, log(*new_answers()), "--out", "s.csv"
    )
    assert "expected a new file that ends in .csv, got 's.xlsx'" in refused(
        capsys, log(*new_answers()), "--out", "s.xlsx"
    )
    assert "got none in 0 lines" in refused(capsys, log(), "--out", "t.csv")
    strange = served("refund", text="a").model_copy(update={"inputs": {"text": "b"}})
    assert "is it the log of another task?" in refused(capsys, log(strange), "--out", "t.csv")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["log.jsonl"],
        ["--out", "x.csv"],
        ["--labelled", "log.jsonl", "--out", "x.csv"],
        ["log.jsonl", "--out", "x", "--into", "y"],
    ],
)
def test_the_two_steps_are_not_mixed(arguments):
    log()
    done = ran(*arguments)
    assert done.exit_code == 2
    assert "--labelled" in done.output


TEXTS = st.text(st.characters(exclude_characters="\x00", exclude_categories=("Cs",)), min_size=1, max_size=20)


@given(
    st.lists(TEXTS.filter(str.strip), min_size=1, max_size=4, unique=True),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_comes_through_log_sheet_and_file_unchanged(tree, texts, line_end, ends):
    for old in (Path("s.csv"), Path(f"{CORPUS}.dvc")):
        old.unlink(missing_ok=True)
    held = mails("train", 3)
    lines = ["\ufeffmessage,team", *(f"{item.inputs['text']},{item.label}" for item in held)]
    CORPUS.write_bytes((line_end.join(lines) + line_end * ends).encode())
    ran(log(*[served("refund", 1.0, text) for text in texts]), "--out", "s.csv")
    labelled(["praise"] * len(texts))
    told = ran("--labelled", "s.csv")
    assert f"{len(texts)} rows added" in told.output
    rows = list(read(tree.model_copy(update={"reader": reader(path=str(CORPUS))})))
    assert sorted(row.inputs["text"] for row in rows[3:]) == sorted(texts)
    assert {row.label for row in rows[3:]} == {"praise"}
    assert told.output.count("train") <= 2
    wanted = [split_of(inputs_id({"text": text})) for text in texts]
    for split in set(wanted):
        assert f"{wanted.count(split)} {split}" in told.output
