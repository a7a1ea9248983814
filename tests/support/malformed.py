"""Malformed data files as people and programs write them, with the message that refuses each."""

import gzip
import io
import json
import os
import pickle
import socket
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from support.data_files import LONG, File, rows_csv, rows_jsonl, table

HEADER = "id,text,label,thread,part\n"
_LINES = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
MESSAGES = dict(zip(_LINES[::2], map(str.strip, _LINES[1::2]), strict=True))


@dataclass(frozen=True)
class Refused(File):
    @property
    def message(self) -> str:
        """What the user reads (malformed.txt); {file} is the file's path, … any text."""
        return MESSAGES[self.what]


def _zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")


def _socket(path: Path) -> None:
    # a socket's path is short, and a project's may be long
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            listening.bind(path.name)
        finally:
            os.chdir(here)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _circle(path: Path) -> None:
    path.symlink_to("other.csv")
    (path.parent / "other.csv").symlink_to(path.name)


def _cut_parquet(path: Path) -> None:
    table({"text": ["x"] * 50, "label": ["a"] * 50})(path)
    path.write_bytes(path.read_bytes()[:-20])


def _damaged_parquet(path: Path) -> None:
    texts = [f"text number {number}" for number in range(5000)]
    table({"text": texts, "label": ["a"] * 5000}, use_dictionary=False, compression="none")(path)
    found = bytearray(path.read_bytes())
    found[2000:2400] = b"\xff" * 400
    path.write_bytes(found)


def _parquet_bytes() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["x"], "label": ["a"]}), buffer)
    return buffer.getvalue()


def _twice_named(path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["x"])] * 3, names=["text", "label", "text"]), path)


def contracts(what: str, change: Callable[[dict[str, Any]], object] | str) -> Refused:
    """Two contracts with one hypothesis in the shape of Contract-NLI, and what is done to them."""
    documents = [
        {
            "id": number,
            "text": f"The Recipient returns copy {number}.",
            "spans": [[0, 28]],
            "annotation_sets": [{"annotations": {"nda-1": {"choice": "Entailment", "spans": [0]}}}],
        }
        for number in (7, 8)
    ]
    data: dict[str, Any] = {"documents": documents, "labels": {"nda-1": {"hypothesis": "Copies are returned."}}}
    if not isinstance(change, str):
        change(data)
    reader = {"format": "contract_nli", "splits": None, "context": "whole", "passages": 2, "max_words": None}
    return Refused(
        what,
        "dev.json",
        change if isinstance(change, str) else json.dumps(data),
        reader,
        labels=("Entailment", "Contradiction", "NotMentioned"),
        fields=("contract", "hypothesis"),
    )


def benchmark(what: str, name: str, row: Mapping[str, object]) -> Refused:
    """One row, as an installed benchmark has them, of the benchmark `name`."""
    fields = {"logiqa": ("passage", "question", "options"), "privacy_policy": ("clause", "question")}[name]
    return Refused(what, "test.jsonl", json.dumps(row) + "\n", {"format": name}, labels=("A", "B"), fields=fields)


def _annotation(data: dict[str, Any]) -> Any:
    return data["documents"][1]["annotation_sets"][0]["annotations"]


GOOD = rows_csv("x,a", "y,b")
QUESTION = {
    "passage": "All lamps are on, or none is. One is.",
    "question": "What follows?",
    "options": "A. All are on.\nB. None is on.\nC. One is on.\nD. Nothing.",
    "answer": "A. All are on.",
}

UNREADABLE: Sequence[Refused] = [
    # what is no file
    Refused("no file", "d.csv", lambda path: None),
    Refused("a directory", "d.csv", lambda path: path.mkdir()),
    Refused("a link that leads to itself", "d.csv", _loop),
    Refused("links that lead to one another", "d.csv", _circle),
    Refused("a link to nothing", "d.csv", lambda path: path.symlink_to("gone.csv")),
    Refused("a named pipe", "d.csv", lambda path: os.mkfifo(path)),
    Refused("a device", "d.csv", lambda path: path.symlink_to("/dev/zero")),
    Refused("a socket", "d.csv", _socket),
    Refused("a file for a folder", "d.csv/rows.csv", lambda path: path.parent.write_text("x")),
    Refused("a name that is too long", f"{'d' * 300}.csv", lambda path: None),
    # other formats
    Refused("a gzip archive by its name", "d.csv.gz", gzip.compress(GOOD.encode())),
    Refused("a gzip archive by its content", "d.csv", gzip.compress(GOOD.encode())),
    Refused("an Excel workbook by its name", "d.xlsx", _zipped),
    Refused("an Excel workbook by its content", "d.csv", _zipped),
    Refused("an old Excel workbook", "d.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500)),
    Refused("a tab-separated file", "d.tsv", GOOD.replace(",", "\t")),
    Refused("no ending", "d", GOOD),
    Refused("a pickle", "d.csv", pickle.dumps({"text": ["x"], "label": ["a"]})),
    Refused("a PDF", "d.csv", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
    Refused("a SQLite database", "d.csv", b"SQLite format 3\x00" + bytes(84)),
    Refused("Parquet named .csv", "d.csv", _parquet_bytes()),
    Refused("a web page", "d.csv", "\n<!DOCTYPE html>\n<html><title>Sign in</title></html>\n"),
    Refused("a pointer of Git LFS", "d.csv", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"),
    Refused("a .dvc file", "d.csv", "outs:\n- md5: 4d7a214614ab2935c943f9e0ff69d22e\n  size: 12\n  path: d.csv\n"),
    Refused("a conflict of git at the beginning", "d.jsonl", '<<<<<<< HEAD\n{"text": "x", "label": "a"}\n=======\n'),
    Refused("a conflict of git between rows", "d.csv", rows_csv("x,a", "<<<<<<< HEAD", "y,b")),
    # encodings
    Refused("UTF-16 with a mark", "d.csv", GOOD.encode("utf-16")),
    Refused("UTF-16 without a mark", "d.csv", GOOD.encode("utf-16-le")),
    Refused("UTF-32", "d.jsonl", '{"text": "x", "label": "a"}'.encode("utf-32")),
    Refused("Latin-1", "d.csv", rows_csv("x,a", "ein Schluß,b").encode("latin-1")),
    Refused("Windows-1252 in JSONL", "d.jsonl", '{"text": "x"}\n{"text": "“quoted”"}'.encode("cp1252")),
    Refused("an overlong UTF-8 sequence", "d.csv", b"text,label\nslash \xc0\xaf,a\n"),
    Refused("half a surrogate pair in UTF-8", "d.csv", b"text,label\nx \xed\xa0\xbd,a\n"),
    Refused("a file cut in a character", "d.csv", rows_csv("x,a", "ünï").encode()[:-2]),
    Refused("a NUL byte", "d.csv", rows_csv("one,a", "t\x00wo,b")),
    Refused("an escaped NUL", "d.jsonl", '{"text": "t\\u0000wo", "label": "a"}'),
    Refused("an escaped half of a surrogate pair", "d.jsonl", '{"text": "x\\ud83d", "label": "a"}'),
    # nothing in it
    Refused("an empty CSV", "d.csv", ""),
    Refused("an empty JSONL", "d.jsonl", ""),
    Refused("an empty Parquet", "d.parquet", ""),
    Refused("blank lines alone", "d.csv", "\n \r\n\n"),
    Refused("a byte order mark alone", "d.jsonl", b"\xef\xbb\xbf"),
    Refused("a header alone", "d.csv", "text,label\n"),
    Refused(
        "Parquet without rows",
        "d.parquet",
        table({"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}),
    ),
    # CSV
    Refused("semicolons", "d.csv", GOOD.replace(",", ";")),
    Refused("tabs", "d.csv", GOOD.replace(",", "\t")),
    Refused("Excel's line for the separator", "d.csv", "sep=,\n" + GOOD),
    Refused("no header", "d.csv", "x,a\ny,b\n"),
    Refused("a column that is not there", "d.csv", "text,outcome\nx,a\n"),
    Refused("a header in capitals", "d.csv", "Text,Label\nx,a\n"),
    Refused("blanks in the header", "d.csv", "text, label\nx,a\n"),
    Refused("a no-break space in the header", "d.csv", "text\xa0,label\nx,a\n"),
    Refused("a zero-width space in the header", "d.csv", "te\u200bxt,label\nx,a\n"),
    Refused("two byte order marks", "d.csv", b"\xef\xbb\xbf\xef\xbb\xbf" + GOOD.encode()),
    Refused("a column twice", "d.csv", "text,label,text\nx,a,y\n"),
    Refused("a row that is too long", "d.csv", rows_csv("x,a", "one, two,b")),
    Refused("a row that is too short", "d.csv", rows_csv('"x\ny",a', "one")),
    Refused("a quote that is never closed", "d.csv", rows_csv("x,a", '"never closed,b', *["more,a"] * 5000)),
    Refused("a quote that a later row closes", "d.csv", rows_csv("x,a", '"left open,b', "y,a", '"next one",b')),
    Refused("a quote that a later row's comma hides", "d.csv", rows_csv("x,a", 'left,"open', "y,a", 'z,"', "w,b")),
    Refused("a quote inside a quoted text", "d.csv", rows_csv("x,a", '"closed"early,a')),
    Refused("a quote in the header that is never closed", "d.csv", 'text,"label\nx,a\n'),
    Refused("the header again", "d.csv", rows_csv("x,a", "text,label", "y,b")),
    # JSON Lines
    Refused("a JSON file by its name", "d.json", '[{"text": "x", "label": "a"}]'),
    Refused("a list on one line", "d.jsonl", '[{"text": "x", "label": "a"}]'),
    Refused("a list over lines", "d.jsonl", '[\n{"text": "x", "label": "a"}\n]\n'),
    Refused("an object over lines", "d.jsonl", '{\n  "text": "x",\n  "label": "a"\n}\n'),
    Refused("CSV named .jsonl", "d.jsonl", GOOD),
    Refused("a trailing comma", "d.jsonl", rows_jsonl('{"text": "x", "label": "a",}')),
    Refused("single quotes", "d.jsonl", rows_jsonl("{'text': 'x', 'label': 'a'}")),
    Refused("two objects on a line", "d.jsonl", '{"text": "x", "label": "a"} {"text": "y", "label": "b"}'),
    Refused("line ends of old Macs in JSONL", "d.jsonl", '{"text": "x", "label": "a"}\r{"text": "y", "label": "b"}\r'),
    Refused("a line that is cut off", "d.jsonl", rows_jsonl('{"text": "x", "label": "a"}', '{"text": "y", "la')),
    Refused("a real line end in a JSON string", "d.jsonl", '{"text": "two\nlines", "label": "a"}\n'),
    Refused(
        "a byte order mark in the middle",
        "d.jsonl",
        rows_jsonl('{"text": "x", "label": "a"}') * 2 + '\ufeff{"text": "y"}',
    ),
    Refused("NaN", "d.jsonl", '{"text": "x", "label": "a"}\n{"text": NaN, "label": "a"}\n'),
    Refused("Infinity", "d.jsonl", '{"text": "x", "label": "a", "score": -Infinity}\n'),
    Refused("a key twice", "d.jsonl", '{"text": "x", "text": "y", "label": "a"}\n'),
    Refused("a number alone", "d.jsonl", "3\n"),
    Refused("a missing key", "d.jsonl", '{"text": "x", "label": "a"}\n{"text": "y"}\n'),
    Refused("null", "d.jsonl", '{"text": null, "label": "a"}\n'),
    Refused("a nested object", "d.jsonl", '{"text": {"body": "x"}, "label": "a"}\n'),
    Refused("a list for a label", "d.jsonl", '{"text": "x", "label": ["a"]}\n'),
    Refused("true for a label", "d.jsonl", '{"text": "x", "label": true}\n', labels=("true", "false")),
    Refused("nesting without end", "d.jsonl", '{"text": "x", "more": ' + "[" * 100_000 + "}"),
    # Parquet
    Refused("CSV named .parquet", "d.parquet", GOOD),
    Refused("a Parquet file that is cut off", "d.parquet", _cut_parquet),
    Refused("a damaged page", "d.parquet", _damaged_parquet),
    Refused("an encrypted Parquet file", "d.parquet", b"PARE" + bytes(100) + b"PARE"),
    Refused("a Parquet column that is not there", "d.parquet", table({"text": ["x"], "labels": ["a"]})),
    Refused("a Parquet column twice", "d.parquet", _twice_named),
    Refused("a null in Parquet", "d.parquet", table({"text": ["x", None], "label": ["a", "b"]})),
    Refused("nulls alone", "d.parquet", table({"text": ["x"], "label": pa.nulls(1)})),
    Refused("a NUL in Parquet", "d.parquet", table({"text": ["x", "t\x00wo"], "label": ["a", "b"]})),
    Refused("fractions in Parquet", "d.parquet", table({"text": ["x", "y"], "label": [1.0, 2.0]})),
    Refused("true and false in Parquet", "d.parquet", table({"text": ["x"], "label": [True]})),
    Refused("lists in Parquet", "d.parquet", table({"text": [["x"]], "label": ["a"]})),
    Refused("objects in Parquet", "d.parquet", table({"text": [{"body": "x"}], "label": ["a"]})),
    Refused("bytes in Parquet", "d.parquet", table({"text": [b"x"], "label": ["a"]})),
    Refused("times in Parquet", "d.parquet", table({"text": [datetime(2026, 1, 1)], "label": ["a"]})),
    Refused("days in Parquet", "d.parquet", table({"text": [date(2026, 1, 1)], "label": ["a"]})),
    Refused("decimals in Parquet", "d.parquet", table({"text": ["x"], "label": [Decimal("1.50")]})),
]

BAD_ROWS: Sequence[Refused] = [
    # labels
    Refused("a label in capitals", "d.csv", rows_csv("x,a", "y,B")),
    Refused("a label with a blank", "d.csv", rows_csv("x,a", "y,b ")),
    Refused("a label with a zero-width space", "d.csv", rows_csv("x,a", "y,b\u200b")),
    Refused("a label in another Unicode form", "d.csv", rows_csv("x,cafe\u0301"), labels=("café", "bar")),
    Refused("an empty label", "d.csv", rows_csv("x,a", "y,")),
    Refused("a label of ten megabytes", "d.csv", rows_csv("x,a", f"y,{LONG}")),
    Refused("a fraction for a declared number", "d.jsonl", '{"text": "x", "label": 1.0}\n', labels=("0", "1")),
    Refused("labels that look the same", "d.csv", GOOD, labels=("a", "a\u200b", "b")),
    Refused("a label of two lines", "d.csv", GOOD, labels=("a\nb", "b")),
    Refused("a label without training examples", "d.csv", rows_csv(filler=True), labels=("a", "b", "c")),
    # texts, ids, groups, splits
    Refused("an empty text", "d.csv", rows_csv("x,a", ",b")),
    Refused("a text of blanks", "d.csv", rows_csv("x,a", " \t\u3000 ,b")),
    Refused("a text of invisible characters", "d.csv", rows_csv("x,a", "\u200b\x07\ufeff,b")),
    Refused("the same text with two labels", "d.csv", rows_csv("x,a", "y,b", "x,b")),
    Refused("an id twice", "d.csv", "id,text,label\n7,x,a\n8,y,b\n7,z,a\n", {"id": "id"}),
    Refused("an empty id", "d.csv", "id,text,label\n7,x,a\n ,y,b\n", {"id": "id"}),
    Refused("an id of two lines", "d.csv", 'id,text,label\n7,x,a\n"8\n9",y,b\n', {"id": "id"}),
    Refused("a group with a blank more", "d.csv", "text,label,thread\nx,a,K-1\ny,b,K-1 \n", {"group": "thread"}),
    Refused("an unknown split", "d.csv", "text,label,part\nx,a,train\ny,b,holdout\n", {"split": "part"}),
    Refused(
        "a group in two splits",
        "d.csv",
        HEADER + "1,x,a,K-1,train\n2,y,b,K-1,test\n",
        {"group": "thread", "split": "part"},
    ),
    Refused("a text in two splits", "d.csv", "text,label,part\nx,a,train\nx,a,test\n", {"split": "part"}),
    Refused("no test examples", "d.csv", "text,label,part\nx,a,train\ny,b,dev\n", {"split": "part"}),
    Refused("too few rows for three splits", "d.csv", GOOD),
    Refused(
        "a label in the test split alone", "d.csv", "text,label,part\nx,a,train\ny,a,dev\nz,b,test\n", {"split": "part"}
    ),
    Refused("the label column as an input", "d.csv", GOOD, {"fields": {"body": "label"}}),
]

BENCHMARKS: Sequence[Refused] = [
    contracts("contracts that are cut off", '{"documents": [{"id": 7, "te'),
    contracts("a list of contracts", "[]"),
    contracts("a contract twice", lambda data: data["documents"][1].update(id=7)),
    contracts("a span behind the contract's end", lambda data: data["documents"][1].update(spans=[[0, 300]])),
    contracts("a choice that Contract-NLI has not", lambda data: _annotation(data)["nda-1"].update(choice="Maybe")),
    contracts("a hypothesis without annotation", lambda data: _annotation(data).clear()),
    benchmark("an answer that is no option", "logiqa", QUESTION | {"answer": "E. both"}),
    benchmark("options of five lines", "logiqa", QUESTION | {"options": QUESTION["options"] + "\nE. both"}),
    benchmark("a row of another benchmark", "logiqa", {"question": "Why?", "answer": True}),
    benchmark(
        "an answer that is neither true nor false",
        "privacy_policy",
        {"context": "We sell.", "question": "Do they?", "answer": "Maybe"},
    ),
]

REFUSED = [*UNREADABLE, *BAD_ROWS, *BENCHMARKS]
