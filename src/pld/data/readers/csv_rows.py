"""Read CSV with a header: commas, double quotes, any line ends, cells of any length; nothing is converted."""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from pld.data.readers.columns import Columns, Row, find_columns, reading
from pld.data.readers.source import check_text, opened
from pld.errors import DataError
from pld.ports import OnProgress


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
    needed: tuple[str, ...] = ()
    positions: list[int] = []
    found = row = above = 0
    while True:
        row += 1
        place = f"row {row}" if above + 1 == row else f"row {row} on line {above + 1}"
        try:
            cells = next(lines, None)
        except csv.Error as error:
            raise _malformed(f"a quote that is not closed or not doubled, {error}", f"{name}: {place}") from None
        if cells is None:
            break
        advance(lines.line_num - above)
        above = lines.line_num
        if not cells:
            continue
        if not header:
            header = cells
            needed = columns.needed if columns is not None else tuple(header)
            positions = find_columns(needed, header, name)
            continue
        if len(cells) != len(header) or cells == header:
            got = "the header again" if cells == header else f"{len(cells)} instead of {len(header)} cells"
            raise _malformed(got, f"{name}: {place}")
        found += 1
        yield place, {column: cells[at] for column, at in zip(needed, positions, strict=True)}
    if not found:
        raise DataError(f"expected rows below the header, got none ({name}); add examples")


def _malformed(got: str, where: str) -> DataError:
    return DataError(
        f"expected a row of CSV, got {got} ({where}); correct or delete it (a text with a comma, quote or line end "
        "goes in double quotes, its own quotes doubled)"
    )
