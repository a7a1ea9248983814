"""The columns that a task names, looked up in what a file has."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pld.errors import DataError

Row = tuple[str, dict[str, str]]
"""Where it stands ("row 7"), and the text of each wanted column."""


@dataclass(frozen=True)
class Columns:
    """`may_be_null`: those of `wanted` where a null is read as an empty text."""

    wanted: tuple[str, ...]
    may_be_null: frozenset[str]


def find_columns(columns: Columns, found: Sequence[str], where: str) -> list[int]:
    """Position of each wanted column in `found`."""
    for name in columns.wanted:
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            if len(found) == 1 and any(mark in found[0] for mark in ";\t|"):
                hint = " (separated by something else than commas?)"
            raise DataError(
                f"{where}: wanted a column {name!r}, found {', '.join(map(repr, found)):.300}{hint}; "
                "correct reader in conf/task/, or the file"
            )
        if found.count(name) > 1:
            raise DataError(
                f"{where}: wanted one column {name!r}, found {found.count(name)} of that name; rename the others"
            )
    return [found.index(name) for name in columns.wanted]


def checked_text(value: str, column: str, where: str) -> str:
    """`value`, unless it holds what UTF-8 text can't: a NUL or half of a surrogate pair."""
    if "\x00" in value:
        raise DataError(f"{where}: column {column!r}: wanted text, found a NUL character; delete it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"{where}: column {column!r}: wanted Unicode text, found half of a surrogate pair "
                f"(\\u{ord(value[error.start]):04x}); correct or delete the character"
            ) from None
    return value
