"""Own data whose label is the text of one of several options: it becomes the label at that option's place."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pld.artifacts import csv_line
from pld.data.readers import read
from pld.data.splits import RawExample, assemble
from pld.errors import ConfigError, DataError
from pld.records import inputs_id
from pld.serving.new_examples import add_labelled
from pld.task_params import TaskParams

OPTIONS = ("first", "second", "third")
COLUMNS = ["query", *OPTIONS, "answer"]
ROW = ["Which one flies?", "a stone", "a swallow", "a spoon", "a swallow"]


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def task(path: str = "d.csv", **changes: object) -> TaskParams:
    reader = {
        "format": "records",
        "path": path,
        "fields": {"query": "query", "one": "first", "two": "second", "three": "third"},
        "label": "answer",
        "options": OPTIONS,
        "id": None,
        "group": None,
        "split": None,
        **{key: value for key, value in changes.items() if key not in ("labels", "fields")},
    }
    fields = changes.get("fields", reader["fields"])
    return TaskParams.model_validate(
        {
            "name": "own",
            "labels": changes.get("labels", ["x", "y", "z"]),
            "fields": list(fields),  # type: ignore[call-overload]
            "input_template": "{{ query }}",
            "base_instruction": "?",
            "reader": {**reader, "fields": fields},
        }
    )


def write(*rows: list[str]) -> None:
    Path("d.csv").write_bytes("".join(csv_line(row) + "\n" for row in [COLUMNS, *rows]).encode())


def rows_of(*rows: list[str], **changes: object) -> list[RawExample]:
    write(*rows)
    return list(read(task(**changes)))


def refusal(row: list[str], **changes: object) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(ROW, row, **changes)
    assert "\n" not in str(caught.value)
    assert "(d.csv: row 3" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
def test_the_text_of_an_option_becomes_the_label_at_its_place(name: str) -> None:
    rows = [[*ROW[:4], answer] for answer in ROW[1:4]]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if name == "d.csv":
        write(*rows)
    elif name == "d.jsonl":
        Path(name).write_text("".join(json.dumps(dict(zip(COLUMNS, row, strict=True))) + "\n" for row in rows))
    else:
        frame.to_parquet(name)
    found = list(read(task(name)))
    assert [row.label for row in found] == ["x", "y", "z"]
    assert found[0].inputs == {"query": ROW[0], "one": "a stone", "two": "a swallow", "three": "a spoon"}


def test_an_option_column_may_hold_the_label_itself() -> None:
    assert [row.label for row in rows_of([*ROW[:4], "z"], ROW)] == ["z", "y"]


def test_options_that_are_the_labels_themselves_are_fine_in_their_places() -> None:
    assert rows_of(["?", "x", "y", "z", "y"])[0].label == "y"


def test_a_label_whose_text_is_an_option_of_another_place_is_refused() -> None:
    message = refusal(["?", "y", "x", "w", "y"])
    assert "got 'y', which fits 2 of them (d.csv: row 3, column 'answer')" in message


def test_a_text_that_two_options_have_is_refused_and_another_option_of_that_row_is_not() -> None:
    twins = ["?", "same", "other", "same"]
    assert "got 'same', which fits 2 of them" in refusal([*twins, "same"])
    assert rows_of([*twins, "other"], [*twins, "z"])[1].label == "z"


def test_a_text_that_no_option_has_is_refused() -> None:
    message = refusal([*ROW[:4], "A swallow "])
    assert "expected the exact text of one of first, second, third, or its label (x, y, z), got" in message
    assert "got 'A swallow ', which fits 0 of them (d.csv" in message


@pytest.mark.parametrize("empty", ["", "  "])
def test_an_empty_option_is_refused(empty: str) -> None:
    message = refusal([*ROW[:3], empty, ROW[4]])
    assert "expected a text in each of first, second, third, got none in one (d.csv: row 3); delete the row" in message


@pytest.mark.parametrize(
    ("changes", "got"),
    [
        ({"labels": ["x", "y"]}, "of the labels x, y, got first, second, third"),
        ({"options": ["first", "second", "second"]}, "got first, second, second"),
        ({"fields": {"query": "query", "one": "first"}}, "got first, second, third"),
        ({"options": ["first", "second", "answer"]}, "got first, second, answer"),
    ],
)
def test_contradictory_option_settings_are_refused_in_one_line(changes: dict[str, object], got: str) -> None:
    with pytest.raises(ConfigError, match=r"^expected .* \(reader\.options\)") as caught:
        rows_of(ROW, **changes)
    assert got in str(caught.value)
    assert "conf/task/" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_option_column_is_reported_like_any_other() -> None:
    Path("d.csv").write_text("query,first,second,answer\n?,a,b,a\n")
    with pytest.raises(DataError, match="expected a column 'third', got 'query', 'first', 'second', 'answer'"):
        list(read(task()))


TEXT = st.sampled_from(["x", "y", "z", "a swallow", "a stone", "a spoon"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80)
@given(st.lists(TEXT, min_size=3, max_size=3), TEXT)
def test_a_row_is_read_as_the_only_thing_that_it_can_mean_or_refused(options: list[str], answer: str) -> None:
    means = {label for label, text in zip("xyz", options, strict=True) if answer in (text, label)}
    if len(means) == 1:
        assert {row.label for row in rows_of(["?", *options, answer])} == means
    else:
        with pytest.raises(DataError, match=f"which fits {len(means)} of them"):
            rows_of(["?", *options, answer])


def test_a_labelled_sheet_is_added_by_label_and_read_again_beside_texts() -> None:
    rows = [[f"Which one of {n}?", f"a{n}", f"b{n}", f"c{n}", f"{'abc'[n % 3]}{n}"] for n in range(40)]
    write(*rows)
    sheet = [[*COLUMNS, "id"]]
    for cells, label in ((["New?", "p", "q", "r"], "z"), (rows[4][:4], "y")):
        inputs = dict(zip(("query", "one", "two", "three"), cells, strict=True))
        sheet.append([*cells, label, inputs_id(inputs)])
    Path("sheet.csv").write_text("".join(csv_line(row) + "\n" for row in sheet))
    added = add_labelled(Path("sheet.csv"), task(), None)
    assert (added.rows, added.already) == (1, 1)  # the other one says what its row's text says
    examples, summary = assemble(task(), read(task()))
    assert (summary.rows, examples[-1].inputs["query"], examples[-1].label) == (41, "New?", "z")
