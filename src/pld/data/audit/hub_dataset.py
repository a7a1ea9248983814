"""Fetch the data that `--data` names: a file, or a data set of the Hugging Face hub, which becomes a Parquet file."""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pld.config import hub
from pld.errors import ConfigError, DataError

HUB = "hf:"
SPLIT_COLUMN = "split"
"""Added to a data set of several splits: the name of each row's split."""
_WRITTEN = "written by `pld new-task`; yours to edit (docs/reference/data-files.md)"
_TIMEOUT_S = 10.0
_ADDRESS = re.compile(r"hf:(?P<id>[\w.-]+/[\w.-]+)(?:/(?P<config>[^:/]+))?(?::(?P<split>\S+))?", re.ASCII)


@dataclass(frozen=True)
class LocalData:
    """`file`: to read; `file_name`: its name in the project; `origin`: a comment for the head of the task's file."""

    file: Path
    file_name: str
    origin: str


@contextlib.contextmanager
def downloaded(data: str, label: str) -> Iterator[LocalData]:
    """The file itself, or `hf:OWNER/DATASET[/CONFIG][:SPLIT]` as Parquet, with class names instead of numbers and
    without columns of lists or objects. Splits without labels are left out. Raises DataError if the download fails."""
    if not data.startswith(HUB):
        yield LocalData(Path(data), Path(data).name, _WRITTEN.capitalize())
        return
    address = _ADDRESS.fullmatch(data)
    if address is None:
        raise DataError(f"expected hf:OWNER/DATASET[/CONFIG][:SPLIT], got {data!r:.120} (--data); correct it")
    commit, table = _load(data, label, **address.groupdict())
    with tempfile.TemporaryDirectory() as folder:
        import pyarrow.parquet as pq

        parts = [address["id"].partition("/")[2], address["config"], address["split"]]
        name = re.sub(r"[^\w.-]+", "-", "-".join(filter(None, parts))).strip("-")
        file = Path(folder) / f"{name}.parquet"
        pq.write_table(table, file)
        yield LocalData(file, file.name, f"{data} at {commit}; {_WRITTEN}")


def _load(data: str, label: str, id: str, config: str | None, split: str | None) -> tuple[str, Any]:
    """The commit and the table of `data`."""
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            f"expected the library datasets, got no such module (--data {data}); `pip install 'pld[hub]'`, or download "
            "the file and pass it as --data"
        ) from None
    from huggingface_hub import HfApi

    datasets.logging.set_verbosity_error()
    datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = False  # it would send the data set's name to a third host
    try:
        commit = str(HfApi().dataset_info(id, timeout=_TIMEOUT_S).sha)
        found = datasets.load_dataset(id, config, split=split, revision=commit)
        splits = found if isinstance(found, dict) else {str(split): found}
        return commit, labelled_table(splits, label)
    except Exception as error:  # of the network, the hub and the parsers of a dozen formats
        raise DataError(
            f"expected a data set of the Hugging Face hub, got {hub.LoadError(error)} (--data {data}); correct the "
            "id or the network, or download the file and pass it as --data"
        ) from None


def labelled_table(splits: Any, label: str) -> Any:
    """The labelled splits as one table."""
    import pyarrow as pa

    tables = []
    for name, split in splits.items():
        table = _flat(split)
        if label not in table.column_names or table[label].null_count < len(table):
            if len(splits) > 1 and SPLIT_COLUMN not in table.column_names:
                table = table.append_column(SPLIT_COLUMN, pa.array([str(name)] * len(table)))
            tables.append(table)
    if not tables:
        raise DataError(f"no split with labels in column {label!r}")
    return pa.concat_tables(tables, promote_options="default").replace_schema_metadata(None)


def _flat(split: Any) -> Any:
    """Columns of text and whole numbers; class numbers as their names (-1: none), other plain values as text."""
    import pyarrow as pa
    import pyarrow.types as types

    table = split.with_format("arrow")[:]
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column, names = table[name], getattr(split.features[name], "names", None)
        if names is not None:
            columns[name] = pa.array([names[at] if at is not None and at >= 0 else None for at in column.to_pylist()])
        elif types.is_string(column.type) or types.is_large_string(column.type) or types.is_integer(column.type):
            columns[name] = column
        elif types.is_boolean(column.type) or types.is_floating(column.type) or types.is_temporal(column.type):
            columns[name] = column.cast(pa.string())
    return pa.table(columns)
