"""The file that a task names → raw examples, one at a time, in the file's order."""

from collections.abc import Iterator

from pld.adapters.readers.records import read_records
from pld.adapters.readers.stereoset_bias import read_stereoset_bias
from pld.method.splits import RawExample
from pld.params import RecordsReader, TaskParams


def read(task: TaskParams) -> Iterator[RawExample]:
    """Raw examples of the task's file. Raises DataError, naming file and row, for what can't be read as text."""
    if isinstance(task.reader, RecordsReader):
        return read_records(task.reader)
    return read_stereoset_bias(task.reader)
