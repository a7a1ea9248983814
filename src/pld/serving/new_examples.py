"""Turn a serving log into new examples: write a sheet to label, then add its labelled rows to the task's data file.

Texts are written unchanged, so that the id, a hash of them, shows whether one was edited.
"""

import csv
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from pld.artifacts import atomic_path, csv_line, read_jsonl, write_text
from pld.config.assets import edited_file
from pld.data.readers.columns import Columns, Row, nested
from pld.data.readers.records import format_of, read_labelled_rows
from pld.data.splits import ColumnNames, RawExample, examine, split_of
from pld.errors import DataError
from pld.records import Example, Prediction, ServedAnswer, inputs_id
from pld.serving.drift import check_labels, margin_of, one_each, time_of
from pld.task_params import RecordsReader, TaskParams

_ID_MARK = "sha256:"  # keeps a spreadsheet from reading an id like 12e4567890123456 as a number
_ADDED_TO = "train"  # in data with a split column


@dataclass(frozen=True)
class Chosen:
    """`rows` of the sheet; answers of `other_prompts` and inputs with `no_text` were left out."""

    rows: int
    other_prompts: int
    no_text: int


@dataclass(frozen=True)
class Added:
    """`splits`: split → new rows in it; rows `without_label` and those `already` in the file are left out."""

    file: Path
    splits: Mapping[str, int]
    without_label: int
    already: int

    @property
    def rows(self) -> int:
        return sum(self.splits.values())


def write_sheet(
    out: Path,
    task: TaskParams,
    served: Sequence[ServedAnswer],
    artifacts: Path,
    inputs: Path | None,
    count: int,
    per_label: bool,
) -> Chosen:
    """Write at most `count` least certain inputs of `served`; their texts are in the log or in the file `inputs`.

    Inputs that are in the data are left out: those of train and validation by text, those of test by the ids of its
    predictions (its text is not read). Raises DataError if there is no text, or nothing new.
    """
    if out.exists() or out.suffix.lower() != ".csv":
        raise DataError(f"expected a new file that ends in .csv, got {out.name!r} ({out}); name another")
    found, others = _new_inputs(served, task.labels, _known_ids(artifacts))
    if not found:
        raise DataError(
            f"expected inputs that the data don't have yet, got none in {len(served):,} lines (serving log)"
        )
    texts = _texts(task, found, inputs)
    chosen = _least_certain([answer for answer in found if answer.id in texts], task.labels, count, per_label)
    if not chosen:
        where = f"{inputs} has none of them" if inputs else "the log has none"
        raise DataError(
            f"expected the texts of {len(found):,} inputs, but {where} (serving log); serve with "
            "PLD_SERVING_LOG_INPUTS=true, or name a file that has them with --inputs"
        )
    fields, label, extra = _columns(task)
    lines = [csv_line([*fields.values(), label, *extra])]
    for answer in chosen:
        margin = "" if answer.label is None else f"{margin_of(answer.scores):.6f}"
        own = [texts[answer.id][field] for field in fields]
        lines.append(csv_line([*own, "", answer.label or "", margin, _ID_MARK + answer.id]))
    write_text(out, "".join(f"{line}\n" for line in lines))
    return Chosen(rows=len(chosen), other_prompts=others, no_text=len(found) - len(texts))


def add_labelled(sheet: Path, task: TaskParams, into: Path | None) -> Added:
    """Append the labelled rows of `sheet` to the task's data file (or to `into`, with the same columns), all or none;
    existing content keeps its bytes.

    Raises DataError for the first row that can't be added (with the number of others), and for a data file that is
    part of a package, missing, or Parquet.
    """
    reader = task.reader
    if not isinstance(reader, RecordsReader) or (into is None and reader.path.startswith("package:")):
        raise DataError(
            f"expected your own data file, got one that an installed package ships ({reader.source}); use a file of "
            "your own (docs/reference/data-files.md)"
        )
    target = into or edited_file(reader.path)
    if target.suffix.lower() not in (".csv", ".jsonl") or not target.exists():
        got = "another format" if target.exists() else "no such file"
        raise DataError(
            f"expected a .csv or .jsonl file to append to, got {got} ({target}); run `dvc pull`, convert it, or name "
            "another file with --into"
        )
    faults, labelled, without_label = _read_sheet(sheet, task)
    present = [
        RawExample(str(target), f"{raw.place} of {target}", raw.inputs, raw.label)
        for raw in read_labelled_rows(reader.model_copy(update={"path": str(target)}), task.labels)
    ]
    known = {inputs_id(raw.inputs) for raw in present}
    different: dict[str, RawExample] = {}
    for row in labelled:
        different.setdefault(inputs_id(row.inputs), row)
    for offence in examine(task, present + labelled).offences:
        if offence.raw.file == str(sheet) and offence.kind != "empty input":
            faults.append(offence.message)
    if faults:
        raise DataError(faults[0] + (f" (and {len(faults) - 1} more such rows)" if len(faults) > 1 else ""))
    new = [(identity, row) for identity, row in different.items() if identity not in known]
    if new:
        _append(target, [_as_row(reader, identity, row) for identity, row in new])
    splits = Counter(_ADDED_TO if reader.split is not None else split_of(identity) for identity, _ in new)
    return Added(target, dict(splits), without_label, len(different) - len(new))


def _columns(task: TaskParams) -> tuple[dict[str, str], str, list[str]]:
    """A sheet's columns: input field → column and the label column, as in the data file, then answer, margin and id."""
    reader = task.reader
    if isinstance(reader, RecordsReader):
        fields, label = {field: reader.fields[field] for field in task.fields}, reader.label
    else:
        fields, label = {field: field for field in task.fields}, "label"
    taken = {*fields.values(), label}
    return fields, label, [f"served {name}" if name in taken else name for name in ("answered", "margin", "id")]


def _new_inputs(
    served: Sequence[ServedAnswer], labels: Sequence[str], known: Collection[str]
) -> tuple[list[ServedAnswer], int]:
    """The last answer to each input that is not `known` (input ids), and how many lines of other prompts were left out.

    Only the prompt that answered last counts: margins of two prompts can't be compared. Raises DataError for answers
    with other labels.
    """
    if not served:
        return [], 0
    last = max(served, key=lambda answer: (time_of(answer), answer.prompt_sha256)).prompt_sha256
    own = [answer for answer in served if answer.prompt_sha256 == last]
    check_labels(own, labels)
    found = [answers[0] for identity, answers in one_each(own).items() if identity not in known]
    return found, len(served) - len(own)


def _least_certain(
    answers: Iterable[ServedAnswer], labels: Sequence[str], count: int, per_label: bool
) -> list[ServedAnswer]:
    """At most `count`: inputs without an answer first, then the smallest margin (ties by id); `per_label`: one of each
    answered label after the other."""
    ordered = sorted(
        answers, key=lambda one: (one.label is not None, margin_of(one.scores) if one.label else 0.0, one.id)
    )
    if not per_label:
        return ordered[:count]
    columns = [[answer for answer in ordered if answer.label == label] for label in (None, *labels)]
    return [answer for row in zip_longest(*columns) for answer in row if answer is not None][:count]


def _known_ids(artifacts: Path) -> set[str]:
    """Ids of the inputs in train and validation, and the ids of test. If examples have natural ids, an input of test is
    not recognized here, but when its row is added."""
    known: set[str] = set()
    for split in ("train", "validation"):
        for example in read_jsonl(artifacts / f"splits/{split}.jsonl", Example):
            known |= {example.id, inputs_id(example.inputs)}
    return known | {row.example_id for row in read_jsonl(artifacts / "evaluation/predictions.jsonl", Prediction)}


def _texts(task: TaskParams, found: Sequence[ServedAnswer], inputs: Path | None) -> dict[str, dict[str, str]]:
    """Id → inputs, checked against the id."""
    texts = {answer.id: dict(answer.inputs) for answer in found if answer.inputs is not None}
    for identity, own in texts.items():
        if set(own) != set(task.fields) or inputs_id(own) != identity:
            raise DataError(
                f"expected inputs ({', '.join(task.fields)}) whose hash is the id, got others (serving log: input "
                f"{identity}); is it the log of another task?"
            )
    if inputs is not None:
        fields, *_ = _columns(task)
        from_file = {inputs_id(own): own for own in (_inputs(row, fields) for _, row in _rows(inputs, fields.values()))}
        texts |= {answer.id: from_file[answer.id] for answer in found if answer.id in from_file}
    return texts


def _inputs(row: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, str]:
    return {field: row[column] for field, column in fields.items()}


def _rows(path: Path, columns: Iterable[str]) -> Iterator[Row]:
    return format_of(str(path))(path, str(path), Columns(tuple(dict.fromkeys(columns))))


def _read_sheet(sheet: Path, task: TaskParams) -> tuple[list[str], list[RawExample], int]:
    """What is wrong with ids, the rows with a label, and how many have none."""
    fields, label, (*_, id_column) = _columns(task)
    faults: list[str] = []
    labelled: list[RawExample] = []
    without_label = 0
    for place, row in _rows(sheet, [*fields.values(), label, id_column]):
        inputs, identity = _inputs(row, fields), row[id_column].removeprefix(_ID_MARK)
        if not row[label].strip():
            without_label += 1
        elif identity != inputs_id(inputs):
            faults.append(
                f"expected text and id unchanged, got id {identity!r:.40} with a text whose id is {inputs_id(inputs)} "
                f"({sheet}: {place}); restore both (a spreadsheet may have changed them), or delete the row"
            )
        else:
            labelled.append(RawExample(str(sheet), place, inputs, row[label], columns=ColumnNames(fields, label)))
    return faults, labelled, without_label


def _as_row(reader: RecordsReader, identity: str, row: RawExample) -> dict[str, str]:
    """The columns that the reader reads."""
    cells = {column: row.inputs[field] for field, column in reader.fields.items()}
    cells[reader.label] = row.label
    if reader.id is not None:
        cells[reader.id] = identity
    if reader.group is not None:
        cells[reader.group] = ""  # alone
    if reader.split is not None:
        cells[reader.split] = _ADDED_TO
    return cells


def _append(target: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Replaces the file instead of writing to it, because it may be a link into DVC's cache. In CSV, columns that the
    task doesn't name stay empty."""
    before = target.read_bytes()
    line_end = "\r\n" if b"\r\n" in before else "\r" if b"\r" in before and b"\n" not in before else "\n"
    if target.suffix.lower() == ".jsonl":
        first = next(line for line in before.decode("utf-8-sig").split("\n") if line.strip())
        like = json.loads(first)
        lines = [json.dumps(nested(row, like), ensure_ascii=False) + "\n" for row in rows]
    else:
        with target.open(encoding="utf-8-sig", newline="") as file:
            header = next(csv.reader(file, strict=True))
        lines = [csv_line([row.get(column, "") for column in header]) + line_end for row in rows]
    missing = "" if before.endswith((b"\n", b"\r")) else line_end
    with atomic_path(target) as temporary:
        temporary.write_bytes(before + (missing + "".join(lines)).encode())
