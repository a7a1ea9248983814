"""Read Parquet: columns of text (plain or dictionary-encoded) as they are, integers as decimal digits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pld.data.readers.columns import Columns, Row, find_columns, reading, text_of
from pld.data.readers.source import kind_of, opened
from pld.errors import DataError

_BATCH_BYTES = 1 << 20


def parquet_rows(path: Path, name: str, columns: Columns | None) -> Iterator[Row]:
    """Rows are numbered from 1. Without `columns` all are read, with values of any type."""
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
            kind, remedy = f"a damaged one, {_first_line(error)}", "write or copy it again"
        elif not kind:
            kind, remedy = "another format", "write it again, or name it by its format (.csv, .jsonl)"
        raise DataError(f"expected a Parquet file, got {kind} ({name}); {remedy}") from None


def _first_line(error: Exception) -> str:
    """Of Arrow's message, which may hold bytes of the file."""
    said = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0].rstrip(".")[:120]
    return "".join(char if char.isprintable() else "?" for char in said)


def _rows(file: Any, name: str, columns: Columns | None) -> Iterator[Row]:
    names = file.schema_arrow.names
    wanted = columns.wanted if columns is not None else tuple(names)
    find_columns(wanted, names, name)
    if columns is not None:
        for column in wanted:
            _check_type(file.schema_arrow.field(column).type, column, name)
    total = file.metadata.num_rows
    if not total:
        raise DataError(f"expected rows, got none ({name}); add examples")
    number = 0
    with reading(total, columns) as advance:
        for batch in _batches(file, wanted, name):
            for cells in zip(*batch, strict=True):
                number += 1
                row = dict(zip(wanted, cells, strict=True))
                if columns is not None:
                    where = f"{name}: row {number}"
                    row = {column: text_of(cell, column, where, columns) for column, cell in row.items()}
                yield f"row {number}", row
            advance(len(batch[0]))
    if number != total:
        raise DataError(f"expected {total} rows as in the footer, got {number} ({name}); write or copy the file again")


def _batches(file: Any, wanted: Sequence[str], name: str) -> Iterator[list[list[Any]]]:
    import pyarrow as pa

    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    bytes_a_row = sum(group.total_byte_size for group in groups) // file.metadata.num_rows
    at_once = min(1024, max(1, _BATCH_BYTES // max(1, bytes_a_row)))
    try:
        for batch in file.iter_batches(batch_size=at_once, columns=list(wanted)):
            yield [batch.column(column).to_pylist() for column in wanted]
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        got = f"a damaged page, {_first_line(error)}"
        raise DataError(f"expected UTF-8 text, got {got} ({name}); write or copy the file again") from None


def _check_type(kind: Any, column: str, name: str) -> None:
    import pyarrow.types as types

    plain = kind.value_type if types.is_dictionary(kind) else kind
    is_text = types.is_string(plain) or types.is_large_string(plain) or types.is_string_view(plain)
    if is_text or types.is_integer(plain):
        return
    if types.is_null(plain):
        found, remedy = "only nulls", "fill it in"
    elif types.is_floating(plain):
        found, remedy = str(plain), "cast the column to text (integers with gaps become floating point in pandas)"
    elif types.is_nested(plain):
        found, remedy = str(plain), "write one text per row, and several texts as several columns"
    elif types.is_binary(plain) or types.is_large_binary(plain) or types.is_binary_view(plain):
        found, remedy = str(plain), "decode the bytes and write the column as text"
    else:
        found, remedy = str(plain), "cast the column to text"
    raise DataError(f"expected text or integers, got {found:.80} ({name}: column {column!r}); {remedy}")
