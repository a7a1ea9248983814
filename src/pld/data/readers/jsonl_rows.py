"""Read JSON Lines, one object a line: strings as they are, numbers as written, nested objects as dotted columns."""

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pld.data.readers.columns import Columns, Row, find_columns, flattened, reading, text_of
from pld.data.readers.source import check_text, opened
from pld.errors import DataError


class Number(str):
    """A number as written in the file (1.50 stays 1.50)."""


def jsonl_rows(path: Path, name: str, columns: Columns | None) -> Iterator[Row]:
    """("line 7", object) for each line that is not blank; the needed columns as text, or without `columns` all keys
    with the values as decoded (numbers as `Number`, lists and empty objects too)."""
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
                found = _object(line.strip(), where)
                if columns is not None:
                    found |= _cells_of_nulls(found, columns.needed)
                    if not (checked and columns.lenient):
                        find_columns(columns.needed, list(found), where)
                        checked = True
                    found = {column: text_of(found.get(column), column, where, columns) for column in columns.needed}
                yield f"line {number}", found


def _cells_of_nulls(found: dict[str, Any], needed: Sequence[str]) -> dict[str, None]:
    """A null for each needed column within an object that is null in this line."""
    nulls = tuple(f"{name}." for name, cell in found.items() if cell is None)
    return {name: None for name in needed if name not in found and name.startswith(nulls)}


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        value = _DECODER.decode(line)
        if isinstance(value, dict):
            return flattened(value)
    except json.JSONDecodeError as error:
        # the decoder's own "line 1" would be taken for the file's
        fault = f"bad JSON, {error.msg[0].lower()}{error.msg[1:].removesuffix(' at')} at character {error.pos + 1}"
    except RecursionError:
        fault = "lists or objects nested too deeply"
    except ValueError as error:
        fault = str(error)
    else:
        fault = "a list" if isinstance(value, list) else "a single value"
    remedy = "convert it with `jq -c '.[]' list.json > rows.jsonl`" if line.startswith("[") else "correct the line"
    raise DataError(f"expected one JSON object per line, got {fault} ({where}); {remedy}")


def _known_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key twice")
    return found


def _refuse_constant(constant: str) -> None:
    """NaN and Infinity, which Python's json module writes."""
    raise ValueError(f"{constant}, which is not JSON")


_DECODER = json.JSONDecoder(
    parse_int=Number, parse_float=Number, parse_constant=_refuse_constant, object_pairs_hook=_known_object
)
