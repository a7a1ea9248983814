"""JSON Lines: one object a line. Strings as they are, numbers as they are written; nothing else is text."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pld.data.readers.columns import Columns, Row, checked_text, find_columns
from pld.data.readers.source import check_text, opened
from pld.errors import DataError
from pld.progress import progress


class _Number(str):
    """A number, kept in the digits that stand in the file (1.50 stays 1.50)."""


@dataclass(frozen=True)
class _Constant:
    """NaN, Infinity or -Infinity, which Python's own writer puts into a file."""

    name: str


def json_lines(path: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("line 7", object) for each line that is not blank."""
    with opened(path, name) as file:
        total = check_text(file, name)
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n")
        with progress("reading", total) as advance:
            for number, line in enumerate(lines, 1):
                advance(1)
                if not line.strip():
                    continue
                place = f"line {number}"
                yield place, _object(line, f"{name}: {place}")


def jsonl_rows(path: Path, name: str, columns: Columns) -> Iterator[Row]:
    for place, found in json_lines(path, name):
        where = f"{name}: {place}"
        find_columns(columns, list(found), where)
        yield place, {column: _text(found[column], column, where, columns) for column in columns.wanted}


def _object(line: str, where: str) -> dict[str, Any]:
    line = line.strip()
    try:
        value = _DECODER.decode(line)
    except RecursionError:
        raise DataError(
            f"{where}: wanted one JSON object, found lists or objects nested too deeply; leave that part out"
        ) from None
    except json.JSONDecodeError as error:
        # the decoder's own "line 1" would be taken for the file's
        found = f"{error.msg[0].lower()}{error.msg[1:].removesuffix(' at')} at character {error.pos + 1}"
        raise DataError(f"{where}: wanted one JSON object, found bad JSON ({found}); {_remedy(line, error)}") from None
    except _NoJsonError as error:
        raise DataError(f"{where}: wanted one JSON object, found {error}") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: wanted a JSON object, found {_kind(value)}; {_LIST if line[0] == '[' else _EACH}")
    return value


_EACH = "write one object a line, each on a line of its own"
_LIST = "write the objects of a list one a line (`jq -c '.[]' list.json > rows.jsonl`)"


def _remedy(line: str, error: json.JSONDecodeError) -> str:
    if line.startswith("["):
        return _LIST
    if line == "{":
        return "write each object on one line of its own (`jq -c . objects.json > rows.jsonl`)"
    if line.startswith("\ufeff"):
        return "delete the byte order mark in front of it (are these joined files?)"
    if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
        return "choose one side of the conflict that git left"
    if not line.startswith("{"):
        return f"{_EACH}, or name the file .csv if it is a table"
    if "\r" in line:
        return "end each line with a line feed, as editors of today do"
    if error.msg.startswith(("Unterminated string", "Invalid control character")):
        return "write a line end in a text as \\n, and complete the line if it is cut off"
    if error.msg.startswith("Invalid \\"):
        return "write \\\\ for a backslash"
    if "double quotes" in error.msg:
        return "put keys and texts in double quotes, and no comma behind the last"
    return _EACH


class _NoJsonError(Exception):
    """What was found, and what to do."""


def _known_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises _NoJsonError where a key stands twice, or a value is no JSON."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _NoJsonError(f"the key {twice!r:.60} twice; leave one of them out")
    for key, value in pairs:
        if isinstance(value, _Constant):
            raise _NoJsonError(f"{value.name} in column {key!r:.60}, which is no JSON; write null, or leave it out")
    return found


_DECODER = json.JSONDecoder(
    parse_int=_Number, parse_float=_Number, parse_constant=_Constant, object_pairs_hook=_known_object
)


def _text(value: Any, column: str, where: str, columns: Columns) -> str:
    if isinstance(value, str):
        return checked_text(str(value), column, where)
    if value is None and column in columns.may_be_null:
        return ""
    raise DataError(
        f"{where}: column {column!r}: wanted a string or a number, found {_kind(value)}; write it as a string, "
        "or leave the row out"
    )


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, _Number):
        return "a number"
    if isinstance(value, _Constant):
        return value.name
    return {bool: "true or false", list: "a list", dict: "a nested object", str: "a string"}[type(value)]
