"""All columns of a data file, also those that no option names: their names, and what their values look like."""

import csv
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pld.data.audit.checks import Column, Profile
from pld.data.readers.jsonl_rows import json_lines
from pld.data.readers.source import check_text, opened
from pld.errors import DataError


def column_names(path: Path) -> list[str]:
    """Names of the file's columns; none where it can't be told, for the reader says better what is wrong."""
    names = {".csv": _csv_header, ".jsonl": _json_keys, ".parquet": _parquet_names}.get(path.suffix.lower())
    try:
        return names(path) if names is not None and path.is_file() else []
    except (OSError, ValueError, csv.Error, DataError):  # pyarrow's errors are ValueErrors
        return []


def profiles(path: Path) -> list[Column]:
    """What the columns look like, in a file that the strict reader has read; those of lists, nested objects, fractions
    and the like are left out, and a null is an empty text."""
    read = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}[path.suffix.lower()]
    return [gathered.column() for gathered in read(path)]


def _csv_header(path: Path) -> list[str]:
    with opened(path, str(path)) as file:
        check_text(file, str(path))
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        return next((cells for cells in csv.reader(text, strict=True) if cells), [])


def _json_keys(path: Path) -> list[str]:
    """Of the first lines."""
    keys: dict[str, None] = {}
    for _, found in itertools.islice(json_lines(path, str(path)), 100):
        keys |= dict.fromkeys(found)
    return list(keys)


def _parquet_names(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(path).names)


def _csv(path: Path) -> Iterable[Profile]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = (cells for cells in csv.reader(file, strict=True) if cells)
        columns = [Profile(name) for name in next(rows)]
        for cells in rows:
            for column, cell in zip(columns, cells, strict=True):
                column.add(cell)
    return columns


def _jsonl(path: Path) -> Iterable[Profile]:
    columns = {name: Profile(name) for name in _json_keys(path)}
    for _, found in json_lines(path, str(path)):
        for name in list(columns):
            value: Any = found.get(name)
            if value is None or isinstance(value, str):  # a number is read as its digits
                columns[name].add(value or "")
            else:
                del columns[name]
    return columns.values()


def _parquet(path: Path) -> Iterator[Profile]:
    import pyarrow.parquet as pq
    import pyarrow.types as types

    with pq.ParquetFile(path) as file:
        for field in file.schema_arrow:
            plain = field.type.value_type if types.is_dictionary(field.type) else field.type
            if types.is_integer(plain) or types.is_string(plain) or types.is_large_string(plain):
                column = Profile(field.name)
                for batch in file.iter_batches(batch_size=4096, columns=[field.name]):
                    for cell in batch[0].to_pylist():
                        column.add("" if cell is None else str(cell))
                yield column
