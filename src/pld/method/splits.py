"""Raw rows → Examples with ids and splits, or one line that says which row of which file is wrong."""

import difflib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pld.errors import DataError
from pld.records import SPLITS, Example, Record, Split, Task, inputs_id, sha256

TRAIN_BELOW = 0.5
VALIDATION_BELOW = 0.7
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


@dataclass(frozen=True, slots=True)
class RawExample:
    """One row as its file has it. `file` and `place` ("row 7", "line 12") are for messages; `split` is the text of
    the data set's own split column, None where it brings none."""

    file: str
    place: str
    inputs: dict[str, str]
    label: str
    id: str | None = None
    group: str | None = None
    split: str | None = None


class SplitSummary(Record):
    """artifacts/splits/summary.json. `counts`: split → label → examples, zeros included; `rows` as read,
    `merged_duplicates` of them left out; `empty_fields`: field → examples that have nothing in it."""

    task: str
    rows: int
    examples: int
    merged_duplicates: int
    groups: int
    counts: dict[str, dict[str, int]]
    empty_fields: dict[str, int]


def split_of(key: str) -> Split:
    """The split of a group (or of an example without one): half train, a fifth validation, the rest test, by hash."""
    position = int(sha256("split:" + key)[:8], 16) / 2**32
    if position < TRAIN_BELOW:
        return "train"
    return "validation" if position < VALIDATION_BELOW else "test"


def assemble(task: Task, raw_examples: Iterable[RawExample]) -> tuple[list[Example], SplitSummary]:
    """Examples in the order of their rows, each input once, and the counts.

    Rows with the same input and label are merged into the first of them, so no input can stand on two sides of a
    split by hash, under whatever ids. Raises DataError for the first offence of any row, with the number of further
    ones: duplicate or empty id, undeclared label, empty input, one input with two labels; in data that bring their
    splits an unknown split, or an input or a group in two of them. Then for an empty split, and for a declared label
    without a training example.
    """
    assembly = _Assembly(task)
    offences: list[_OffenceError] = []
    for raw in raw_examples:
        try:
            assembly.add(raw)
        except _OffenceError as offence:
            offences.append(offence)
    if offences:
        raise DataError(_first_and_count(offences))
    summary = assembly.summary()
    _check_coverage(task, summary, assembly)
    return assembly.examples, summary


class _OffenceError(Exception):
    def __init__(self, kind: str, raw: RawExample, text: str) -> None:
        super().__init__(f"{raw.file}: {raw.place}: {text}")
        self.kind = kind


class _Assembly:
    """What is known of the rows so far."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.examples: list[Example] = []
        self.rows = 0
        self.file = ""
        self.brings_splits = False
        self._place_of_id: dict[str, str] = {}
        self._of_inputs: dict[str, tuple[Example, str]] = {}
        self._of_group: dict[str, tuple[Split, str]] = {}

    def add(self, raw: RawExample) -> None:
        self.rows += 1
        self.file = raw.file
        self.brings_splits = raw.split is not None
        self._check_id(raw)
        self._check_label(raw)
        if not any(text.strip() for text in raw.inputs.values()):
            fields = ", ".join(raw.inputs)
            raise _OffenceError(
                "empty input",
                raw,
                f"wanted text in {fields}, found none; fill in the row or delete it",
            )
        of_inputs = inputs_id(raw.inputs)
        example = Example(
            id=raw.id if raw.id is not None else of_inputs,
            inputs=raw.inputs,
            label=raw.label,
            split=self._split(raw, of_inputs),
            group=raw.group,
        )
        if of_inputs in self._of_inputs:
            self._check_same(example, raw, *self._of_inputs[of_inputs])
            return
        self._of_inputs[of_inputs] = (example, raw.place)
        self.examples.append(example)

    def summary(self) -> SplitSummary:
        counts = {split: dict.fromkeys(self.task.labels, 0) for split in SPLITS}
        for example in self.examples:
            counts[example.split][example.label] += 1
        return SplitSummary(
            task=self.task.name,
            rows=self.rows,
            examples=len(self.examples),
            merged_duplicates=self.rows - len(self.examples),
            groups=len({example.group for example in self.examples} - {None}),
            counts=counts,
            empty_fields={
                field: sum(not example.inputs[field].strip() for example in self.examples) for field in self.task.fields
            },
        )

    def _check_id(self, raw: RawExample) -> None:
        if raw.id is None:
            return
        if not raw.id.strip():
            raise _OffenceError(
                "empty id", raw, "wanted an id, found none; give the row an id, or set reader.id to null in conf/task/"
            )
        if raw.id in self._place_of_id:
            raise _OffenceError(
                "duplicate id",
                raw,
                f"wanted an id that no other row has, found {raw.id!r:.60}, which {self._place_of_id[raw.id]} has; "
                "delete one of the two rows or change its id",
            )
        self._place_of_id[raw.id] = raw.place

    def _check_label(self, raw: RawExample) -> None:
        labels = self.task.labels
        if raw.label in labels:
            return
        plain = {label.strip().casefold(): label for label in labels}
        near = difflib.get_close_matches(raw.label.strip().casefold(), plain, n=1)
        hint = f" (did you mean {plain[near[0]]!r}?)" if near else ""
        raise _OffenceError(
            "undeclared label",
            raw,
            f"wanted a label of task {self.task.name} ({', '.join(labels)}), found {raw.label!r:.60}{hint}; "
            "correct the row, or declare the label in conf/task/",
        )

    def _split(self, raw: RawExample, of_inputs: str) -> Split:
        if raw.split is None:
            return split_of(raw.group or raw.id or of_inputs)
        split = SPLIT_NAMES.get(raw.split.strip().lower())
        if split is None:
            raise _OffenceError(
                "unknown split",
                raw,
                f"wanted a split ({', '.join(SPLIT_NAMES)}), found {raw.split!r:.60}; correct the row, "
                "or set reader.split to null in conf/task/ for a split by hash",
            )
        if raw.group is not None:
            first, place = self._of_group.setdefault(raw.group, (split, raw.place))
            if first != split:
                raise _OffenceError(
                    "group in two splits",
                    raw,
                    f"wanted group {raw.group!r:.60} in one split, found it in {split} here and in {first} in "
                    f"{place}; give all its rows the same split",
                )
        return split

    def _check_same(self, example: Example, raw: RawExample, first: Example, place: str) -> None:
        """The input of `raw` has been seen: it may be a plain duplicate and nothing else."""
        if example.label != first.label:
            raise _OffenceError(
                "two labels",
                raw,
                f"wanted one label per input, found {example.label!r} here and {first.label!r} for the same input in "
                f"{place}; correct one of the two or delete it",
            )
        if self.brings_splits and example.split != first.split:
            raise _OffenceError(
                "input in two splits",
                raw,
                f"wanted each input in one split, found this one in {example.split} here and in {first.split} in "
                f"{place}; delete one of the two rows",
            )


def _first_and_count(offences: list[_OffenceError]) -> str:
    kinds = Counter(offence.kind for offence in offences)
    alike = kinds.pop(offences[0].kind) - 1
    further = [f"{alike} more of this kind"] * (alike > 0)
    further += [f"{count} of {kind!r}" for kind, count in sorted(kinds.items())]
    return f"{offences[0]}" + (f" (and {', '.join(further)})" if further else "")


def _check_coverage(task: Task, summary: SplitSummary, assembly: _Assembly) -> None:
    if not summary.examples:
        raise DataError(f"task {task.name}: wanted examples, found none; correct reader.path in conf/task/")
    totals = {split: sum(summary.counts[split].values()) for split in SPLITS}
    found = ", ".join(f"{count} {split}" for split, count in totals.items())
    for split in SPLITS:
        if not totals[split]:
            remedy = (
                f"mark rows as {split} in the split column"
                if assembly.brings_splits
                else "add examples or groups (about half go to train, a fifth to validation, the rest to test), "
                "or bring a split column"
            )
            raise DataError(f"{assembly.file}: wanted examples in every split, found {found}; {remedy}")
    missing = [label for label in task.labels if not summary.counts["train"][label]]
    if missing:
        raise DataError(
            f"{assembly.file}: wanted a training example of every label, found none of {', '.join(missing)} among "
            f"{totals['train']}; add some, or take the label out of the task in conf/task/"
        )
