"""The user's own files: what is read as text, and the one line for each thing that can't be."""

import csv
import json
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pld.data.readers import read
from pld.data.splits import RawExample
from pld.errors import ConfigError, DataError
from pld.task_params import TaskParams

HEADER = "id,text,label,thread,part\n"


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def task(path: str, **reader: object) -> TaskParams:
    columns = {"fields": {"body": "text"}, "label": "label", "options": None, "id": None, "group": None, "split": None}
    return TaskParams.model_validate(
        {
            "name": "own",
            "labels": ["a", "b"],
            "fields": list({**columns, **reader}["fields"]),  # type: ignore[call-overload]
            "input_template": "{{ body }}",
            "base_instruction": "?",
            "reader": {"format": "records", "path": path, **columns, **reader},
        }
    )


def rows_of(path: str, **reader: object) -> list[RawExample]:
    return list(read(task(path, **reader)))


def refusal(path: str, **reader: object) -> str:
    with pytest.raises(DataError) as caught:
        rows_of(path, **reader)
    message = str(caught.value)
    assert "\n" not in message
    assert f"({path}" in message
    return message


def write(name: str, text: str | bytes) -> str:
    Path(name).write_bytes(text.encode() if isinstance(text, str) else text)
    return name


def table(name: str, columns: dict[str, object]) -> str:
    pq.write_table(pa.table(columns), name)
    return name


TEXTS = [
    "NA",
    "001",
    "1.50",
    " spaced ",
    "nul",
    "null",
    "",
    "a,b",
    'say "hi"',
    "two\nlines",
    "two\r\nlines",
    "ü✓𝔸",
    "\u2028",
]


def _write_csv(rows: list[dict[str, str]]) -> str:
    with Path("d.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["id", "text", "label", "thread", "part"])
        writer.writeheader()
        writer.writerows(rows)
    return "d.csv"


def _write_jsonl(rows: list[dict[str, str]]) -> str:
    return write("d.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write_parquet(rows: list[dict[str, str]]) -> str:
    pd.DataFrame(rows).to_parquet("d.parquet")
    return "d.parquet"


@pytest.mark.parametrize("write_rows", [_write_csv, _write_jsonl, _write_parquet])
def test_every_text_is_read_exactly_as_written(write_rows: Callable[[list[dict[str, str]]], str]) -> None:
    rows = [
        {"id": f"0{number}", "text": text, "label": "a", "thread": "", "part": "train"}
        for number, text in enumerate(TEXTS)
    ]
    found = rows_of(write_rows(rows), id="id", group="thread", split="part")
    assert [row.inputs for row in found] == [{"body": text} for text in TEXTS]
    assert [row.id for row in found] == [f"0{number}" for number in range(len(TEXTS))]
    assert {(row.label, row.group, row.split) for row in found} == {("a", None, "train")}


def test_columns_that_are_not_named_are_ignored() -> None:
    (row,) = rows_of(write("d.csv", HEADER + "7,hello,a,t,train\n"))
    assert (row.id, row.group, row.split) == (None, None, None)


def test_a_byte_order_mark_is_no_part_of_the_first_column() -> None:
    for name in ("d.csv", "d.jsonl"):
        text = "text,label\nhello,a\n" if name == "d.csv" else '{"text": "hello", "label": "a"}\n'
        assert rows_of(write(name, b"\xef\xbb\xbf" + text.encode()))[0].inputs == {"body": "hello"}


def test_a_file_ending_in_capitals_is_accepted() -> None:
    assert len(rows_of(write("D.CSV", "text,label\nhello,a\n"))) == 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_ends_and_blank_lines_are_read(end: str) -> None:
    found = rows_of(write("d.csv", end.join(["text,label", "one,a", "", "two,b", ""])))
    assert [(row.place, row.inputs["body"], row.label) for row in found] == [
        ("row 2", "one", "a"),
        ("row 4", "two", "b"),
    ]


def test_a_row_below_a_text_with_line_ends_is_named_by_row_and_line() -> None:
    found = rows_of(write("d.csv", 'text,label\n"one\n\ntwo",a\nthree,b\n'))
    assert [row.place for row in found] == ["row 2", "row 3 on line 5"]


def test_a_text_of_ten_megabytes_is_read() -> None:
    long = "word " * 2_000_000
    assert rows_of(write("d.csv", f"text,label\n{long},a\n"))[0].inputs["body"] == long


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
def test_a_large_file_is_read_in_parts(name: str) -> None:
    texts = [f"{number} 👍 {'word ' * 8000}" for number in range(250)]  # 10 MB, in memory four times that
    rows = [{"text": text, "label": "a"} for text in texts]
    if name == "d.csv":
        _write_csv([{"id": "", "thread": "", "part": "", **row} for row in rows])
    elif name == "d.jsonl":
        _write_jsonl(rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), name)
    tracemalloc.start()
    try:
        assert sum(1 for _ in read(task(name))) == 250
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 15_000_000, peak


def test_numbers_in_jsonl_keep_their_digits() -> None:
    line = '{"id": 12345678901234567890, "text": 1.50, "label": 0, "thread": null}\n'
    (row,) = rows_of(write("d.jsonl", line), id="id", group="thread")
    assert (row.id, row.inputs, row.label, row.group) == ("12345678901234567890", {"body": "1.50"}, "0", None)
    assert type(row.label) is str


def test_integers_and_categories_in_parquet_are_text() -> None:
    labels = pa.array(["a", "b"]).dictionary_encode()
    found = rows_of(table("d.parquet", {"id": [7, 8], "text": ["x", "y"], "label": labels}), id="id")
    assert [(row.place, row.id, row.label) for row in found] == [("row 1", "7", "a"), ("row 2", "8", "b")]


def test_a_null_group_in_parquet_is_no_group() -> None:
    columns = {"text": ["x", "y"], "label": ["a", "b"], "thread": ["t", None]}
    assert [row.group for row in rows_of(table("d.parquet", columns), group="thread")] == ["t", None]


def test_the_message_for_a_missing_file_says_how_to_get_it() -> None:
    assert "got no such file (data/records/none.csv); correct reader.path in conf/task/, or run `dvc pull`" in refusal(
        "data/records/none.csv"
    )


def test_a_directory_is_refused() -> None:
    Path("folder.csv").mkdir()
    assert "expected a data file, got a directory" in refusal("folder.csv")


@pytest.mark.parametrize(
    ("name", "ending"), [("d.csv.gz", ".gz"), ("d.xlsx", ".xlsx"), ("d.json", ".json"), ("d", "no ending")]
)
def test_another_format_is_refused_with_what_to_do(name: str, ending: str) -> None:
    message = refusal(write(name, "x"))
    assert f"expected a .csv, .jsonl or .parquet file, got {ending} ({name}); unpack it, or save it in one" in message


@pytest.mark.parametrize("content", ["", "\n \n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["d.csv", "d.jsonl"])
def test_an_empty_file_is_refused(name: str, content: str | bytes) -> None:
    assert "expected" in refusal(write(name, content))


def test_a_header_alone_is_refused() -> None:
    assert "expected rows below the header, got none" in refusal(write("d.csv", "text,label\n\n"))
    empty = pa.array([], type=pa.string())
    assert "expected rows, got none" in refusal(table("d.parquet", {"text": empty, "label": empty}))


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl"])
def test_another_encoding_is_refused(name: str) -> None:
    text = "text,label\nein Schluß,a\n"
    assert "expected UTF-8 text, got UTF-16" in refusal(write(name, text.encode("utf-16")))
    assert "expected UTF-8 text, got UTF-16" in refusal(write(name, "text,label\n".encode("utf-16-le")))
    assert f"expected UTF-8, got byte 0xdf ({name}: line 2)" in refusal(write(name, text.encode("latin-1")))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("fault", [b"\x00", b"\xdf"])
def test_a_fault_far_down_a_file_is_named_by_its_line(end: str, fault: bytes) -> None:
    lines = [b"text,label", *[f"a text with an \u00fc, number {number},a".encode() for number in range(30_000)]]
    lines[25_000] = b"here" + fault
    expected = "text, got a NUL byte" if fault == bytes(1) else "UTF-8, got byte 0xdf"
    message = refusal(write("d.csv", end.encode().join(lines)))
    assert f"expected {expected} (d.csv: line 25001)" in message


def test_a_nul_byte_is_refused() -> None:
    assert "expected text, got a NUL byte (d.csv: line 3)" in refusal(write("d.csv", "text,label\none,a\nt\x00wo,b\n"))
    assert (
        "expected Unicode text, got a NUL character or half of a surrogate pair (d.jsonl: line 1, column 'text')"
        in refusal(write("d.jsonl", '{"text": "t\\u0000wo", "label": "a"}\n'))
    )
    assert (
        "expected Unicode text, got a NUL character or half of a surrogate pair (d.parquet: row 2, column 'text')"
        in refusal(table("d.parquet", {"text": ["one", "t\x00wo"], "label": ["a", "b"]}))
    )


@pytest.mark.parametrize("row", ["one,a,b", "one"])
def test_a_row_with_more_or_fewer_cells_than_the_header_is_refused(row: str) -> None:
    message = refusal(write("d.csv", f'text,label\n"x\ny",a\n{row}\n'))
    assert f"expected a row of CSV, got {row.count(',') + 1} instead of 2 cells (d.csv: row 3 on line 4)" in message


@pytest.mark.parametrize("row", ['"never closed,a\nnext,b\n', '"closed"early,a\n'])
def test_broken_quotes_are_refused_at_the_row_that_opens_them(row: str) -> None:
    message = refusal(write("d.csv", f"text,label\nx,a\n{row}"))
    assert re.search(
        r"expected a row of CSV, got a quote that is not closed or not doubled, .* \(d.csv: row 3\)", message
    )


def test_the_message_for_a_missing_column_lists_the_columns() -> None:
    assert "expected a column 'text', got 'Text', 'label' (did you mean 'Text'?) (d.csv);" in refusal(
        write("d.csv", "Text,label\nx,a\n")
    )
    assert "expected a column 'label', got 'text' (d.jsonl: line 2)" in refusal(
        write("d.jsonl", '{"text": "x", "label": "a"}\n{"text": "y"}\n')
    )
    assert "expected a column 'label', got 'text'" in refusal(table("d.parquet", {"text": ["x"]}))


def test_a_needed_column_that_occurs_twice_is_refused() -> None:
    assert "expected one column 'text', got 2 of that name" in refusal(write("d.csv", "text,label,text\nx,a,y\n"))
    twice = pa.Table.from_arrays([pa.array(["x"])] * 3, names=["text", "label", "text"])
    pq.write_table(twice, "d.parquet")
    assert "expected one column 'text', got 2 of that name" in refusal("d.parquet")
    assert "got a key twice (d.jsonl: line 1)" in refusal(
        write("d.jsonl", '{"text": "x", "text": "y", "label": "a"}\n')
    )


def test_nested_rows_are_read_by_dotted_paths_in_jsonl_and_parquet() -> None:
    rows = [
        {"input": {"utterance": "lost card", "meta": {"n": 7}}, "expected": {"label": "a"}, "from": None},
        {"input": {"utterance": "pin", "meta": {"n": 8}}, "expected": {"label": "b"}, "from": {"thread": "t"}},
    ]
    write("d.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), "d.parquet")
    for path in ("d.jsonl", "d.parquet"):
        names = {"fields": {"body": "input.utterance"}, "id": "input.meta.n", "group": "from.thread"}
        found = rows_of(path, **names, label="expected.label")
        assert [(raw.inputs, raw.label, raw.id, raw.group) for raw in found] == [
            ({"body": "lost card"}, "a", "7", None),
            ({"body": "pin"}, "b", "8", "t"),
        ]
        assert "got 'input.utterance', 'input.meta.n', 'expected.label'" in refusal(path, label="expected")
    names = {"fields": {"body": "from.thread"}, "label": "expected.label"}
    assert "got null (d.jsonl: line 1, column 'from.thread')" in refusal("d.jsonl", **names)


def test_a_key_with_a_dot_is_a_column_unless_a_path_has_the_same_name() -> None:
    assert rows_of(write("d.jsonl", '{"a.b": "x", "label": "a"}\n'), fields={"body": "a.b"})[0].inputs == {"body": "x"}
    both = write("e.jsonl", '{"a.b": "x", "a": {"b": "y"}, "label": "a"}\n')
    assert "got both a key and a path of the name 'a.b' (e.jsonl: line 1)" in refusal(both, fields={"body": "a.b"})


@pytest.mark.parametrize(
    ("value", "kind"),
    [("null", "null"), ("true", "a bool"), ('["x"]', "a list"), ("{}", "a dict")],
)
def test_a_value_in_jsonl_that_is_not_text_is_refused(value: str, kind: str) -> None:
    message = refusal(write("d.jsonl", f'{{"text": "x", "label": "a"}}\n{{"text": {value}, "label": "a"}}\n'))
    assert f"expected text or a number, got {kind} (d.jsonl: line 2, column 'text')" in message


@pytest.mark.parametrize("line", ["[1]", '"x"', "3", "null", "true"])
def test_a_line_of_jsonl_that_is_no_object_is_refused(line: str) -> None:
    assert re.search(r"expected one JSON object per line, got .* \(d\.jsonl: line 1\)", refusal(write("d.jsonl", line)))


@pytest.mark.parametrize("line", ["{", "text,label", '{"text": NaN}', "[" * 100_000, '{"a": 1} {"b": 2}'])
def test_broken_json_is_refused(line: str) -> None:
    message = refusal(write("d.jsonl", f'{{"text": "x", "label": "a"}}\n{line}\n'))
    assert re.search(r"expected one JSON object per line, got .* \(d\.jsonl: line 2\)", message)
    assert "line 1" not in message


def test_half_a_surrogate_pair_is_refused() -> None:
    message = refusal(write("d.jsonl", '{"text": "x\\ud83d", "label": "a"}\n'))
    assert (
        "expected Unicode text, got a NUL character or half of a surrogate pair (d.jsonl: line 1, column 'text')"
        in message
    )


def test_a_null_in_parquet_is_refused() -> None:
    message = refusal(table("d.parquet", {"text": ["x", None], "label": ["a", "b"]}))
    assert "expected text or a number, got null (d.parquet: row 2, column 'text')" in message


@pytest.mark.parametrize("values", [[1.0], [True], [["x"]], [b"x"]])
def test_a_column_of_parquet_that_is_no_text_is_refused(values: list[object]) -> None:
    message = refusal(table("d.parquet", {"text": values, "label": ["a"]}))
    assert re.search(r"expected text or integers, got .* \(d\.parquet: column 'text'\)", message)


def test_a_file_that_is_no_parquet_is_refused() -> None:
    assert "expected a Parquet file, got" in refusal(write("d.parquet", "text,label\nx,a\n"))
    assert "expected a Parquet file, got" in refusal(write("d.parquet", ""))


def test_a_damaged_page_of_parquet_is_refused() -> None:
    table("d.parquet", {"text": [f"text number {number}" for number in range(5000)], "label": ["a"] * 5000})
    content = bytearray(Path("d.parquet").read_bytes())
    content[100:20_000] = b"\xff" * 19_900
    assert "expected a Parquet file, got another format or a damaged file, " in refusal(
        write("d.parquet", bytes(content))
    )


def test_a_label_column_that_is_also_an_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="would show the label to the Student"):
        rows_of(write("d.csv", HEADER), fields={"body": "label"})
