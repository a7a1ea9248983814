"""Look up the columns that a task names, in nested rows by dotted paths, and check that their cells are text."""

import contextlib
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pld.data.splits import plain
from pld.errors import DataError
from pld.progress import progress

Row = tuple[str, dict[str, Any]]
"""Its place in the file ("row 7"), and its cells by column."""


@dataclass(frozen=True)
class Columns:
    """`needed`: read as text; `may_be_null`: those of them where a null is read as an empty text. `lenient`: a JSON
    line without text in a needed column has an empty one there, instead of being refused."""

    needed: tuple[str, ...]
    may_be_null: frozenset[str] = frozenset()
    lenient: bool = False


def flattened(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with the keys of its objects as dotted columns: {"input": {"text": "x"}} → {"input.text": "x"}. Raises
    ValueError where a key and a path have the same name."""
    if not any(isinstance(value, Mapping) for value in row.values()):
        return dict(row)
    found: dict[str, Any] = {}
    for key, value in row.items():
        inner = flattened(value) if isinstance(value, Mapping) and value else None
        columns = {key: value} if inner is None else {f"{key}.{name}": cell for name, cell in inner.items()}
        if twice := found.keys() & columns:
            raise ValueError(f"both a key and a path of the name {min(twice)!r:.60}")
        found |= columns
    return found


def nested(row: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flattened`: dotted columns become keys of an object where the row `like` has one there."""
    found: dict[str, Any] = {}
    for column, cell in row.items():
        first, _, rest = column.partition(".")
        if rest and column not in like and isinstance(like.get(first), Mapping):
            found.setdefault(first, {})[rest] = cell
        else:
            found[column] = cell
    return {
        key: nested(cell, like[key]) if key not in row and isinstance(cell, Mapping) else cell
        for key, cell in found.items()
    }


def find_columns(needed: Sequence[str], found: Sequence[str], where: str) -> list[int]:
    """Position of each needed column in `found`. Raises DataError for one that is missing or there twice."""
    for name in needed:
        if name not in found:
            near = [column for column in found if plain(column) == plain(name)]
            near += difflib.get_close_matches(name, [column for column in found if len(column) < 200], n=1)
            guess = f" (did you mean {near[0]!a:.60}?)" if near else ""
            raise DataError(
                f"expected a column {name!r}, got {', '.join(map(repr, found)) or 'none':.300}{guess} ({where}); "
                "correct the name in the task or in the file (CSV needs commas and a header)"
            )
        if found.count(name) > 1:
            raise DataError(
                f"expected one column {name!r}, got {found.count(name)} of that name ({where}); rename the others"
            )
    return [found.index(name) for name in needed]


def text_of(cell: object, column: str, where: str, columns: Columns) -> str:
    """The cell of a needed column as text; `where`: file and row."""
    if isinstance(cell, str) or type(cell) is int:
        return checked_text(str(cell), column, where)
    if columns.lenient or (cell is None and column in columns.may_be_null):
        return ""
    kind = "null" if cell is None else f"a {type(cell).__name__}"
    raise DataError(
        f"expected text or a number, got {kind} ({where}, column {column!r}); write it as text, or delete the row"
    )


def checked_text(value: str, column: str, where: str) -> str:
    """`value`, unless it holds what UTF-8 text can't: a NUL or half of a surrogate pair."""
    try:
        if "\x00" not in value and (value.isascii() or value.encode()):
            return value
    except UnicodeEncodeError:
        pass
    raise DataError(
        f"expected Unicode text, got a NUL character or half of a surrogate pair ({where}, column {column!r}); delete "
        "the character"
    )


def reading(total: int, columns: Columns | None) -> contextlib.AbstractContextManager[Callable[[int], object]]:
    """A progress bar where needed columns are read; none where all are, since another task's bar is shown there."""
    return progress("reading", total) if columns is not None else contextlib.nullcontext(lambda _: None)
