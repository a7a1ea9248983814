"""A file of rows to classify: first all of it is checked by the project's readers, then it is streamed with all its
columns, so that what is wrong with its last row is told before hours are spent."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pld.data.readers.columns import Columns, Row, checked_text, find_columns
from pld.data.readers.csv_rows import csv_rows
from pld.data.readers.jsonl_rows import json_lines
from pld.data.readers.parquet_rows import parquet_rows
from pld.data.readers.records import HINTS
from pld.errors import DataError

Cells = tuple[str, ...]


@dataclass(frozen=True)
class CheckedFile:
    """A file whose every row can be read: all its `columns`, how many `rows`, and the places of the task's `fields`
    among the columns. `bad`: number of a row (from 0) → where it stands and why it can't be classified."""

    path: Path
    columns: tuple[str, ...]
    rows: int
    fields: Mapping[str, int]
    bad: Mapping[int, str]

    def stream(self) -> Iterator[Cells]:
        """Each row's cells as text, in the order of `columns`."""
        return _FORMATS[self.path.suffix.lower()].stream(self.path, self.columns)


def check_file(path: Path, fields: Mapping[str, str]) -> CheckedFile:
    """`fields`: input field of the task → its column. Raises DataError for a file of another kind, one that is broken,
    and one without such a column."""
    ending = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"{path}: wanted a file of rows to classify, found none; correct the path")
    if ending not in _FORMATS:
        hint = HINTS.get(ending, "save it as one of these")
        raise DataError(f"{path}: wanted {', '.join(_FORMATS)}, found {ending or 'no ending'}; {hint}")
    form = _FORMATS[ending]
    wanted = tuple(dict.fromkeys(fields.values()))
    bad = {}
    number = -1
    for number, (place, texts) in enumerate(form.rows(path, str(path), Columns(wanted, frozenset(wanted)))):
        if empty := [column for column in wanted if not texts[column].strip()]:
            bad[number] = f"{place}: column {empty[0]!r}: wanted text, found none"
    columns = form.columns(path)
    for column in columns:
        if columns.count(column) > 1:
            raise DataError(f"{path}: wanted columns of different names, found {column!r} twice; rename one")
    places = {field: columns.index(column) for field, column in fields.items()}
    return CheckedFile(path, columns, number + 1, places, bad)


@dataclass(frozen=True)
class _Format:
    """`rows` are those of the project's reader; `columns` and `stream` trust that it has passed the file."""

    rows: Callable[[Path, str, Columns], Iterator[Row]]
    columns: Callable[[Path], tuple[str, ...]]
    stream: Callable[[Path, tuple[str, ...]], Iterator[Cells]]


def _csv_lines(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from (cells for cells in csv.reader(file, strict=True) if cells)


def _csv_columns(path: Path) -> tuple[str, ...]:
    return tuple(next(_csv_lines(path)))


def _csv_stream(path: Path, _columns: tuple[str, ...]) -> Iterator[Cells]:
    lines = _csv_lines(path)
    next(lines)
    yield from map(tuple, lines)


def _json_rows(path: Path, name: str, columns: Columns) -> Iterator[Row]:
    """As `jsonl_rows`, but that a later row without a text in a wanted column is passed on, with an empty one."""
    for number, (place, found) in enumerate(json_lines(path, name)):
        where = f"{name}: {place}"
        if not number:
            find_columns(columns, list(found), where)
        texts = {}
        for column in columns.wanted:
            value = found.get(column)
            texts[column] = checked_text(str(value), column, where) if isinstance(value, str) else ""
        yield place, texts


def _json_columns(path: Path) -> tuple[str, ...]:
    """The keys of all rows, each where it is met first."""
    return tuple(dict.fromkeys(key for found in _json_objects(path) for key in found))


def _json_stream(path: Path, columns: tuple[str, ...]) -> Iterator[Cells]:
    for found in _json_objects(path):
        yield tuple(_cell(found.get(column)) for column in columns)


def _json_objects(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as lines:
        for line in lines:
            text = line.decode("utf-8-sig")
            if text.strip():
                yield json.loads(text, parse_int=_Digits, parse_float=_Digits)


class _Digits(str):
    """A number as it is written."""


def _parquet_columns(path: Path) -> tuple[str, ...]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        return tuple(file.schema_arrow.names)


def _parquet_stream(path: Path, _columns: tuple[str, ...]) -> Iterator[Cells]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024):
            yield from (tuple(map(_cell, row)) for row in zip(*batch.to_pydict().values(), strict=True))


def _cell(value: Any) -> str:
    """A value as text: an empty one for null, JSON for true, false and what is nested."""
    if value is None:
        return ""
    return _json(value) if isinstance(value, bool | list | dict) else str(value)


def _json(value: Any) -> str:
    if isinstance(value, _Digits):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_json, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_json(key)}: {_json(held)}' for key, held in value.items())}}}"
    return json.dumps(value, ensure_ascii=False, default=str)


_FORMATS = {
    ".csv": _Format(csv_rows, _csv_columns, _csv_stream),
    ".jsonl": _Format(_json_rows, _json_columns, _json_stream),
    ".parquet": _Format(parquet_rows, _parquet_columns, _parquet_stream),
}
