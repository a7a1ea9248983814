"""Read CSV with a header: commas, double quotes, any line ends, cells of any length; nothing is converted."""

import csv
import io
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from pld.data.readers.columns import Columns, Row, find_columns, reading
from pld.data.readers.source import check_text, opened
from pld.errors import DataError
from pld.ports import OnProgress

_QUOTES = 'close the quotes around each text, and write "" for a quote inside one'


def csv_rows(path: Path, name: str, columns: Columns | None) -> Iterator[Row]:
    """Rows are numbered as in a spreadsheet (the header is row 1), with the line where quoted texts hold line ends.

    Blank lines are skipped.
    """
    with opened(path, name) as file:
        total = check_text(file, name)
        # its 128 kB would refuse a long document
        csv.field_size_limit(max(csv.field_size_limit(), os.fstat(file.fileno()).st_size))
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        with reading(total, columns) as advance:
            yield from _rows(text, name, columns, advance)


def _rows(text: TextIO, name: str, columns: Columns | None, advance: OnProgress) -> Iterator[Row]:
    lines: Any = csv.reader(text, strict=True)
    header: list[str] = []
    wanted: tuple[str, ...] = ()
    positions: list[int] = []
    found = row = above = 0
    while True:
        row += 1
        place = f"row {row}" if above + 1 == row else f"row {row} on line {above + 1}"
        try:
            cells = next(lines)
        except StopIteration:
            break
        except csv.Error as error:
            raise DataError(_broken(error, text, above, header, f"{name}: {place}")) from None
        spans = lines.line_num - above
        advance(spans)
        above = lines.line_num
        if not cells:
            continue
        if not header:
            header = cells
            wanted = columns.wanted if columns is not None else tuple(header)
            positions = find_columns(wanted, header, name, " (is there a header?)")
            continue
        if len(cells) != len(header):
            raise DataError(_ragged(cells, header, spans, f"{name}: {place}"))
        found += 1
        if cells == header:
            raise DataError(
                f"expected an example, got a second header (were files joined?) ({name}: {place}); delete the row"
            )
        yield place, {column: cells[at] for column, at in zip(wanted, positions, strict=True)}
    if not found:
        raise DataError(f"expected rows below the header, got none ({name}); add examples")


def _broken(error: csv.Error, text: TextIO, above: int, header: Sequence[str], where: str) -> str:
    """`above`: lines before the row. The column is that of the last cell that the row's first line opens."""
    fault = "an unclosed quote" if "end of data" in str(error) else "a quote inside a text"
    text.seek(0)
    first = next(itertools.islice(text, above, None), "")
    opening = len(next(csv.reader([first]), [])) - 1
    column = f", column {header[opening]!r:.60}" if opening < len(header) else ""
    expected = "a row of CSV" if header else "a header"
    return f"expected {expected}, got {fault} ({where}{column}); {_QUOTES}"


def _ragged(cells: Sequence[str], header: Sequence[str], spans: int, where: str) -> str:
    got, remedy = f"{len(cells)}", "put a text that holds a comma or a line end in double quotes"
    if cells[0].startswith(("<<<<<<<", "=======", ">>>>>>>")):
        got, remedy = "a git conflict marker", "resolve the conflict"
    elif spans > 1:
        got, remedy = f"{len(cells)} over {spans} lines", _QUOTES
    return f"expected {len(header)} cells as in the header, got {got} ({where}); {remedy}"
