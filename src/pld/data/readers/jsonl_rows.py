"""Read JSON Lines, one object a line: strings as they are, numbers as written."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pld.data.readers.columns import Columns, Row, find_columns, reading, text_of
from pld.data.readers.source import check_text, opened
from pld.errors import DataError


class Number(str):
    """A number as written in the file (1.50 stays 1.50)."""


class _Constant(Number):
    """NaN, Infinity or -Infinity, which Python's json module writes."""


def jsonl_rows(path: Path, name: str, columns: Columns | None) -> Iterator[Row]:
    """("line 7", object) for each line that is not blank; the wanted columns as text, or without `columns` all keys
    with the values as decoded (numbers as `Number`)."""
    with opened(path, name) as file:
        total = check_text(file, name)
        lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="\n")
        with reading(total, columns) as advance:
            checked = False
            for number, line in enumerate(lines, 1):
                advance(1)
                if not line.strip():
                    continue
                where = f"{name}: line {number}"
                found = _object(line, where)
                if columns is not None:
                    if checked is False or not columns.lenient:
                        find_columns(columns.wanted, list(found), where)
                        checked = True
                    found = {column: text_of(found.get(column), column, where, columns) for column in columns.wanted}
                yield f"line {number}", found


def _object(line: str, where: str) -> dict[str, Any]:
    line = line.strip()
    try:
        value = _DECODER.decode(line)
    except RecursionError:
        raise DataError(
            f"expected one JSON object, got lists or objects nested too deeply ({where}); leave that part out"
        ) from None
    except json.JSONDecodeError as error:
        # the decoder's own "line 1" would be taken for the file's
        found = f"{error.msg[0].lower()}{error.msg[1:].removesuffix(' at')} at character {error.pos + 1}"
        raise DataError(f"expected one JSON object, got bad JSON, {found} ({where}); {_remedy(line, error)}") from None
    except _NoJsonError as error:
        got, remedy = error.args
        raise DataError(f"expected one JSON object, got {got} ({where}); {remedy}") from None
    if not isinstance(value, dict):
        kind = "a list" if line[0] == "[" else "a single value"
        raise DataError(f"expected a JSON object, got {kind} ({where}); {_LIST if line[0] == '[' else _EACH}")
    return value


_EACH = "write one object per line"
_LIST = "write the objects of the list one per line (`jq -c '.[]' list.json > rows.jsonl`)"


def _remedy(line: str, error: json.JSONDecodeError) -> str:
    if line.startswith("["):
        return _LIST
    if line == "{":
        return "write each object on one line (`jq -c . objects.json > rows.jsonl`)"
    if line.startswith("\ufeff"):
        return "delete the byte order mark before it (were files joined?)"
    if line.startswith(("<<<<<<<", "=======", ">>>>>>>")):
        return "resolve the git conflict"
    if not line.startswith("{"):
        return f"{_EACH}, or name the file .csv if it is a table"
    if "\r" in line:
        return "end each line with a line feed"
    if error.msg.startswith(("Unterminated string", "Invalid control character")):
        return "write a line end in a text as \\n, and complete the line if it is cut off"
    if error.msg.startswith("Invalid \\"):
        return "write \\\\ for a backslash"
    if "double quotes" in error.msg:
        return "put keys and texts in double quotes, and no comma after the last"
    return _EACH


class _NoJsonError(Exception):
    """Arguments: what the line has instead, and what to do."""


def _known_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises _NoJsonError for a repeated key, and for a value that is not JSON."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _NoJsonError(f"the key {twice!r:.60} twice", "delete one of them")
    for key, value in pairs:
        if isinstance(value, _Constant):
            raise _NoJsonError(f"{value}, which is not JSON, in column {key!r:.60}", "write null, or leave the key out")
    return found


_DECODER = json.JSONDecoder(
    parse_int=Number, parse_float=Number, parse_constant=_Constant, object_pairs_hook=_known_object
)
