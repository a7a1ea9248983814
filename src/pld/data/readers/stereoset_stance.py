"""StereoSet's stance: is a sentence on a target group a stereotype, an anti-stereotype, or unrelated?"""

from collections.abc import Iterator

from pld.data.readers.benchmark_rows import benchmark_rows
from pld.data.splits import RawExample
from pld.params import BenchmarkReader
from pld.records import content_id

STANCES = ("stereotype", "anti-stereotype", "unrelated")


def read_stereoset_stance(reader: BenchmarkReader) -> Iterator[RawExample]:
    """Three sentences of each row: after a context (intersentence) or with its BLANK filled in (intrasentence).

    The group is the context, however it is spelled, so a row's three sentences stay together, and with those of other
    rows on the same context: else a sentence's place could be told from the two that are known.
    """
    for place, row in benchmark_rows(reader, "StereoSet", "StereoSet", ("context", "target", *STANCES)):
        group = content_id(" ".join(row["context"].casefold().split()))
        for stance in STANCES:
            yield RawExample(
                file=reader.path,
                place=f"{place} ({stance})",
                inputs={"context": row["context"], "target": row["target"], "sentence": row[stance]},
                label=stance,
                group=group,
            )
