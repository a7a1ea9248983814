"""What a served version is asked about: records of the task's fields, however they come."""

from collections.abc import Mapping, Sequence
from typing import Any

from pld.data.readers.columns import checked_text
from pld.errors import DataError
from pld.records import Task


def read_records(task: Task, model_input: Any) -> list[dict[str, str]]:
    """The task's fields of each record of a DataFrame, a list of records, one record, a mapping of columns, or,
    for a task of one field, a text or a column of texts. Other columns are left out.

    Raises DataError that names the row and the field for a missing field, or one that is no text or empty.
    """
    if hasattr(model_input, "to_frame"):  # a pandas Series
        model_input = model_input.tolist()
    if hasattr(model_input, "columns"):
        rows: Any = _of_frame(task, model_input)
    elif isinstance(model_input, Mapping):
        rows = _of_mapping({str(key): _plain(value) for key, value in model_input.items()})
    else:
        rows = _plain(model_input)
    if isinstance(rows, str):
        rows = [rows]
    if not isinstance(rows, list | tuple):
        raise DataError(f"input: wanted {_wanted(task)}, found {shown(rows)}")
    return [_record(task, row, number) for number, row in enumerate(rows, 1)]


def table(task: Task, columns: Sequence[str] | None, rows: Sequence[Sequence[Any]]) -> list[Any]:
    """What `read_records` takes of a table: records, or, where the columns have no names, the texts of the only one.

    Raises DataError for a task's field that is not a column, or is two, and for a row of another length.
    """
    if columns is None:
        if any(len(row) != 1 for row in rows) or len(task.fields) != 1:
            raise DataError(f"input: wanted columns with names, {', '.join(task.fields)} among them, found none")
        return [row[0] for row in rows]
    for name in task.fields:
        if (count := list(columns).count(name)) != 1:
            found = ", ".join(columns) or "none"
            raise DataError(f"input: wanted one column {name!r}, found {found if count == 0 else count}")
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise DataError(f"input, row {number}: wanted {len(columns)} cells, one a column, found {len(row)}")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def shown(value: Any) -> str:
    """A value as an error names it, never long."""
    if value is None or value != value:  # NaN, which pandas writes for what is missing
        return "null"
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return f"{value!r:.40}"


def _of_frame(task: Task, frame: Any) -> list[Any]:
    named = any(isinstance(column, str) for column in frame.columns)
    columns = [str(column) for column in frame.columns] if named else None
    return table(task, columns, frame.astype(object).to_numpy().tolist()) if len(frame.columns) else []


def _of_mapping(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Columns where every value is a list, otherwise one record."""
    if not columns or not all(isinstance(value, list | tuple) for value in columns.values()):
        return [dict(columns)]
    if len({len(value) for value in columns.values()}) != 1:
        found = ", ".join(f"{key} {len(value)}" for key, value in columns.items())
        raise DataError(f"input: wanted columns of one length, found {found}")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _record(task: Task, row: Any, number: int) -> dict[str, str]:
    where = f"input, row {number}"
    if isinstance(row, str) and len(task.fields) == 1:
        row = {task.fields[0]: row}
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: wanted {_wanted(task)}, found {shown(row)}")
    record = {}
    for name in task.fields:
        if name not in row:
            raise DataError(f"{where}: wanted the field {name!r}, found {', '.join(map(str, row)) or 'none'}")
        text = _plain(row[name])
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: wanted text in {name!r}, found {shown(text)}")
        record[name] = checked_text(text, name, where)
    return record


def _plain(value: Any) -> Any:
    """numpy's arrays and scalars as Python's own."""
    return value.tolist() if hasattr(value, "tolist") else value


def _wanted(task: Task) -> str:
    if len(task.fields) == 1:
        return f"texts or records with the field {task.fields[0]}"
    return f"records with the fields {', '.join(task.fields)}"
