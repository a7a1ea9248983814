"""Parquet: columns of text (plain or dictionary-coded) as they are, integers in decimal digits, nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pld.data.readers.columns import Columns, Row, checked_text, find_columns
from pld.data.readers.signatures import kind_of
from pld.data.readers.source import opened
from pld.errors import DataError
from pld.progress import progress

_BATCH_BYTES = 1 << 20


def parquet_rows(path: Path, name: str, columns: Columns) -> Iterator[Row]:
    """Rows are numbered from 1."""
    with opened(path, name) as source, _parquet_file(path, source.read(4096), name) as file:
        yield from _rows(file, name, columns)


def _parquet_file(path: Path, head: bytes, name: str) -> Any:
    """`head`: the file's first bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        kind, remedy = kind_of(head) or ("", "")
        if not head:
            kind, remedy = "an empty file", "write it again"
        elif head.startswith(b"PAR1"):
            kind, remedy = f"a damaged one ({_first_line(error)})", "write or copy it again"
        elif not kind:
            kind, remedy = "something else", "write it again, or name it by what it is (.csv, .jsonl)"
        raise DataError(f"{name}: wanted a Parquet file, found {kind}; {remedy}") from None


def _first_line(error: Exception) -> str:
    """Of what Arrow says, which may hold bytes of the file."""
    said = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0].rstrip(".")[:120]
    return "".join(char if char.isprintable() else "?" for char in said)


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
    if number != file.metadata.num_rows:
        raise DataError(
            f"{name}: wanted {file.metadata.num_rows} rows, as its end says, found {number}; write or copy the file "
            "again"
        )


def _batches(file: Any, columns: Columns, name: str) -> Iterator[list[list[Any]]]:
    import pyarrow as pa

    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    bytes_a_row = sum(group.total_byte_size for group in groups) // file.metadata.num_rows
    at_once = min(1024, max(1, _BATCH_BYTES // max(1, bytes_a_row)))
    try:
        for batch in file.iter_batches(batch_size=at_once, columns=list(columns.wanted)):
            yield [batch.column(column).to_pylist() for column in columns.wanted]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{name}: wanted pages of UTF-8 text, found a damaged one ({_first_line(error)}); write or copy the file "
            "again"
        ) from None


def _check_type(kind: Any, column: str, name: str) -> None:
    import pyarrow.types as types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    is_text = types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)
    if is_text or types.is_integer(plain):
        return
    if types.is_null(plain):
        found, remedy = "nulls alone", "fill it in"
    elif types.is_floating(plain):
        found, remedy = str(plain), "cast the column to text (integers with gaps become floating point in pandas)"
    elif types.is_nested(plain):
        found, remedy = str(plain), "write one text a row, in columns of their own where there are several"
    elif types.is_binary(plain) or types.is_large_binary(plain) or types.is_binary_view(plain):
        found, remedy = str(plain), "decode the bytes and write the column as text"
    else:
        found, remedy = str(plain), "cast the column to text"
    raise DataError(f"{name}: column {column!r}: wanted text or integers, found {found:.80}; {remedy}")


def _text(cell: object, column: str, where: str, columns: Columns) -> str:
    if cell is None:
        if column in columns.may_be_null:
            return ""
        raise DataError(f"{where}: column {column!r}: wanted a value, found null; fill it in or leave the row out")
    return checked_text(str(cell), column, where)
