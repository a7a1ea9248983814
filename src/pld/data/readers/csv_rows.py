"""CSV with a header: comma, double quotes, any line ends, texts of any length; nothing is converted or trimmed."""

import csv
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from pld.data.readers.columns import Columns, Row, find_columns
from pld.data.readers.source import check_text, opened
from pld.errors import DataError
from pld.ports import OnProgress
from pld.progress import progress

_QUOTES = 'close the quotes of each text, and write "" for a quote inside one'


def csv_rows(path: Path, name: str, columns: Columns) -> Iterator[Row]:
    """Rows are numbered as a spreadsheet does (the header is row 1), with the line where quoted texts hold line ends.

    Blank lines are passed over.
    """
    with opened(path, name) as file:
        total = check_text(file, name)
        # its 128 kB would refuse a long document
        csv.field_size_limit(max(csv.field_size_limit(), os.fstat(file.fileno()).st_size))
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        with progress("reading", total) as advance:
            yield from _rows(text, name, columns, advance)


def _rows(text: TextIO, name: str, columns: Columns, advance: OnProgress) -> Iterator[Row]:
    lines: Any = csv.reader(text, strict=True)
    header: list[str] = []
    positions: list[int] = []
    found = row = above = 0
    while True:
        row += 1
        place = f"row {row}" if above + 1 == row else f"row {row} (line {above + 1})"
        try:
            cells = next(lines)
        except StopIteration:
            break
        except csv.Error as error:
            raise DataError(f"{name}: {place}: {_broken(error, text, above, header)}") from None
        spans = lines.line_num - above
        advance(spans)
        above = lines.line_num
        if not cells:
            continue
        if not header:
            header = cells
            positions = find_columns(columns, header, name, " (is there a header?)")
            continue
        if len(cells) != len(header):
            raise DataError(f"{name}: {place}: {_ragged(cells, header, spans)}")
        found += 1
        if cells == header:
            raise DataError(
                f"{name}: {place}: wanted an example, found the header again (are these joined files?); delete the row"
            )
        yield place, {column: cells[at] for column, at in zip(columns.wanted, positions, strict=True)}
    if not found:
        raise DataError(f"{name}: wanted rows below the header, found none; put examples in the file")


def _broken(error: csv.Error, text: TextIO, above: int, header: Sequence[str]) -> str:
    """`above`: lines in front of the row. The column is that of the last text which the row's first line opens."""
    fault = "one that is never closed" if "end of data" in str(error) else "one inside a text"
    text.seek(0)
    first = next(itertools.islice(text, above, None), "")
    opening = len(next(csv.reader([first]), [])) - 1
    if not header:
        return f"wanted a header, found broken quotes ({fault}); {_QUOTES}"
    column = f" in column {header[opening]!r:.60}" if opening < len(header) else ""
    return f"wanted a row of CSV, found broken quotes{column} ({fault}); {_QUOTES}"


def _ragged(cells: Sequence[str], header: Sequence[str], spans: int) -> str:
    found = f"wanted {len(header)} cells as in the header, found {len(cells)}"
    if cells[0].startswith(("<<<<<<<", "=======", ">>>>>>>")):
        return f"{found}, of a conflict that git left; choose one side"
    if spans > 1:
        return f"{found} in {spans} lines; {_QUOTES}"
    return f"{found}; put a text that holds a comma or a line end in double quotes"
