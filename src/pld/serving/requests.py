"""Reads the records that a served version is asked about: from Python objects, and from HTTP requests to /invocations.

`mlflow models serve` (MLflow 3.17.2) turns a request into numpy arrays first. That makes a text of the number in
["a", 3], pairs the fields of `instances` that each lack another one, cuts NUL off a text and refuses a single record; a
body without a content type or nested too deeply ends in status 500, other refusals hold a stack trace, and a score that
is not a number is written as NaN, which is not JSON. So `answer_invocations` replaces its function.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pld.data.readers.columns import checked_text, flattened
from pld.errors import DataError
from pld.records import Task
from pld.serving.log import first_fault

FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")
_SERVER = "mlflow.pyfunc.scoring_server"


def answer_invocations(respond: Callable[[bytes, str | None], str]) -> None:
    """In a process of `mlflow models serve`, which loads its model while it imports its app, let `respond` (body,
    content type → JSON) answer /invocations. An MlflowException that it raises becomes an answer with its status."""
    if f"{_SERVER}.app" not in sys.modules:
        return
    server = sys.modules[_SERVER]

    def invocations(data: bytes, content_type: str | None, *_: object) -> Any:
        return server.InvocationsResponse(respond(data, content_type), 200, "application/json")

    server.invocations = invocations  # type: ignore[attr-defined]


def read_request(task: Task, body: bytes, content_type: str | None) -> list[dict[str, str]]:
    """The records of a request in one of MLflow's formats. Raises DataError, in one line, for any other."""
    kind = (content_type or "").partition(";")[0].strip().lower()
    if kind not in _READERS:
        raise DataError(f"expected the content type {', '.join(_READERS)}, got {kind or 'none'} (request)")
    return read_records(task, _READERS[kind](task, body))


def read_records(task: Task, model_input: Any) -> list[dict[str, str]]:
    """The task's fields of each record in a DataFrame, a list of records, one record, a mapping of columns, or, for a
    task with one field, a text or a column of texts. Other columns are ignored. A field that `pld new-task` named after
    a dotted path (input.text → input_text) is also found in a nested record, and under the path.

    Raises DataError that names the row and the field for a missing field, and for one that is not text or is empty.
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
        raise DataError(f"expected {_expected(task)}, got {shown(rows)} (input)")
    return [_record(task, row, number) for number, row in enumerate(rows, 1)]


def _table(task: Task, columns: Sequence[str] | None, rows: Sequence[Sequence[Any]]) -> list[Any]:
    """A table as records, or, where its one column has no name, as texts.

    Raises DataError for a task's field that is not a column, or is two, and for a row of another length.
    """
    if columns is None:
        if any(len(row) != 1 for row in rows) or len(task.fields) != 1:
            raise DataError(f"expected columns with names, {', '.join(task.fields)} among them, got none (input)")
        return [row[0] for row in rows]
    columns = [_field(task, column) for column in columns]
    for name in task.fields:
        if (count := columns.count(name)) != 1:
            found = ", ".join(columns) or "none"
            raise DataError(f"expected one column {name!r}, got {found if count == 0 else count} (input)")
    for number, row in enumerate(rows, 1):
        if len(row) != len(columns):
            raise DataError(f"expected {len(columns)} cells, one a column, got {len(row)} (input, row {number})")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def shown(value: Any) -> str:
    """A value as an error message names it, cut to 40 characters."""
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
    return _table(task, columns, frame.astype(object).to_numpy().tolist()) if len(frame.columns) else []


def _of_mapping(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Columns where every value is a list, otherwise one record."""
    columns = _flat(columns, "input")
    if not columns or not all(isinstance(value, list | tuple) for value in columns.values()):
        return [dict(columns)]
    if len({len(value) for value in columns.values()}) != 1:
        found = ", ".join(f"{key} {len(value)}" for key, value in columns.items())
        raise DataError(f"expected columns of one length, got {found} (input)")
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _record(task: Task, row: Any, number: int) -> dict[str, str]:
    where = f"input, row {number}"
    if isinstance(row, str) and len(task.fields) == 1:
        row = {task.fields[0]: row}
    if not isinstance(row, Mapping):
        raise DataError(f"expected {_expected(task)}, got {shown(row)} ({where})")
    flat = {str(key): value for key, value in row.items()}
    if not flat.keys() >= set(task.fields):
        flat = {_field(task, column): value for column, value in _flat(flat, where).items()} | flat
    record = {}
    for name in task.fields:
        if name not in flat:
            raise DataError(f"expected the field {name!r}, got {', '.join(map(str, row)) or 'none'} ({where})")
        text = _plain(flat[name])
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"expected text in {name!r}, got {shown(text)} ({where})")
        record[name] = checked_text(text, name, where)
    return record


def _flat(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    try:
        return flattened(record)
    except (ValueError, RecursionError) as error:
        raise DataError(f"expected a record, got {error} ({where})") from None


def _field(task: Task, column: str) -> str:
    """The field that is named after the dotted path `column`, or `column` itself."""
    name = re.sub(r"\W+", "_", column).strip("_")
    return name if "." in column and column not in task.fields and name in task.fields else column


def _plain(value: Any) -> Any:
    """numpy's arrays and scalars as Python objects."""
    return value.tolist() if hasattr(value, "tolist") else value


def _expected(task: Task) -> str:
    if len(task.fields) == 1:
        return f"texts or records with the field {task.fields[0]}"
    return f"records with the fields {', '.join(task.fields)}"


def _json(task: Task, body: bytes) -> Any:
    try:
        value = json.loads(_utf8(body))
    except (ValueError, RecursionError) as error:  # the second where it is nested too deeply
        raise DataError(f"expected JSON, got {error} (request)") from None
    if not isinstance(value, Mapping):
        raise DataError(f"expected a JSON object with one of {', '.join(FORMATS)}, got {shown(value)} (request)")
    found = [name for name in FORMATS if name in value]
    if len(found) != 1:
        keys = ", ".join(value) or "none"
        raise DataError(f"expected exactly one of {', '.join(FORMATS)}, got {keys:.200} (request)")
    held = value[found[0]]
    return _split(task, held) if found[0] == "dataframe_split" else held


class _Split(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    columns: list[str] | None = None
    index: Any = None
    data: list[list[Any]]


def _split(task: Task, held: Any) -> list[Any]:
    try:
        split = _Split.model_validate(held)
    except ValidationError as error:
        raise DataError(
            "expected dataframe_split with columns (a list of names) and data (a list of lists), got "
            f"{first_fault(error)} (request)"
        ) from None
    return _table(task, split.columns, split.data)


def _csv(task: Task, body: bytes) -> list[Any]:
    text = _utf8(body)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # the default of 128 kB would refuse a long document
    try:
        columns, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row] or [[]]
    except csv.Error as error:
        raise DataError(f"expected CSV with a header, got broken quotes ({error}) (request)") from None
    return _table(task, columns, rows)


def _parquet(_task: Task, body: bytes) -> Any:
    import pandas as pd

    try:
        frame = pd.read_parquet(io.BytesIO(body))
    except Exception as error:  # of whatever library reads it; or none is installed
        raise DataError(f"expected Parquet, got {' '.join(str(error).split()):.200} (request)") from None
    return frame


def _utf8(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"expected UTF-8, got the byte 0x{body[error.start]:02x} (request)") from None


_READERS: Mapping[str, Callable[[Task, bytes], Any]] = {
    "application/json": _json,
    "text/csv": _csv,
    "application/vnd.apache.parquet": _parquet,
}
