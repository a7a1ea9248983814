"""Raw rows → Examples with ids and splits, or one line that says which row of which file is wrong."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pld.errors import ConfigError, DataError
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

_UNSEEN = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
_BREAKS = frozenset(("Cc", "Zl", "Zp"))
_UNDECLARED = "undeclared label"
_GUESSED = 200
"""Characters of a label; for what is longer, no guess is made at what was meant."""


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """What a file calls the parts of its rows, None (or nothing) where it doesn't; `inputs`: input field → column."""

    inputs: Mapping[str, str]
    label: str | None = None
    id: str | None = None
    group: str | None = None
    split: str | None = None


_NO_NAMES = ColumnNames({})


@dataclass(frozen=True, slots=True)
class RawExample:
    """One row as its file has it. `file`, `place` ("row 7", "line 12") and `columns` are for messages; `split` is the
    text of the data set's own split column, None where it brings none; `shortened`: the reader left out a part of a
    text."""

    file: str
    place: str
    inputs: dict[str, str]
    label: str
    id: str | None = None
    group: str | None = None
    split: str | None = None
    shortened: bool = False
    columns: ColumnNames = _NO_NAMES


class SplitSummary(Record):
    """artifacts/splits/summary.json. `counts`: split → label → examples, zeros included; `rows` as read,
    `merged_duplicates` of them left out; `empty_fields`: field → examples that have nothing in it; `shortened`: split →
    examples of which the reader left out a part of a text."""

    task: str
    rows: int
    examples: int
    merged_duplicates: int
    groups: int
    counts: dict[str, dict[str, int]]
    empty_fields: dict[str, int]
    shortened: dict[str, int]


def split_of(key: str) -> Split:
    """The split of a group (or of an example without one): half train, a fifth validation, the rest test, by hash."""
    position = int(sha256("split:" + key)[:8], 16) / 2**32
    if position < TRAIN_BELOW:
        return "train"
    return "validation" if position < VALIDATION_BELOW else "test"


def visible(text: str) -> bool:
    """Whether there is anything to be seen: a character that is no blank, no control and no invisible one."""
    return any(unicodedata.category(char) not in _UNSEEN for char in text)


def plain(text: str) -> str:
    """`text` as it looks: composed (NFC), invisible characters and blanks at the ends left out."""
    if text.isascii() and text.isprintable():
        return text.strip()
    composed = unicodedata.normalize("NFC", text)
    return "".join(char for char in composed if char.isspace() or unicodedata.category(char) not in _UNSEEN).strip()


def assemble(task: Task, raw_examples: Iterable[RawExample]) -> tuple[list[Example], SplitSummary]:
    """Examples in the order of their rows, each input once, and the counts.

    Rows with the same input and label are merged into the first of them, so no input can stand on two sides of a
    split by hash, under whatever ids. Raises DataError for the first offence of any row, with the number of further
    ones: duplicate, empty or unreadable id, undeclared label, empty input, one input with two labels, one group
    spelled in two ways; in data that bring their splits an unknown split, or an input or a group in two of them. Then
    for an empty split, and for a declared label without a training example. Raises ConfigError for labels that can't
    be told apart.
    """
    _check_declared(task)
    assembly = _Assembly(task)
    first = ""
    kinds: Counter[str] = Counter()
    for raw in raw_examples:
        try:
            assembly.add(raw)
        except _OffenceError as offence:
            first = first or offence.told()
            kinds[offence.kind] += 1
    if first:
        raise DataError(_with_count(first, kinds, assembly.rows))
    summary = assembly.summary()
    _check_coverage(task, summary, assembly)
    return assembly.examples, summary


def _check_declared(task: Task) -> None:
    seen: dict[str, str] = {}
    for label in task.labels:
        if not visible(label) or any(unicodedata.category(char) in _BREAKS for char in label):
            raise ConfigError(
                f"labels: wanted each label as a word or words on one line, found {label!a:.60} in task {task.name}; "
                "correct labels in conf/task/"
            )
        other = seen.setdefault(plain(label), label)
        if other != label:
            raise ConfigError(
                f"labels: wanted labels that look different, found {other!a:.60} and {label!a:.60} in task "
                f"{task.name}, which differ in blanks, invisible characters or Unicode form; correct labels in "
                "conf/task/"
            )


class _OffenceError(Exception):
    """`text` is called for the first offence alone: to guess what was meant takes time."""

    def __init__(self, kind: str, raw: RawExample, column: str | None, text: Callable[[], str]) -> None:
        super().__init__(kind)
        self.kind = kind
        self._where = f"{raw.file}: {raw.place}" + (f": column {column!r:.60}" if column is not None else "")
        self._text = text

    def told(self) -> str:
        return f"{self._where}: {self._text()}"


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
        self._spelled: dict[str, tuple[str, str]] = {}
        self._shortened: dict[Split, int] = dict.fromkeys(SPLITS, 0)

    def add(self, raw: RawExample) -> None:
        self.rows += 1
        self.file = raw.file
        self.brings_splits = raw.split is not None
        self._check_id(raw)
        self._check_label(raw)
        if not any(map(visible, raw.inputs.values())):
            raise self._empty_input(raw)
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
        self._shortened[example.split] += raw.shortened

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
                field: sum(not visible(example.inputs[field]) for example in self.examples)
                for field in self.task.fields
            },
            shortened=dict(self._shortened),
        )

    def _check_id(self, raw: RawExample) -> None:
        if raw.id is None:
            return
        column = raw.columns.id
        if not visible(raw.id):
            raise _OffenceError(
                "empty id",
                raw,
                column,
                lambda: "wanted an id, found none; give the row an id, or set reader.id to null in conf/task/",
            )
        if not raw.id.isprintable() and any(unicodedata.category(char) in _BREAKS for char in raw.id):
            raise _OffenceError(
                "unreadable id",
                raw,
                column,
                lambda: f"wanted an id on one line, found {raw.id!r:.60}; take line ends and control characters out",
            )
        if raw.id in self._place_of_id:
            place = self._place_of_id[raw.id]
            raise _OffenceError(
                "duplicate id",
                raw,
                column,
                lambda: (
                    f"wanted an id that no other row has, found {raw.id!r:.60}, which {place} has; "
                    "delete one of the two rows or change its id"
                ),
            )
        self._place_of_id[raw.id] = raw.place

    def _check_label(self, raw: RawExample) -> None:
        labels = self.task.labels
        if raw.label in labels:
            return
        raise _OffenceError(
            _UNDECLARED,
            raw,
            raw.columns.label,
            lambda: (
                f"wanted a label of task {self.task.name} ({', '.join(labels):.300}), found "
                f"{_guessed(raw.label, labels)}; correct the row, or declare the label in conf/task/"
            ),
        )

    def _empty_input(self, raw: RawExample) -> "_OffenceError":
        columns = [raw.columns.inputs[field] for field in raw.inputs if field in raw.columns.inputs]
        wanted = f"text in {', '.join(map(repr, columns) if columns else raw.inputs)}"
        only = columns[0] if len(columns) == 1 else None
        seen = " to be seen" if any(raw.inputs.values()) else ""
        return _OffenceError(
            "empty input",
            raw,
            only,
            lambda: f"wanted {'text' if only else wanted}, found none{seen}; fill in the row or delete it",
        )

    def _split(self, raw: RawExample, of_inputs: str) -> Split:
        if raw.group is not None:
            self._check_spelling(raw, raw.group)
        if raw.split is None:
            return split_of(raw.group or raw.id or of_inputs)
        split = SPLIT_NAMES.get(raw.split.strip().lower())
        if split is None:
            raise _OffenceError(
                "unknown split",
                raw,
                raw.columns.split,
                lambda: (
                    f"wanted a split ({', '.join(SPLIT_NAMES)}), found {raw.split!r:.60}; correct the row, "
                    "or set reader.split to null in conf/task/ for a split by hash"
                ),
            )
        if raw.group is not None:
            first, place = self._of_group.setdefault(raw.group, (split, raw.place))
            if first != split:
                raise _OffenceError(
                    "group in two splits",
                    raw,
                    raw.columns.split,
                    lambda: (
                        f"wanted group {raw.group!r:.60} in one split, found it in {split} here and in {first} in "
                        f"{place}; give all its rows the same split"
                    ),
                )
        return split

    def _check_spelling(self, raw: RawExample, group: str) -> None:
        """Two spellings that look the same would be two groups, and could stand on two sides."""
        first, place = self._spelled.setdefault(plain(group), (group, raw.place))
        if first != group:
            raise _OffenceError(
                "group spelled in two ways",
                raw,
                raw.columns.group,
                lambda: (
                    f"wanted group {first!a:.60} spelled as in {place}, found {group!a:.60}, which differs in blanks, "
                    "invisible characters or Unicode form; write both alike"
                ),
            )

    def _check_same(self, example: Example, raw: RawExample, first: Example, place: str) -> None:
        """The input of `raw` has been seen: it may be a plain duplicate and nothing else."""
        if example.label != first.label:
            raise _OffenceError(
                "two labels",
                raw,
                raw.columns.label,
                lambda: (
                    f"wanted one label per input, found {example.label!r} here and {first.label!r} for the same input "
                    f"in {place}; correct one of the two or delete it"
                ),
            )
        if self.brings_splits and example.split != first.split:
            raise _OffenceError(
                "input in two splits",
                raw,
                raw.columns.split,
                lambda: (
                    f"wanted each input in one split, found this one in {example.split} here and in {first.split} in "
                    f"{place}; delete one of the two rows"
                ),
            )


def _guessed(found: str, labels: Iterable[str]) -> str:
    """`found` as it is shown, and the declared label that may be meant."""
    if len(found) > _GUESSED:
        return f"{found!r:.60}… ({len(found):,} characters; does reader.label name the right column?)"
    for label in labels:
        if plain(found) == plain(label) and found.strip() != label:
            return f"{found!a} (did you mean {label!a}, without invisible characters and in its Unicode form?)"
    if "\n" in found or "\r" in found:
        return f"{found!r:.60} (is a quote left open?)"
    folded = {label.strip().casefold(): label for label in labels}
    near = difflib.get_close_matches(found.strip().casefold(), folded, n=1)
    return f"{found!r:.60}" + (f" (did you mean {folded[near[0]]!r}?)" if near else "")


def _with_count(first: str, kinds: Counter[str], rows: int) -> str:
    """`kinds` has the first offence's kind first."""
    (kind, number), *others = kinds.items()
    further = [f"{number - 1:,} more of this kind"] * (number > 1)
    further += [f"{count:,} of {other!r}" for other, count in sorted(others)]
    if kind == _UNDECLARED and number == rows > 1:
        further.append("so in every row: does reader.label name the right column?")
    return first + (f" (and {', '.join(further)})" if further else "")


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
    missing = [label + _elsewhere(label, summary) for label in task.labels if not summary.counts["train"][label]]
    if missing:
        raise DataError(
            f"{assembly.file}: wanted a training example of every label, found none of {', '.join(missing)} among "
            f"{totals['train']}; add some, or take the label out of the task in conf/task/"
        )


def _elsewhere(label: str, summary: SplitSummary) -> str:
    found = [f"{summary.counts[split][label]} {split}" for split in SPLITS if summary.counts[split][label]]
    return f" ({', '.join(found)})" if found else ""
