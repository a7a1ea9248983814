"""Guess from a file's columns which of them hold ids, groups or splits."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pld.data.readers.records import format_of
from pld.data.splits import SPLIT_NAMES
from pld.errors import DataError
from pld.records import SPLITS

_ID_NAME = re.compile(r"(^|[\W_])(?i:id|no|nr|num|number|key|code|ref|uuid|guid)s?$|[a-z](Id|ID|No|Nr|Key|Ref)$")
_NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}[-/.]\d\d?([-/.]\d\d?)?([T ].*)?|\d\d?[-/.]\d\d?[-/.]\d{2,4}([T ].*)?|\d\d?:\d\d.*")
SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One line about what was found and what to do, and a few instances of it."""

    text: str
    shown: tuple[str, ...] = ()

    @classmethod
    def of(cls, text: str, instances: Sequence[str]) -> "Finding":
        """Shows the first instances, and the number of the others."""
        more = len(instances) - SHOWN
        return cls(text, (*instances[:SHOWN], *([f"… and {more:,} more"] * (more > 0))))


@dataclass(frozen=True)
class Column:
    """`values`: one per row, blank ones as ""."""

    name: str
    values: Sequence[str]

    @cached_property
    def rows_of(self) -> Counter[str]:
        """For each different value the number of its rows; blanks left out."""
        counts = Counter(self.values)
        del counts[""]
        return counts

    @cached_property
    def mean_length(self) -> float:
        return sum(map(len, self.values)) / max(len(self.values), 1)

    @property
    def named_as_id(self) -> bool:
        return _ID_NAME.search(self.name) is not None

    @cached_property
    def is_quantity(self) -> bool:
        """Whether all values are dates, or all are numbers and the name isn't one of an id."""
        numbers = not self.named_as_id and all(map(_NUMBER.fullmatch, self.rows_of))
        return numbers or all(map(_DATE.fullmatch, self.rows_of))


def columns_of(path: Path) -> list[Column]:
    """The columns with text or integers of a file, a null as an empty text; none if the file can't be read."""
    try:
        rows = [row for _, row in format_of(path.name)(path, str(path), None)]
    except DataError:
        return []
    columns = []
    for name in dict.fromkeys(name for row in rows for name in row):
        cells = [row.get(name) for row in rows]
        if all(cell is None or isinstance(cell, str) or type(cell) is int for cell in cells):
            texts = ("" if cell is None else str(cell) for cell in cells)
            columns.append(Column(name, [text if text.strip() else "" for text in texts]))
    return columns


def looks_like_group(column: Column, is_text: bool) -> bool:
    """Whether the values look like the documents (customers, threads) that rows come from: many, most of them in few
    rows, a share of them in several; not quantities, dates or categories. An input text may also be what rows share,
    such as a clause that several questions are asked about."""
    rows, sizes = len(column.values), column.rows_of.values()
    return (
        len(sizes) >= 10
        and sum(size for size in sizes if size > 1) >= rows / 20
        and max(sizes) <= max(rows / 5, 2)
        and rows - sum(sizes) <= rows / 2
        and not column.is_quantity
        and (is_text or column.mean_length <= 80)
    )


def looks_like_id(column: Column) -> bool:
    """Whether the values look like names of the rows: all different, short, without spaces, not quantities."""
    return (
        len(column.values) == len(column.rows_of) > 1
        and not any(any(map(str.isspace, value)) for value in column.values)
        and column.mean_length <= 64
        and not column.is_quantity
    )


def column_hints(
    columns: Sequence[Column], texts: Sequence[str], has_id: bool, has_group: bool, has_split: bool
) -> Iterator[Finding]:
    """Columns that could be named with --split, --group and --id. `texts`: the input columns."""
    of_splits = [(column.name, missing) for column in columns if (missing := _missing_split(column)) is not None]
    if of_splits and not has_split:
        name, missing = of_splits[0]
        also = f" --derive {missing}" if missing else ""
        yield Finding(f"the values of {name!r} name splits: --split {shlex.quote(name)}{also} keeps the data's own")
    if not has_group and not has_split:
        found = [column for column in columns if looks_like_group(column, column.name in texts)]
        if len(texts) == 1:  # repetitions of the only input are merged
            found = [column for column in found if column.name not in texts]
        found.sort(key=lambda column: (not column.named_as_id, -column.mean_length))  # documents are long
        if found:
            yield Finding.of(
                "rows that share a value of a column below may end up in different splits: if they belong together "
                "(one document, customer or thread), name the column",
                [f"--group {shlex.quote(column.name)}: {_sizes(column)}" for column in found],
            )
    ids = sorted(
        (column for column in columns if looks_like_id(column) and column.name not in texts),
        key=lambda column: not column.named_as_id,
    )
    if ids and not has_id:
        yield Finding(
            f"no two values of {ids[0].name!r} are the same: with --id {shlex.quote(ids[0].name)} reports name "
            "examples by it instead of by a hash of their text"
        )


def _missing_split(column: Column) -> str | None:
    """The held-out split that the values lack, "" if they name all splits; None where they don't name splits."""
    named = {SPLIT_NAMES.get(value.strip().lower()) for value in column.rows_of}
    missing = set(SPLITS) - named
    is_one = named <= set(SPLITS) and "train" in named and len(missing) < 2
    return "".join(missing) if is_one else None


def _sizes(column: Column) -> str:
    sizes = column.rows_of.values()
    mean = sum(sizes) / len(sizes)
    about = f"about {mean:.0f}" if mean >= 1.95 else f"{mean:.1f}"
    return f"{len(sizes):,} different values, {about} rows each, {max(sizes):,} at most"
