"""What `mlflow models serve` does with a request to /invocations: MLflow's formats, read from the bytes that came.

MLflow 3.17.2 makes numpy arrays of a request first. That turns the number in ["a", 3] into a text, pairs the fields of
`instances` of which each lacks another one, cuts a NUL off a text and refuses a single record; a body without a content
type or nested too deeply ends in status 500, other refusals hold a stack trace, and a score that is not a number is
written as NaN, which is no JSON. So its function gives way to `respond` in the server's process.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pld.errors import DataError
from pld.records import Task
from pld.serving.requests import read_records, shown, table

FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")
_SERVER = "mlflow.pyfunc.scoring_server"


def take_over(respond: Callable[[bytes, str | None], str]) -> None:
    """Where this process is `mlflow models serve`, which loads its model while it imports its app, let `respond` (body,
    content type → JSON) answer /invocations. An MlflowException that it raises is the answer with its status."""
    if f"{_SERVER}.app" not in sys.modules:
        return
    server = sys.modules[_SERVER]

    def invocations(data: bytes, content_type: str | None, *_: object) -> Any:
        return server.InvocationsResponse(respond(data, content_type), 200, "application/json")

    server.invocations = invocations  # type: ignore[attr-defined]


def read_request(task: Task, body: bytes, content_type: str | None) -> list[dict[str, str]]:
    """The records of a request in one of MLflow's formats. Raises DataError, in one line, for any other."""
    kind, *parameters = (part.strip().lower() for part in (content_type or "").split(";"))
    if kind not in _READERS:
        raise DataError(f"request: wanted the content type {', '.join(_READERS)}, found {kind or 'none'}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            raise DataError(f"request: wanted UTF-8, found charset {value}")
    return read_records(task, _READERS[kind](task, body))


def _json(task: Task, body: bytes) -> Any:
    try:
        value = json.loads(_utf8(body))
    except ValueError as error:
        raise DataError(f"request: wanted JSON, found {error}") from None
    except RecursionError:
        raise DataError("request: wanted JSON, found it nested too deeply") from None
    if not isinstance(value, Mapping):
        raise DataError(f"request: wanted a JSON object with one of {', '.join(FORMATS)}, found {shown(value)}")
    found = [name for name in FORMATS if name in value]
    if len(found) != 1:
        keys = ", ".join(value) or "none"
        raise DataError(f"request: wanted exactly one of {', '.join(FORMATS)}, found {keys:.200}")
    held = value[found[0]]
    if found[0] == "dataframe_split":
        return _split(task, held)
    if found[0] == "dataframe_records" and not isinstance(held, list):
        raise DataError(f"request: wanted a list of records in dataframe_records, found {shown(held)}")
    return held


def _split(task: Task, held: Any) -> list[Any]:
    if not isinstance(held, Mapping) or not {"data"} <= set(held) <= {"columns", "index", "data"}:
        found = ", ".join(held) if isinstance(held, Mapping) else shown(held)
        raise DataError(f"request: wanted dataframe_split with columns and data, found {found or 'none':.200}")
    columns, rows = held.get("columns"), held["data"]
    if columns is not None and not (isinstance(columns, list) and all(isinstance(name, str) for name in columns)):
        raise DataError(f"request: wanted a list of names in dataframe_split.columns, found {shown(columns)}")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise DataError("request: wanted a list of lists in dataframe_split.data, found something else")
    return table(task, columns, rows)


def _csv(task: Task, body: bytes) -> list[Any]:
    text = _utf8(body)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # its 128 kB would refuse a long document
    try:
        columns, *rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row] or [[]]
    except csv.Error as error:
        raise DataError(f"request: wanted CSV with a header, found broken quotes ({error})") from None
    return table(task, columns, rows)


def _parquet(_task: Task, body: bytes) -> Any:
    import pandas as pd

    try:
        frame = pd.read_parquet(io.BytesIO(body))
    except ImportError:
        raise DataError(
            "request: wanted JSON or CSV, found Parquet, for which this server lacks the package pyarrow"
        ) from None
    except Exception as error:  # of whatever library reads it
        raise DataError(f"request: wanted Parquet, found {' '.join(str(error).split()):.120}") from None
    return frame


def _utf8(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"request: wanted UTF-8, found the byte 0x{body[error.start]:02x}") from None


_READERS: Mapping[str, Callable[[Task, bytes], Any]] = {
    "application/json": _json,
    "text/csv": _csv,
    "application/vnd.apache.parquet": _parquet,
}
