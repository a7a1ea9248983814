"""Examples that the caller holds in memory (a DataFrame, records, pairs) as rows of text, ready to be written."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pld.data.readers.columns import flattened
from pld.data.splits import split_of
from pld.errors import ConfigError, DataError
from pld.records import inputs_id

if TYPE_CHECKING:
    import pandas as pd

Examples: TypeAlias = "pd.DataFrame | Sequence[Mapping[str, Any]] | Sequence[tuple[str, str]]"
"""A DataFrame, records by column name, or (text, label) pairs."""
SPLIT_COLUMN = "split by share"
"""The column that `add_splits` adds."""


def rows_of(examples: Any, columns: Sequence[str], label: str, others: Sequence[str]) -> list[dict[str, str]]:
    """Column → text of each example. Raises DataError that names the example."""
    needed = (*columns, label, *others)
    if label in columns:
        raise ConfigError(
            f"expected a label column that is no text column, got {label!r}, which would show the label to the Student "
            "(text); leave it out"
        )
    if hasattr(examples, "columns"):
        if any(column not in examples.columns for column in needed):
            raise DataError(
                f"expected the columns {', '.join(needed)}, got {', '.join(map(str, examples.columns)):.300} "
                "(examples); name them: text=..., label=..."
            )
        examples = examples.loc[:, list(dict.fromkeys(needed))].astype(object).to_dict("records")
    if isinstance(examples, str | Path | Mapping) or not hasattr(examples, "__iter__"):
        raise DataError(
            f"expected a DataFrame, or a sequence of records or (text, label) pairs, got {type(examples).__name__} "
            "(examples); read a file first, as with pandas.read_csv"
        )
    rows = []
    for number, item in enumerate(examples):
        if isinstance(item, tuple) and len(item) == len(needed) == 2:
            item = dict(zip(needed, item, strict=True))
        if not isinstance(item, Mapping):
            raise DataError(
                f"expected a record with {', '.join(needed)}, or (text, label), got {type(item).__name__} "
                f"(examples[{number}])"
            )
        try:
            cells = flattened(item)
        except ValueError as error:
            raise DataError(f"expected a record, got {error} (examples[{number}]); rename one") from None
        rows.append({column: _cell(cells.get(column), column, number) for column in needed})
    if not rows:
        raise DataError("expected labelled examples, got none (examples)")
    return rows


def _cell(value: Any, column: str, number: int) -> str:
    """Texts as they are, numbers as they print."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float) and value == value:
        return str(value)
    kind = "nothing" if value is None or str(value) in ("nan", "<NA>", "NaT") else type(value).__name__
    raise DataError(
        f"expected text, got {kind} (examples[{number}], column {column!r}); fill it in or leave the example out"
    )


def add_splits(
    rows: Sequence[dict[str, str]],
    fields: Mapping[str, str],
    id: str | None,
    group: str | None,
    validation: float,
    test: float,
) -> None:
    """The project's split by hash with other shares; every row of the same input goes where the first one goes."""
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise ConfigError(
            f"expected shares above 0 that leave some for training, got validation {validation} and test {test} "
            "(distill)"
        )
    first: dict[str, str] = {}
    for row in rows:
        identity = inputs_id({field: row[column] for field, column in fields.items()})
        key = row[group] if group else row[id] if id else identity
        row[SPLIT_COLUMN] = first.setdefault(identity, split_of(key, 1 - validation - test, 1 - test))


@contextlib.contextmanager
def named_as_examples(path: Path) -> Iterator[None]:
    """DataErrors that name a line of the written file name the example instead."""
    try:
        yield
    except DataError as error:
        message = re.sub(r"\bline (\d+)", lambda found: f"examples[{int(found[1]) - 1}]", str(error))
        raise DataError(message.replace(f"{path}: ", "").replace(str(path), "examples")) from None
