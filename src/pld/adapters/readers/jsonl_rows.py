"""JSON Lines: one object a line. Strings as they are, numbers as they are written; nothing else is text."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pld.adapters.readers.columns import Columns, Row, checked_text, find_columns
from pld.adapters.readers.source import read_text
from pld.errors import DataError
from pld.progress import progress


class _Number(str):
    """A number, kept in the digits that stand in the file (1.50 stays 1.50)."""


def json_lines(path: Path, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """("line 7", object) for each line that is not blank."""
    lines = read_text(path, name).split("\n")  # not splitlines: JSON strings may hold U+2028
    with progress("reading", len(lines)) as advance:
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
    try:
        value = json.loads(
            line,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_refuse_repeated_keys,
        )
    except (ValueError, RecursionError) as error:
        # the decoder's own "line 1" would be taken for the file's
        fault = f"{error.msg} at character {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise DataError(f"{where}: wanted one JSON object, found {fault}; write each on one line of its own") from None
    if not isinstance(value, dict):
        raise DataError(f"{where}: wanted a JSON object, found {_kind(value)}; write one object a line")
    return value


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r:.60} twice")
    return found


def _refuse_constant(constant: str) -> Any:
    raise ValueError(f"{constant}, which is no JSON")


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
    return {bool: "true or false", list: "a list", dict: "a nested object", str: "a string"}[type(value)]
