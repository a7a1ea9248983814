"""Read the file that a task names as raw examples, one at a time, in the file's order."""

from collections.abc import Iterator

from pld.config.assets import edited_file
from pld.data.readers.benchmarks import BENCHMARKS
from pld.data.readers.contract_nli import read_contract_nli
from pld.data.readers.records import read_labelled_rows
from pld.data.splits import RawExample
from pld.task_params import ContractNliReader, RecordsReader, TaskParams


def read(task: TaskParams) -> Iterator[RawExample]:
    """Raw examples of the task's file, the one that a person edits. Raises DataError, naming file and row, for what is
    not text."""
    reader = task.reader
    if isinstance(reader, ContractNliReader):
        files = {split: str(edited_file(name)) for split, name in reader.files.items()}
        return read_contract_nli(reader, files)
    edited = {"path": str(edited_file(reader.path))}
    if isinstance(reader, RecordsReader):
        return read_labelled_rows(reader.model_copy(update=edited), task.labels)
    return BENCHMARKS[reader.format](reader.model_copy(update=edited))
