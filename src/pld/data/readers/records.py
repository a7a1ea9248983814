"""The user's own CSV, JSONL or Parquet: named columns, every value kept as the text that stands there."""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from pld.data.readers.columns import Columns, Row
from pld.data.readers.csv_rows import csv_rows
from pld.data.readers.jsonl_rows import jsonl_rows
from pld.data.readers.parquet_rows import parquet_rows
from pld.data.readers.source import locate
from pld.data.splits import ColumnNames, RawExample, visible
from pld.errors import ConfigError, DataError
from pld.params import RecordsReader

FORMATS: Mapping[str, Callable[[Path, str, Columns], Iterator[Row]]] = {
    ".csv": csv_rows,
    ".jsonl": jsonl_rows,
    ".parquet": parquet_rows,
}
HINTS = {
    **dict.fromkeys((".gz", ".zip", ".bz2", ".xz", ".zst"), "unpack it first"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "save it as CSV UTF-8"),
    ".json": "write one object a line and name it .jsonl",
    ".ndjson": "name it .jsonl",
    ".tsv": "save it with commas as .csv",
    ".dvc": "name the data file itself",
}


def read_records(reader: RecordsReader, labels: Sequence[str]) -> Iterator[RawExample]:
    """One raw example a row; `labels`: the task's. An empty cell in the group column means: in no group."""
    ending = PurePath(reader.path).suffix.lower()
    if ending not in FORMATS:
        hint = HINTS.get(ending, "save it as one of these")
        raise DataError(f"{reader.path}: wanted {', '.join(FORMATS)}, found {ending or 'no ending'}; {hint}")
    if reader.label in reader.fields.values():
        raise ConfigError(
            f"reader.label: wanted a column that no input field has, found {reader.label!r}, which would show the "
            "label to the Student; correct reader.fields or reader.label in conf/task/"
        )
    if reader.options is not None:
        _check_options(reader.options, reader, labels)
    wanted = [*reader.fields.values(), reader.label, reader.id, reader.group, reader.split]
    columns = Columns(
        wanted=tuple(dict.fromkeys(name for name in wanted if name is not None)),
        may_be_null=frozenset(name for name in [reader.group] if name is not None),
    )
    names = ColumnNames(reader.fields, reader.label, reader.id, reader.group, reader.split)
    for place, row in FORMATS[ending](locate(reader.path), reader.path, columns):
        yield RawExample(
            file=reader.path,
            place=place,
            inputs={field: row[column] for field, column in reader.fields.items()},
            label=row[reader.label] if reader.options is None else _chosen(row, place, reader, reader.options, labels),
            id=None if reader.id is None else row[reader.id],
            group=None if reader.group is None or not visible(row[reader.group]) else row[reader.group],
            split=None if reader.split is None else row[reader.split],
            columns=names,
        )


def _check_options(options: Sequence[str], reader: RecordsReader, labels: Sequence[str]) -> None:
    """Raises ConfigError unless there is a column for each label, and the Student sees all of them."""
    if len(options) != len(labels):
        raise ConfigError(
            f"reader.options: wanted a column for each of the labels {', '.join(labels)}, found {len(options)}: "
            f"{', '.join(options)}; the first option is the first label: correct labels or reader.options in conf/task/"
        )
    if len(set(options)) < len(options):
        raise ConfigError(
            f"reader.options: wanted a column of its own for each option, found {', '.join(options)}; correct "
            "reader.options in conf/task/"
        )
    hidden = [column for column in options if column not in reader.fields.values()]
    if hidden:
        raise ConfigError(
            f"reader.options: wanted columns that are input fields too, found {', '.join(map(repr, hidden))}, which "
            "the Student would not see; add them to fields and reader.fields, and show them in input_template in "
            "conf/task/"
        )


def _chosen(
    row: Mapping[str, str], place: str, reader: RecordsReader, options: Sequence[str], labels: Sequence[str]
) -> str:
    """The label at the place of the option whose text the label column holds; a label that stands there is one."""
    where = f"{reader.path}: {place}"
    texts = [row[column] for column in options]
    for column, text in zip(options, texts, strict=True):
        if not text.strip():
            raise DataError(
                f"{where}: column {column!r}: wanted the text of an option, found none; fill it in or leave the row out"
            )
    answer = row[reader.label]
    meant = [label for label, text in zip(labels, texts, strict=True) if text == answer]
    if answer in labels and meant in ([], [answer]):
        return answer
    if len(meant) == 1 and answer not in labels:
        return meant[0]
    if meant:
        found = dict.fromkeys([*meant, *[answer] * (answer in labels)])
        raise DataError(
            f"{where}: column {reader.label!r}: wanted one option, found {answer!r:.60}, which stands for "
            f"{' and '.join(found)}; change the text of one of them, or leave the row out"
        )
    near = difflib.get_close_matches(answer, texts, n=1)
    hint = f" (did you mean {near[0]!r:.60}, option {labels[texts.index(near[0])]}?)" if near else ""
    raise DataError(
        f"{where}: column {reader.label!r}: wanted the text of one of {', '.join(options)}, letter for letter, or its "
        f"label ({', '.join(labels)}), found {answer!r:.60}{hint}; correct the row"
    )
