"""From a serving log to new examples: a sheet for a person to label, and its labelled rows into the task's data file.

Texts are written as they are, so that the id, a hash of them, shows whether one was changed on the way.
"""

import csv
import difflib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pld.artifacts import atomic_path, csv_line, read_jsonl, write_text
from pld.config.assets import edited_file
from pld.data.readers.columns import Columns, Row
from pld.data.readers.records import FORMATS, read_records
from pld.data.splits import split_of
from pld.errors import DataError
from pld.params import RecordsReader, TaskParams
from pld.records import Example, Prediction, ServedAnswer, inputs_id
from pld.serving.drift import margin_of
from pld.serving.least_certain import candidates, least_certain

_ID_MARK = "sha256:"  # or a spreadsheet would read an id like 12e4567890123456 as a number
_ADDED_TO = "train"  # where the data bring their own splits


@dataclass(frozen=True)
class Chosen:
    """`rows` of the sheet; lines of other prompts were left out, inputs that are in the data already are `known`, and
    of others there is `no_text`."""

    rows: int
    other_prompts: int
    no_text: int


@dataclass(frozen=True)
class Added:
    """`splits`: where the new rows go, split → rows; rows `without_label` and those `already` in the file are left
    out."""

    file: Path
    splits: Mapping[str, int]
    without_label: int
    already: int

    @property
    def rows(self) -> int:
        return sum(self.splits.values())


@dataclass(frozen=True)
class _Layout:
    """The columns of a sheet: the task's own as in its data file, then what is ours."""

    fields: Mapping[str, str]
    label: str
    answered: str
    margin: str
    id: str

    @property
    def header(self) -> list[str]:
        return [*self.fields.values(), self.label, self.answered, self.margin, self.id]


@dataclass(frozen=True)
class _Labelled:
    place: str
    id: str
    inputs: dict[str, str]
    label: str


def write_sheet(
    out: Path,
    task: TaskParams,
    served: Sequence[ServedAnswer],
    artifacts: Path,
    inputs: Path | None,
    count: int,
    per_label: bool,
) -> Chosen:
    """Write at most `count` least certain inputs of `served`, whose texts stand in the log or in the file `inputs`.

    Left out is what the data have already: of train and validation by text, of test by the ids of its predictions alone
    (its text is not read). Raises DataError where there is no text, or nothing new.
    """
    if out.exists():
        raise DataError(f"{out}: wanted a path for a new sheet, found a file; name another, or remove it")
    if out.suffix.lower() != ".csv":
        raise DataError(f"{out}: wanted a path that ends in .csv, found {out.suffix or 'no ending'}")
    found, others = candidates(served, task.labels, _known_ids(artifacts))
    if not found:
        raise DataError(f"serving log: wanted inputs that the data don't have yet, found none in {len(served):,} lines")
    texts = _texts(task, found, inputs)
    chosen = least_certain([answer for answer in found if answer.id in texts], task.labels, count, per_label)
    if not chosen:
        where = f"{inputs} has none of them" if inputs else "the log has none"
        raise DataError(
            f"serving log: wanted the texts of {len(found):,} inputs, but {where}; serve with "
            "PLD_SERVING_LOG_INPUTS=true, or name a file that has them with --inputs"
        )
    layout = _layout(task)
    lines = [csv_line(layout.header)]
    for answer in chosen:
        margin = "" if answer.label is None else f"{margin_of(answer.scores):.6f}"
        own = [texts[answer.id][field] for field in layout.fields]
        lines.append(csv_line([*own, "", answer.label or "", margin, _ID_MARK + answer.id]))
    write_text(out, "".join(f"{line}\n" for line in lines))
    return Chosen(rows=len(chosen), other_prompts=others, no_text=len(found) - len(texts))


def add_labelled(sheet: Path, task: TaskParams, into: Path | None) -> Added:
    """Append the labelled rows of `sheet` to the task's data file (or the file `into` with the same columns), at once
    or not at all; what stands there already keeps its bytes.

    Raises DataError for the first row that can't be taken (with the number of others), and for a data file that is not
    the user's own, not there, or Parquet.
    """
    if not isinstance(task.reader, RecordsReader):
        raise DataError(
            f"conf/task/: reader: wanted a data file of your own to add examples to, found {task.reader.source}, which "
            "an installed package ships; bring a file of your own (docs/your-own-data.md)"
        )
    target = into or _target(task.reader)
    ending = target.suffix.lower()
    if ending not in (".csv", ".jsonl"):
        raise DataError(
            f"{target}: wanted .csv or .jsonl to append to, found {ending or 'no ending'}; convert the file and name "
            "it as reader.path, or append the rows with your own tool"
        )
    if not target.exists():
        raise DataError(f"{target}: wanted the task's data file, found no such file; run `dvc pull`, or name it --into")
    labelled, without_label = _read_sheet(sheet, task)
    reader = task.reader.model_copy(update={"path": str(target)})
    there = {inputs_id(raw.inputs): raw for raw in read_records(reader, task.labels)}
    new = [row for row in labelled if row.id not in there]
    for row in labelled:
        if row.id in there and there[row.id].label != row.label:
            raise DataError(
                f"{sheet}: {row.place}: wanted one label per input, found {row.label!r} here and "
                f"{there[row.id].label!r} for the same input in {target}, {there[row.id].place}; correct one of the two"
            )
    if new:
        _append(target, [_as_row(task.reader, row) for row in new])
    brings_splits = task.reader.split is not None
    splits = Counter(_ADDED_TO if brings_splits else split_of(row.id) for row in new)
    return Added(target, dict(splits), without_label, len(labelled) - len(new))


def _target(reader: RecordsReader) -> Path:
    if reader.path.startswith("package:"):
        raise DataError(
            f"{reader.path}: wanted a data file of your own to add examples to, found one that an installed package "
            "ships; name a file with --into"
        )
    return edited_file(reader.path)


def _layout(task: TaskParams) -> _Layout:
    reader = task.reader
    if isinstance(reader, RecordsReader):
        fields, label = {field: reader.fields[field] for field in task.fields}, reader.label
    else:
        fields, label = {field: field for field in task.fields}, "label"
    taken = {*fields.values(), label}
    names = (f"served {name}" if name in taken else name for name in ("answered", "margin", "id"))
    return _Layout(fields, label, *names)


def _known_ids(artifacts: Path) -> set[str]:
    """Ids of the inputs in train and validation, and the ids of test; where examples have natural ids, an input of test
    is not known by its text, and is found when its row is added."""
    known: set[str] = set()
    for split in ("train", "validation"):
        for example in read_jsonl(artifacts / f"splits/{split}.jsonl", Example):
            known |= {example.id, inputs_id(example.inputs)}
    return known | {row.example_id for row in read_jsonl(artifacts / "evaluation/predictions.jsonl", Prediction)}


def _texts(task: TaskParams, found: Sequence[ServedAnswer], inputs: Path | None) -> dict[str, dict[str, str]]:
    """Id → inputs, checked against the id."""
    texts = {}
    for answer in found:
        if answer.inputs is None:
            continue
        if set(answer.inputs) != set(task.fields) or inputs_id(answer.inputs) != answer.id:
            raise DataError(
                f"serving log, input {answer.id}: wanted the inputs ({', '.join(task.fields)}) whose hash is the id, "
                "found others; is it the log of another task?"
            )
        texts[answer.id] = dict(answer.inputs)
    if inputs is None:
        return texts
    wanted = {answer.id for answer in found}
    layout = _layout(task)
    for _, row in _rows(inputs, tuple(layout.fields.values())):
        own = {field: row[column] for field, column in layout.fields.items()}
        identity = inputs_id(own)
        if identity in wanted:
            texts[identity] = own
    return texts


def _rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise DataError(f"{path}: wanted {', '.join(FORMATS)}, found {ending or 'no ending'}")
    yield from FORMATS[ending](path, str(path), Columns(wanted=tuple(dict.fromkeys(columns)), may_be_null=frozenset()))


def _read_sheet(sheet: Path, task: TaskParams) -> tuple[list[_Labelled], int]:
    """The rows with a label, each input once, and how many have none."""
    layout = _layout(task)
    labelled: dict[str, _Labelled] = {}
    faults: list[str] = []
    without_label = 0
    for place, row in _rows(sheet, [*layout.fields.values(), layout.label, layout.id]):
        inputs = {field: row[column] for field, column in layout.fields.items()}
        one = _Labelled(place, inputs_id(inputs), inputs, row[layout.label])
        if not one.label.strip():
            without_label += 1
        elif fault := _fault(one, row[layout.id], task, labelled.get(one.id)):
            faults.append(f"{sheet}: {place}: {fault}")
        else:
            labelled.setdefault(one.id, one)
    if faults:
        more = f" (and {len(faults) - 1} more rows that can't be taken)" if len(faults) > 1 else ""
        raise DataError(faults[0] + more)
    return list(labelled.values()), without_label


def _fault(row: _Labelled, written_id: str, task: TaskParams, earlier: _Labelled | None) -> str | None:
    if written_id.removeprefix(_ID_MARK) != row.id:
        return (
            f"wanted text and id as they were written, found a text with the id {row.id} beside {written_id!r:.40}; "
            "restore both (a spreadsheet may have changed them), or delete the row"
        )
    if row.label not in task.labels:
        plain = {label.strip().casefold(): label for label in task.labels}
        near = difflib.get_close_matches(row.label.strip().casefold(), plain, n=1)
        hint = f" (did you mean {plain[near[0]]!r}?)" if near else ""
        return (
            f"wanted a label of task {task.name} ({', '.join(task.labels)}), found {row.label!r:.60}{hint}; correct "
            "it, or leave it empty"
        )
    if earlier is not None and earlier.label != row.label:
        return f"wanted one label per input, found {row.label!r} here and {earlier.label!r} in {earlier.place}"
    return None


def _as_row(reader: RecordsReader, row: _Labelled) -> dict[str, str]:
    """The columns that the reader looks for."""
    cells = {column: row.inputs[field] for field, column in reader.fields.items()}
    cells[reader.label] = row.label
    if reader.id is not None:
        cells[reader.id] = row.id
    if reader.group is not None:
        cells[reader.group] = ""  # alone
    if reader.split is not None:
        cells[reader.split] = _ADDED_TO
    return cells


def _append(target: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """A new file takes the old one's place, so that a link into DVC's cache is not written through."""
    before = target.read_bytes()
    line_end = _line_end(before)
    text = _as_jsonl(rows) if target.suffix.lower() == ".jsonl" else _as_csv(rows, target, line_end)
    missing = b"" if before.endswith((b"\n", b"\r")) else line_end.encode()
    with atomic_path(target) as temporary:
        temporary.write_bytes(before + missing + text.encode())


def _line_end(content: bytes) -> str:
    at = content.find(b"\n")
    if at < 0:
        return "\r" if b"\r" in content else "\n"
    return "\r\n" if content[at - 1 : at] == b"\r" else "\n"


def _as_jsonl(rows: Sequence[Mapping[str, str]]) -> str:
    return "".join(json.dumps(dict(row), ensure_ascii=False) + "\n" for row in rows)


def _as_csv(rows: Sequence[Mapping[str, str]], target: Path, line_end: str) -> str:
    """In the order of the file's header; a column that the task does not name stays empty."""
    with target.open(encoding="utf-8-sig", newline="") as file:
        header = next(csv.reader(file, strict=True))
    return "".join(csv_line([row.get(column, "") for column in header]) + line_end for row in rows)
