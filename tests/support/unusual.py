"""Unusual data files that are fine, with what is read from them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from support.data_files import FILLER, LONG, File, filled_csv, filled_jsonl, filled_table, table


@dataclass(frozen=True)
class Fine(File):
    """`reads`: exact (input, label) of its rows, besides those of FILLER."""

    reads: Sequence[tuple[str, str]] = ()


def _coded(path: Path) -> None:
    texts, labels = zip(("x", "a"), *FILLER, strict=True)
    table({"text": pa.array(texts, pa.large_string()), "label": pa.array(labels).dictionary_encode()})(path)


def _linked(path: Path) -> None:
    (path.parent / "elsewhere.csv").write_text(filled_csv("x,a"))
    path.symlink_to("elsewhere.csv")


ODD = 'say "hi", you\nand\r\nyou\rtoo'
NUMBERED = [(text, str("ab".index(label))) for text, label in FILLER]

FINE: Sequence[Fine] = [
    # encodings and line ends
    Fine("a byte order mark", "d.csv", "\ufeff" + filled_csv("x,a"), reads=[("x", "a")]),
    Fine(
        "a byte order mark in JSONL",
        "d.jsonl",
        "\ufeff" + filled_jsonl('{"text": "x", "label": "a"}'),
        reads=[("x", "a")],
    ),
    Fine("line ends of Windows", "d.csv", filled_csv("x,a", end="\r\n"), reads=[("x", "a")]),
    Fine("line ends of old Macs", "d.csv", filled_csv("x,a", end="\r"), reads=[("x", "a")]),
    Fine(
        "mixed line ends",
        "d.csv",
        "text,label\r\nx,a\ry,b\n" + filled_csv().partition("\n")[2],
        reads=[("x", "a"), ("y", "b")],
    ),
    Fine(
        "mixed line ends in JSONL", "d.jsonl", '{"text": "x", "label": "a"}\r\n\n' + filled_jsonl(), reads=[("x", "a")]
    ),
    Fine("no line end behind the last row", "d.csv", filled_csv("x,a").removesuffix("\n"), reads=[("x", "a")]),
    Fine(
        "blank lines above the header and between rows",
        "d.csv",
        "\n\r\n" + filled_csv("", "x,a", ""),
        reads=[("x", "a")],
    ),
    Fine("characters of four bytes", "d.csv", filled_csv("👩‍👩‍👧 𝔸,a"), reads=[("👩‍👩‍👧 𝔸", "a")]),
    Fine(
        "line separators of Unicode",
        "d.jsonl",
        filled_jsonl('{"text": "x\u2028y\u0085z", "label": "a"}'),
        reads=[("x\u2028y\x85z", "a")],
    ),
    Fine("control characters", "d.csv", filled_csv("x\x07\x1b[0m\x1cy,a"), reads=[("x\x07\x1b[0m\x1cy", "a")]),
    Fine("a byte order mark in a text", "d.csv", filled_csv("x\ufeffy,a"), reads=[("x\ufeffy", "a")]),
    # CSV
    Fine(
        "line ends, commas and quotes in quotes",
        "d.csv",
        filled_csv('"' + ODD.replace('"', '""') + '",a'),
        reads=[(ODD, "a")],
    ),
    Fine("a quote inside a text without quotes", "d.csv", filled_csv('a 5" pipe,a'), reads=[('a 5" pipe', "a")]),
    Fine("blanks around a text", "d.csv", filled_csv(" x\xa0,a"), reads=[(" x\xa0", "a")]),
    Fine(
        "words that programs take for something else",
        "d.csv",
        filled_csv("NA,a", "null,b", "=1+1,a", "001,b"),
        reads=[("NA", "a"), ("null", "b"), ("=1+1", "a"), ("001", "b")],
    ),
    Fine(
        "a column without a name",
        "d.csv",
        "".join(f"{line},\n" for line in filled_csv("x,a").splitlines()),
        reads=[("x", "a")],
    ),
    Fine(
        "a column twice that is not read",
        "d.csv",
        "".join(f"{line},z,z\n" for line in filled_csv("x,a").splitlines()),
        reads=[("x", "a")],
    ),
    Fine("ten megabytes in a cell", "d.csv", filled_csv(f"{LONG},a"), reads=[(LONG, "a")]),
    # JSON Lines
    Fine(
        "ten megabytes in a JSON string",
        "d.jsonl",
        filled_jsonl(json.dumps({"text": LONG, "label": "a"})),
        reads=[(LONG, "a")],
    ),
    Fine(
        "escapes, and keys in another order",
        "d.jsonl",
        filled_jsonl('{"label": "a", "text": "\\ud83d\\ude00\\n\\u00fc"}'),
        reads=[("😀\nü", "a")],
    ),
    Fine(
        "values that are not read",
        "d.jsonl",
        filled_jsonl('{"text": "x", "label": "a", "more": {"b": [null, true, 1.5]}}'),
        reads=[("x", "a")],
    ),
    Fine(
        "a number for a text",
        "d.jsonl",
        filled_jsonl('{"text": 12345678901234567890.50, "label": "a"}'),
        reads=[("12345678901234567890.50", "a")],
    ),
    # Parquet
    Fine("ten megabytes in Parquet", "d.parquet", filled_table([(LONG, "a")]), reads=[(LONG, "a")]),
    Fine(
        "packed Parquet in row groups",
        "d.parquet",
        filled_table([(ODD, "a")], compression="zstd", row_group_size=7),
        reads=[(ODD, "a")],
    ),
    Fine("large and dictionary-coded text in Parquet", "d.parquet", _coded, reads=[("x", "a")]),
    # labels
    Fine(
        "numbers for labels", "d.csv", filled_csv().replace(",a\n", ",0\n").replace(",b\n", ",1\n"), labels=("0", "1")
    ),
    Fine(
        "numbers for labels in JSONL",
        "d.jsonl",
        filled_jsonl().replace('"a"', "0").replace('"b"', "1"),
        labels=("0", "1"),
    ),
    Fine(
        "numbers for labels in Parquet",
        "d.parquet",
        table({"text": [text for text, _ in NUMBERED], "label": [int(label) for _, label in NUMBERED]}),
        labels=("0", "1"),
    ),
    Fine(
        "words of YAML for labels",
        "d.csv",
        filled_csv().replace(",a\n", ",no\n").replace(",b\n", ",~\n"),
        labels=("no", "~"),
    ),
    # names and places
    Fine("an ending in capitals", "D.CSV", filled_csv("x,a"), reads=[("x", "a")]),
    Fine("blanks and umlauts in the name", "meine Fälle (1).csv", filled_csv("x,a"), reads=[("x", "a")]),
    Fine("a link to a file", "d.csv", _linked, reads=[("x", "a")]),
    Fine("rows that repeat another", "d.csv", filled_csv("x,a", "x,a"), reads=[("x", "a")]),
]
