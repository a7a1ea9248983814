"""Read a file of rows to classify: first all of it is checked, so that an error in its last row shows up before hours
are spent; then it is streamed with all its columns."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pld.data.readers.columns import Columns
from pld.data.readers.jsonl_rows import Number
from pld.data.readers.records import format_of
from pld.errors import DataError

Cells = tuple[str, ...]


@dataclass(frozen=True)
class CheckedFile:
    """A file whose every row can be read: all its `columns`, how many `rows`, and the positions of the task's `fields`
    among the columns. `bad`: number of a row (from 0) → why it can't be classified."""

    path: Path
    columns: tuple[str, ...]
    rows: int
    fields: Mapping[str, int]
    bad: Mapping[int, str]

    def stream(self) -> Iterator[Cells]:
        """Each row's cells as text, in the order of `columns`."""
        for _, row in format_of(self.path.name)(self.path, str(self.path), None):
            yield tuple(_cell(row.get(column)) for column in self.columns)


def check_file(path: Path, fields: Mapping[str, str]) -> CheckedFile:
    """`fields`: input field of the task → its column. Raises DataError for a file of another kind, one that is broken,
    and one without such a column."""
    if not path.is_file():
        raise DataError(f"expected a file of rows to classify, got none ({path}); correct the path")
    rows = format_of(str(path))
    needed = tuple(dict.fromkeys(fields.values()))
    bad = {}
    number = -1
    for number, (place, texts) in enumerate(rows(path, str(path), Columns(needed, frozenset(needed), lenient=True))):
        if empty := [column for column in needed if not texts[column].strip()]:
            bad[number] = f"expected text, got none ({path}: {place}, column {empty[0]!r})"
    found = (column for _, row in rows(path, str(path), None) for column in row)
    columns = tuple(dict.fromkeys([*found, *needed]))  # a needed one may be within objects that are all null
    places = {field: columns.index(column) for field, column in fields.items()}
    return CheckedFile(path, columns, number + 1, places, bad)


def _cell(value: Any) -> str:
    """A value as text: an empty one for null, JSON for true, false and nested values."""
    if value is None:
        return ""
    return _json(value) if isinstance(value, bool | list | dict) else str(value)


def _json(value: Any) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_json, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_json(key)}: {_json(held)}' for key, held in value.items())}}}"
    return json.dumps(value, ensure_ascii=False, default=str)
