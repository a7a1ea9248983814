"""Read the user's own CSV, JSONL or Parquet file: the columns that the task names, each value exactly as written."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from pld.data.readers.columns import Columns, Row
from pld.data.readers.csv_rows import csv_rows
from pld.data.readers.jsonl_rows import jsonl_rows
from pld.data.readers.parquet_rows import parquet_rows
from pld.data.readers.source import locate
from pld.data.splits import ColumnNames, RawExample, visible
from pld.errors import ConfigError, DataError
from pld.task_params import RecordsReader

ReadRows = Callable[[Path, str, Columns | None], Iterator[Row]]
"""(file, its name in messages, columns) → rows: the needed columns as text, or all of them (None) as they are."""

_FORMATS: Mapping[str, ReadRows] = {".csv": csv_rows, ".jsonl": jsonl_rows, ".parquet": parquet_rows}


def format_of(name: str) -> ReadRows:
    """The reader for a file's ending. Raises DataError for another ending."""
    ending = PurePath(name).suffix.lower()
    if ending not in _FORMATS:
        raise DataError(
            f"expected a .csv, .jsonl or .parquet file, got {ending or 'no ending'} ({name}); unpack it, or save it "
            "in one of these formats (JSON with an object per line)"
        )
    return _FORMATS[ending]


def read_labelled_rows(reader: RecordsReader, labels: Sequence[str]) -> Iterator[RawExample]:
    """One raw example per row; `labels`: the task's. An empty cell in the group column means no group."""
    rows = format_of(reader.path)
    if reader.label in reader.fields.values():
        raise ConfigError(
            f"expected a label column that is no input field, got {reader.label!r}, which would show the label to the "
            "Student (label column); name another column"
        )
    if reader.options is not None:
        _check_options(reader.options, reader, labels)
    needed = [*reader.fields.values(), reader.label, reader.id, reader.group, reader.split]
    columns = Columns(
        needed=tuple(dict.fromkeys(name for name in needed if name is not None)),
        may_be_null=frozenset(name for name in [reader.group] if name is not None),
    )
    names = ColumnNames(reader.fields, reader.label, reader.id, reader.group, reader.split)
    for place, row in rows(locate(reader.path), reader.path, columns):
        yield RawExample(
            file=reader.path,
            place=place,
            inputs={field: row[column] for field, column in reader.fields.items()},
            label=row[reader.label] if reader.options is None else _chosen(row, place, reader, reader.options, labels),
            id=None if reader.id is None else row[reader.id],
            group=None if reader.group is None or not visible(row[reader.group]) else row[reader.group],
            split=None if reader.split is None else row[reader.split],
            columns=names,
            derive=reader.derive,
        )


def _check_options(options: Sequence[str], reader: RecordsReader, labels: Sequence[str]) -> None:
    """Raises ConfigError unless each label has a column of its own that the Student sees."""
    if len(options) != len(labels) or len(set(options)) < len(options) or not set(options) <= {*reader.fields.values()}:
        raise ConfigError(
            f"expected an input column of its own for each of the labels {', '.join(labels)}, got "
            f"{', '.join(options)} (reader.options); correct labels, fields, reader.fields or reader.options in "
            "conf/task/, the first option being the first label"
        )


def _chosen(
    row: Mapping[str, str], place: str, reader: RecordsReader, options: Sequence[str], labels: Sequence[str]
) -> str:
    """The label of the option whose text is in the label column; the column may also hold the label itself."""
    where = f"{reader.path}: {place}"
    texts = [row[column] for column in options]
    if not all(map(str.strip, texts)):
        raise DataError(f"expected a text in each of {', '.join(options)}, got none in one ({where}); delete the row")
    answer = row[reader.label]
    meant = {label for label, text in zip(labels, texts, strict=True) if answer in (text, label)}
    if len(meant) == 1:
        return meant.pop()
    raise DataError(
        f"expected the exact text of one of {', '.join(options)}, or its label ({', '.join(labels)}), got "
        f"{answer!r:.60}, which fits {len(meant)} of them ({where}, column {reader.label!r}); correct the row"
    )
