"""CSV with a header: comma, double quotes, any line ends, texts of any length; nothing is converted or trimmed."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pld.adapters.readers.columns import Columns, Row, find_columns
from pld.adapters.readers.source import read_text
from pld.errors import DataError
from pld.ports import OnProgress
from pld.progress import progress


def csv_rows(path: Path, name: str, columns: Columns) -> Iterator[Row]:
    """Rows are numbered as a spreadsheet does (the header is row 1), with the line where quoted texts hold line ends.

    Blank lines are passed over.
    """
    text = read_text(path, name)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # its 128 kB would refuse a long document
    total = text.count("\n") or text.count("\r")
    del text  # the second reading, line by line, takes a quarter of the memory of io.StringIO
    with path.open(encoding="utf-8-sig", newline="") as file, progress("reading", total) as advance:
        yield from _rows(csv.reader(file, strict=True), name, columns, advance)


def _rows(lines: Any, name: str, columns: Columns, advance: OnProgress) -> Iterator[Row]:
    try:
        header = next(lines)
    except csv.Error as error:
        raise DataError(f"{name}: row 1: wanted a header, found broken quotes ({error}); mend the line") from None
    positions = find_columns(columns, header, name)
    row, above, found = 1, lines.line_num, 0
    while True:
        row += 1
        place = f"row {row}" if above + 1 == row else f"row {row} (line {above + 1})"
        try:
            cells = next(lines)
        except StopIteration:
            break
        except csv.Error as error:
            raise DataError(
                f"{name}: {place}: wanted a row of CSV, found broken quotes ({error}); close the quotes of each "
                'text, and write "" for a quote inside one'
            ) from None
        advance(lines.line_num - above)
        above = lines.line_num
        if not cells:
            continue
        if len(cells) != len(header):
            raise DataError(
                f"{name}: {place}: wanted {len(header)} cells as in the header, found {len(cells)}; "
                "put a text that holds a comma or a line end in double quotes"
            )
        found += 1
        yield place, {column: cells[at] for column, at in zip(columns.wanted, positions, strict=True)}
    if not found:
        raise DataError(f"{name}: wanted rows below the header, found none; put examples in the file")
