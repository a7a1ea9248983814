"""What the values of a file's columns look like: ids, groups, splits."""

import re
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from pld.data.readers.records import format_of
from pld.data.splits import SPLIT_NAMES
from pld.errors import DataError
from pld.records import SPLITS, Split

_ID_NAME = re.compile(r"(^|[\W_])(id|no|nr|num|number|key|code|ref|uuid|guid)s?$", re.IGNORECASE)
_CAMEL_ID = re.compile(r"[a-z](Id|ID|No|Nr|Key|Ref)$")
_NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}[-/.]\d\d?([-/.]\d\d?)?([T ].*)?|\d\d?[-/.]\d\d?[-/.]\d{2,4}([T ].*)?|\d\d?:\d\d.*")
_BLANK = 0
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


@dataclass
class Column:
    """`codes` [rows]: equal numbers for equal values, so that no text is held; `numbers`, `dates`: all values look like
    that; `words`: one has a space; `splits`: the splits that values name, None among them if one names none."""

    name: str
    codes: list[int] = field(default_factory=list)
    length: int = 0
    numbers: bool = True
    dates: bool = True
    words: bool = False
    splits: set[Split | None] = field(default_factory=set)

    def add(self, value: str) -> None:
        self.length += len(value)
        if not value.strip():
            self.codes.append(_BLANK)
            return
        self.codes.append(hash(value))
        self.numbers = self.numbers and bool(_NUMBER.fullmatch(value))
        self.dates = self.dates and bool(_DATE.fullmatch(value))
        self.words = self.words or any(map(str.isspace, value))
        if None not in self.splits:
            self.splits.add(SPLIT_NAMES.get(value.strip().lower()))

    @cached_property
    def sizes(self) -> list[int]:
        """For each different value the number of its rows; blanks left out."""
        return [size for code, size in Counter(self.codes).items() if code != _BLANK]

    @property
    def mean_length(self) -> float:
        return self.length / max(len(self.codes), 1)

    @property
    def named_as_id(self) -> bool:
        return bool(_ID_NAME.search(self.name) or _CAMEL_ID.search(self.name))


def columns_of(path: Path) -> list[Column]:
    """The columns of a file that can be read; a null is an empty text. Columns with lists, nested objects, fractions
    and the like are left out, and all of them in a file where two columns have the same name."""
    columns: dict[str, Column] = {}
    other: set[str] = set()
    try:
        for number, (_, row) in enumerate(format_of(path.name)(path, str(path), None)):
            for name in row:
                if name not in columns and name not in other:
                    columns[name] = Column(name, [_BLANK] * number)
            for name in list(columns):
                value = row.get(name)
                if value is None or isinstance(value, str) or type(value) is int:
                    columns[name].add("" if value is None else str(value))
                else:
                    other.add(name)
                    del columns[name]
    except DataError:
        return []
    return list(columns.values())


def looks_like_group(column: Column, is_text: bool) -> bool:
    """Whether the values look like the documents (customers, threads) that rows come from: many, most of them in few
    rows, a share of them in several; not quantities, dates or categories. An input text may also be what rows share,
    such as a clause that several questions are asked about."""
    rows = len(column.codes)
    return (
        len(column.sizes) >= 10
        and sum(size for size in column.sizes if size > 1) >= rows / 20
        and max(column.sizes) <= max(rows / 5, 2)
        and rows - sum(column.sizes) <= rows / 2
        and not column.dates
        and (not column.numbers or column.named_as_id)
        and (is_text or column.mean_length <= 80)
    )


def looks_like_id(column: Column) -> bool:
    """Whether the values look like names of the rows: all different, short, without spaces, not quantities."""
    return (
        len(column.codes) == len(column.sizes) > 1
        and not column.words
        and not column.dates
        and column.mean_length <= 64
        and (not column.numbers or column.named_as_id)
    )


def column_hints(
    columns: Sequence[Column], texts: Sequence[str], has_id: bool, has_group: bool, has_split: bool
) -> Iterator[Finding]:
    """Columns that could be named with --split, --group and --id. `texts`: the input columns."""
    of_splits = [column.name for column in columns if column.splits == set(SPLITS)]
    if of_splits and not has_split:
        yield Finding(
            f"the values of {of_splits[0]!r} name splits: --split {shlex.quote(of_splits[0])} keeps the data's own"
        )
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


def _sizes(column: Column) -> str:
    mean = sum(column.sizes) / len(column.sizes)
    about = f"about {mean:.0f}" if mean >= 1.95 else f"{mean:.1f}"
    return f"{len(column.sizes):,} different values, {about} rows each, {max(column.sizes):,} at most"
