"""The user's own CSV, JSONL or Parquet: named columns, every value kept as the text that stands there."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePath

from pld.adapters.readers.columns import Columns, Row
from pld.adapters.readers.csv_rows import csv_rows
from pld.adapters.readers.jsonl_rows import jsonl_rows
from pld.adapters.readers.parquet_rows import parquet_rows
from pld.adapters.readers.source import locate
from pld.errors import ConfigError, DataError
from pld.method.splits import RawExample
from pld.params import RecordsReader

FORMATS: Mapping[str, Callable[[Path, str, Columns], Iterator[Row]]] = {
    ".csv": csv_rows,
    ".jsonl": jsonl_rows,
    ".parquet": parquet_rows,
}
HINTS = {
    ".gz": "unpack it first",
    ".json": "write one object a line and name it .jsonl",
    ".ndjson": "name it .jsonl",
    ".tsv": "save it with commas as .csv",
    ".xlsx": "save it as CSV UTF-8",
    ".dvc": "name the data file itself",
}


def read_records(reader: RecordsReader) -> Iterator[RawExample]:
    """One raw example a row. An empty cell in the group column means: in no group."""
    ending = PurePath(reader.path).suffix.lower()
    if ending not in FORMATS:
        hint = HINTS.get(ending, "save it as one of these")
        raise DataError(f"{reader.path}: wanted {', '.join(FORMATS)}, found {ending or 'no ending'}; {hint}")
    if reader.label in reader.fields.values():
        raise ConfigError(
            f"reader.label: wanted a column that no input field has, found {reader.label!r}, which would show the "
            "label to the Student; correct reader.fields or reader.label in conf/task/"
        )
    wanted = [*reader.fields.values(), reader.label, reader.id, reader.group, reader.split]
    columns = Columns(
        wanted=tuple(dict.fromkeys(name for name in wanted if name is not None)),
        may_be_null=frozenset(name for name in [reader.group] if name is not None),
    )
    for place, row in FORMATS[ending](locate(reader.path), reader.path, columns):
        yield RawExample(
            file=reader.path,
            place=place,
            inputs={field: row[column] for field, column in reader.fields.items()},
            label=row[reader.label],
            id=None if reader.id is None else row[reader.id],
            group=None if reader.group is None or not row[reader.group].strip() else row[reader.group],
            split=None if reader.split is None else row[reader.split],
        )
