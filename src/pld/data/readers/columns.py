"""The columns that a task names, looked up in what a file has."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pld.data.splits import plain
from pld.errors import DataError

Row = tuple[str, dict[str, str]]
"""Where it stands ("row 7"), and the text of each wanted column."""


@dataclass(frozen=True)
class Columns:
    """`may_be_null`: those of `wanted` where a null is read as an empty text."""

    wanted: tuple[str, ...]
    may_be_null: frozenset[str]


def find_columns(columns: Columns, found: Sequence[str], where: str, unknown: str = "") -> list[int]:
    """Position of each wanted column in `found`. `unknown`: what may be wrong where none of them is there."""
    for name in columns.wanted:
        if name not in found:
            guess = _meant(name, found) or ("" if set(columns.wanted) & set(found) else unknown)
            raise DataError(
                f"{where}: wanted a column {name!r}, found {', '.join(map(repr, found)) or 'none':.300}{guess}; "
                "correct reader in conf/task/, or the file"
            )
        if found.count(name) > 1:
            raise DataError(
                f"{where}: wanted one column {name!r}, found {found.count(name)} of that name; rename the others"
            )
    return [found.index(name) for name in columns.wanted]


def _meant(name: str, found: Sequence[str]) -> str:
    """A guess at what is wrong, in brackets."""
    if found and found[0].startswith("sep="):
        return " (delete the line that Excel put above the header)"
    if len(found) == 1 and any(mark in found[0] for mark in ";\t|"):
        return " (separated by something else than commas?)"
    for column in found:
        if plain(column) == plain(name):
            return f" ({column!a:.60} has blanks, invisible characters or another Unicode form)"
    near = difflib.get_close_matches(name, [column for column in found if len(column) < 200], n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


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
