"""The file that a task names → raw examples, one at a time, in the file's order."""

from collections.abc import Callable, Iterator, Mapping

from pld.config.assets import edited_file
from pld.data.readers.contract_nli import read_contract_nli
from pld.data.readers.logiqa import read_logiqa
from pld.data.readers.privacy_policy import read_privacy_policy
from pld.data.readers.records import read_records
from pld.data.readers.stereoset_bias import read_stereoset_bias
from pld.data.readers.stereoset_stance import read_stereoset_stance
from pld.data.splits import RawExample
from pld.params import BenchmarkReader, ContractNliReader, RecordsReader, TaskParams

BENCHMARKS: Mapping[str, Callable[[BenchmarkReader], Iterator[RawExample]]] = {
    "stereoset_bias": read_stereoset_bias,
    "stereoset_stance": read_stereoset_stance,
    "logiqa": read_logiqa,
    "privacy_policy": read_privacy_policy,
}


def read(task: TaskParams) -> Iterator[RawExample]:
    """Raw examples of the task's file, as a person edits it. Raises DataError, naming file and row, for what can't be
    read as text."""
    reader = task.reader
    if isinstance(reader, ContractNliReader):
        files = {split: str(edited_file(name)) for split, name in reader.files.items()}
        return read_contract_nli(reader, files)
    edited = {"path": str(edited_file(reader.path))}
    if isinstance(reader, RecordsReader):
        return read_records(reader.model_copy(update=edited), task.labels)
    return BENCHMARKS[reader.format](reader.model_copy(update=edited))
