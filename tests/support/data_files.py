"""Data files of a task in CSV, JSON Lines and Parquet, for malformed.py and unusual.py."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Content = str | bytes | Callable[[Path], object]
LONG = "word " * 2_000_000
# enough rows that every label has training examples and no split is empty
FILLER = [(f"text number {number}", "ab"[number % 2]) for number in range(40)]


@dataclass(frozen=True)
class File:
    """`name` under data/records/; its `content`, or a function that puts it there. `reader`: settings that are not
    those of plain text and label, or a reader of another format; `labels` and `fields`: of the task."""

    what: str
    name: str
    content: Content
    reader: Mapping[str, Any] = field(default_factory=dict)
    labels: Sequence[str] = ("a", "b")
    fields: Sequence[str] = ("body",)

    def put(self, folder: Path) -> None:
        path = folder / self.name
        if callable(self.content):
            self.content(path)
        else:
            path.write_bytes(self.content.encode() if isinstance(self.content, str) else self.content)


def rows_csv(*rows: str, end: str = "\n", filler: bool = False) -> str:
    """text,label and the rows as they are given."""
    more = [f"{text},{label}" for text, label in FILLER] if filler else []
    return end.join(["text,label", *rows, *more]) + end


def filled_csv(*rows: str, end: str = "\n") -> str:
    return rows_csv(*rows, end=end, filler=True)


def rows_jsonl(*lines: str, filler: bool = False) -> str:
    more = [json.dumps({"text": text, "label": label}) for text, label in FILLER] if filler else []
    return "".join(f"{line}\n" for line in [*lines, *more])


def filled_jsonl(*lines: str) -> str:
    return rows_jsonl(*lines, filler=True)


def filled_table(rows: Sequence[tuple[str, str]], **options: Any) -> Callable[[Path], object]:
    texts, labels = zip(*rows, *FILLER, strict=True)
    return table({"text": list(texts), "label": list(labels)}, **options)


def table(columns: Mapping[str, Any], **options: Any) -> Callable[[Path], object]:
    return lambda path: pq.write_table(pa.table(dict(columns)), path, **options)
