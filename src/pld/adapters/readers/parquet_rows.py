"""Parquet: columns of text (plain or dictionary-coded) as they are, integers in decimal digits, nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pld.adapters.readers.columns import Columns, Row, checked_text, find_columns
from pld.errors import DataError
from pld.progress import progress


def parquet_rows(path: Path, name: str, columns: Columns) -> Iterator[Row]:
    """Rows are numbered from 1."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{name}: wanted a Parquet file, found {first:.120}; write it again") from None
    with file:
        yield from _rows(file, name, columns)


def _rows(file: Any, name: str, columns: Columns) -> Iterator[Row]:
    find_columns(columns, file.schema_arrow.names, name)
    for column in columns.wanted:
        _check_type(file.schema_arrow.field(column).type, column, name)
    if not file.metadata.num_rows:
        raise DataError(f"{name}: wanted rows, found none; put examples in the file")
    number = 0
    with progress("reading", file.metadata.num_rows) as advance:
        for batch in _batches(file, columns, name):
            for cells in zip(*batch, strict=True):
                number += 1
                place = f"row {number}"
                where = f"{name}: {place}"
                named = zip(columns.wanted, cells, strict=True)
                yield place, {column: _text(cell, column, where, columns) for column, cell in named}
            advance(len(batch[0]))


def _batches(file: Any, columns: Columns, name: str) -> Iterator[list[list[Any]]]:
    import pyarrow as pa

    try:
        for batch in file.iter_batches(batch_size=1024, columns=list(columns.wanted)):
            yield [batch.column(column).to_pylist() for column in columns.wanted]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = str(error).splitlines()[0]
        raise DataError(f"{name}: wanted pages of UTF-8 text, found {first:.120}; write the file again") from None


def _check_type(kind: Any, column: str, name: str) -> None:
    import pyarrow.types as types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    is_text = types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)
    if not is_text and not types.is_integer(plain):
        raise DataError(
            f"{name}: column {column!r}: wanted text or integers, found {plain}; cast the column to text "
            "(integers with gaps become floating point in pandas)"
        )


def _text(cell: object, column: str, where: str, columns: Columns) -> str:
    if cell is None:
        if column in columns.may_be_null:
            return ""
        raise DataError(f"{where}: column {column!r}: wanted a value, found null; fill it in or leave the row out")
    return checked_text(str(cell), column, where)
