"""Read Parquet: columns of text (plain or dictionary-encoded) as they are, integers as decimal digits, the fields of
structs as dotted columns."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pld.data.readers.columns import Columns, Row, find_columns, reading, text_of
from pld.data.readers.source import opened
from pld.errors import DataError

_BATCH_ROWS = 64


def parquet_rows(path: Path, name: str, columns: Columns | None) -> Iterator[Row]:
    """Rows are numbered from 1. Without `columns` all are read, with values of any type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with opened(path, name):
        try:
            with pq.ParquetFile(path) as file:
                yield from _rows(file, name, columns)
        except (pa.ArrowException, OSError, ValueError) as error:
            said = "".join(
                char if char.isprintable() else "?" for char in str(error).splitlines()[0].partition(". ")[0]
            )
            raise DataError(
                f"expected a Parquet file, got another format or a damaged file, {said} ({name}); write or copy it "
                "again, or name it by its format (.csv, .jsonl)"
            ) from None


def _rows(file: Any, name: str, columns: Columns | None) -> Iterator[Row]:
    schema = _flat(file.schema_arrow.empty_table()).schema
    needed = columns.needed if columns is not None else tuple(schema.names)
    find_columns(needed, schema.names, name)
    if columns is not None:
        for column in needed:
            _check_type(schema.field(column).type, column, name)
    if not file.metadata.num_rows:
        raise DataError(f"expected rows, got none ({name}); add examples")
    number = 0
    read = [column for column in file.schema_arrow.names if any(f"{path}.".startswith(f"{column}.") for path in needed)]
    with reading(file.metadata.num_rows, columns) as advance:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=read):
            table = _flat(batch)
            for cells in zip(*(table.column(column).to_pylist() for column in needed), strict=True):
                number += 1
                row = dict(zip(needed, cells, strict=True))
                if columns is not None:
                    where = f"{name}: row {number}"
                    row = {column: text_of(cell, column, where, columns) for column, cell in row.items()}
                yield f"row {number}", row
            advance(len(batch))


def _flat(table: Any) -> Any:
    """A batch or table with the fields of structs as dotted columns."""
    import pyarrow as pa
    import pyarrow.types as types

    while any(types.is_struct(column.type) and len(column.type) for column in table.schema):
        table = (table if isinstance(table, pa.Table) else pa.Table.from_batches([table])).flatten()
    return table


def _check_type(kind: Any, column: str, name: str) -> None:
    import pyarrow.types as types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    if not any(
        is_one(kind) for is_one in (types.is_string, types.is_large_string, types.is_string_view, types.is_integer)
    ):
        raise DataError(
            f"expected text or integers, got {kind!s:.80} ({name}: column {column!r}); write the column as text"
        )
