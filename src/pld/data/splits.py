"""Turn raw rows into Examples with ids and splits, and list every row that can't be used."""

import difflib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from pld.errors import ConfigError, DataError
from pld.records import SPLITS, Example, Record, Split, Task, inputs_id, sha256

TRAIN_BELOW = 0.5
VALIDATION_BELOW = 0.7
DERIVED_VALIDATION = 0.4
"""Share of validation where one held-out part is divided: two to three, as without a split column."""
SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}

_INVISIBLE = frozenset(("Cc", "Cf", "Zs", "Zl", "Zp"))
_BREAKS = frozenset(("Cc", "Zl", "Zp"))
_UNDECLARED = "undeclared label"
_LONGEST_GUESS = 200
"""Characters of a label; no guess is made at what a longer one was meant to be."""
_LOOK = "blanks, invisible characters or Unicode form"


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """The file's column for each part of a row, None where there is none; `inputs`: input field → column."""

    inputs: Mapping[str, str]
    label: str | None = None
    id: str | None = None
    group: str | None = None
    split: str | None = None


_NO_NAMES = ColumnNames({})


@dataclass(frozen=True, slots=True)
class RawExample:
    """One row as its file has it. `file`, `place` ("row 7", "line 12") and `columns` are for messages; `split` is the
    text of the data set's own split column, None without one; `derive`: the held-out split that this column lacks, made
    from the rows of the other one; `shortened`: the reader left out part of a text."""

    file: str
    place: str
    inputs: dict[str, str]
    label: str
    id: str | None = None
    group: str | None = None
    split: str | None = None
    shortened: bool = False
    columns: ColumnNames = _NO_NAMES
    derive: Split | None = None


class SplitSummary(Record):
    """artifacts/splits/summary.json. `counts`: split → label → examples, zeros included; `rows` as read, of which
    `merged_duplicates` were dropped; `empty_fields`: field → examples without text in it; `shortened`: split →
    examples of which the reader left out part of a text."""

    task: str
    rows: int
    examples: int
    merged_duplicates: int
    groups: int
    counts: dict[str, dict[str, int]]
    empty_fields: dict[str, int]
    shortened: dict[str, int]

    def notes(self) -> Iterator[str]:
        """What a user should know beside the counts, a line each."""
        if self.groups:
            yield f"{self.groups} groups, each in one split"
        if self.merged_duplicates:
            yield f"{self.merged_duplicates} rows that repeat another's input and label: merged into the first"
        for name, count in self.empty_fields.items():
            if count:
                yield f"{count} examples have nothing in {name!r}"
        if cut := ", ".join(f"{count:,} {split}" for split, count in self.shortened.items() if count):
            yield f"examples whose text is shortened, as the reader's settings say: {cut}"
        for split in SPLITS[1:]:
            for label, count in self.counts[split].items():
                if not count:
                    yield f"no {split} example of {label!r}: its F1 there is 0, whatever the prompt"


@dataclass(frozen=True, slots=True)
class Offence:
    """Why a row can't be used; `column` of the file, None where it is none in particular."""

    kind: str
    raw: RawExample
    column: str | None
    expected: str
    got: str
    remedy: str
    hint: Callable[[], str] = str
    """Guesses what was meant; called for the offences that are shown, because guessing takes time."""

    @property
    def message(self) -> str:
        column = f", column {self.column!r:.60}" if self.column is not None else ""
        where = f"{self.raw.file}: {self.raw.place}{column}"
        return f"expected {self.expected}, got {self.got}{self.hint()} ({where}); {self.remedy}"


@dataclass
class Assembly:
    """The examples, in the order of their rows; `rows`: the position of each one's row among the raw ones; `offences`:
    at most one a row; `gaps`: splits without examples and labels without training examples, a message each."""

    examples: list[Example]
    rows: list[int]
    summary: SplitSummary
    offences: list[Offence]
    gaps: list[str]

    def check(self) -> None:
        """Raises DataError for the first offence, with the number of further ones, then for the first gap."""
        if self.offences:
            raise DataError(f"{self.offences[0].message}{_further(self.offences, self.summary.rows)}")
        if self.gaps:
            raise DataError(self.gaps[0])


def split_of(key: str, train_below: float = TRAIN_BELOW, validation_below: float = VALIDATION_BELOW) -> Split:
    """The split of a group (or of an example without one) by hash: half train, a fifth validation, the rest test."""
    position = int(sha256("split:" + key)[:8], 16) / 2**32
    if position < train_below:
        return "train"
    return "validation" if position < validation_below else "test"


def visible(text: str) -> bool:
    """Whether the text has a character that is no blank, control or invisible one."""
    return any(unicodedata.category(char) not in _INVISIBLE for char in text)


def on_one_line(text: str) -> bool:
    """Whether the text has no line ends or control characters."""
    return text.isprintable() or not any(unicodedata.category(char) in _BREAKS for char in text)


def plain(text: str) -> str:
    """`text` as it looks: composed (NFC), without invisible characters, and stripped."""
    if text.isascii() and text.isprintable():
        return text.strip()
    composed = unicodedata.normalize("NFC", text)
    return "".join(char for char in composed if char.isspace() or unicodedata.category(char) not in _INVISIBLE).strip()


def assemble(task: Task, raw_examples: Iterable[RawExample]) -> tuple[list[Example], SplitSummary]:
    """Examples in the order of their rows, each input once, and the counts.

    Raises DataError for the first row that can't be used, a split without examples, and a declared label without
    training examples; ConfigError for labels that look the same.
    """
    assembly = examine(task, raw_examples)
    assembly.check()
    return assembly.examples, assembly.summary


def examine(task: Task, raw_examples: Iterable[RawExample]) -> Assembly:
    """As `assemble`, but with all offences listed instead of the first one raised.

    Rows with the same input and label are merged into the first of them, so no input is in two splits by hash,
    whatever its ids. An offence is a duplicate, empty or multi-line id, an undeclared label, an empty input, one input
    with two labels, and one group spelled in two ways; in data with their own splits also an unknown split, and an
    input or a group in two of them. Raises ConfigError for labels that look the same.
    """
    _check_declared(task)
    state = _State(task)
    offences = []
    for raw in raw_examples:
        if offence := state.add(raw):
            offences.append(offence)
    summary = state.summary()
    gaps = [] if offences else list(_gaps(task, summary, state))
    return Assembly(state.examples, state.rows, summary, offences, gaps)


def _check_declared(task: Task) -> None:
    seen: dict[str, str] = {}
    for label in task.labels:
        if not visible(label) or not on_one_line(label):
            raise ConfigError(
                f"expected each label to be one line of text, got {label!a:.60} (labels of task {task.name}); correct "
                "labels in conf/task/"
            )
        other = seen.setdefault(plain(label), label)
        if other != label:
            raise ConfigError(
                f"expected labels that look different, got {other!a:.60} and {label!a:.60}, which differ only in "
                f"{_LOOK} (labels of task {task.name}); correct labels in conf/task/"
            )


@dataclass
class _State:
    """The rows so far; the dictionaries hold the place of the first row with that id, input, group or spelling."""

    task: Task
    examples: list[Example] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    count: int = 0
    merged: int = 0
    file: str = ""
    brings_splits: bool = False
    _ids: dict[str, str] = field(default_factory=dict)
    _inputs: dict[str, tuple[Example, str, Split | None]] = field(default_factory=dict)
    _groups: dict[str, tuple[Split, str]] = field(default_factory=dict)
    _spellings: dict[str, tuple[str, str]] = field(default_factory=dict)
    _shortened: dict[Split, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))

    def add(self, raw: RawExample) -> Offence | None:
        """Takes the row, or returns its first offence."""
        self.count += 1
        self.file = raw.file
        self.brings_splits = raw.split is not None
        if offence := next(self._of_cells(raw), None):
            return offence
        input_hash = inputs_id(raw.inputs)
        key, named = raw.group or raw.id or input_hash, _named_split(raw.split or "")
        split = named or split_of(key)
        if raw.derive is not None and split != "train":
            split = split_of(key, 0, DERIVED_VALIDATION)
        example = Example(
            id=raw.id if raw.id is not None else input_hash,
            inputs=raw.inputs,
            label=raw.label,
            split=split,
            group=raw.group,
        )
        if offence := next(self._of_splits(raw, example, named, input_hash), None):
            return offence
        if input_hash in self._inputs:
            self.merged += 1
            return None
        self._inputs[input_hash] = (example, raw.place, named)
        self.examples.append(example)
        self.rows.append(self.count - 1)
        self._shortened[split] += raw.shortened
        return None

    def summary(self) -> SplitSummary:
        counts = {split: dict.fromkeys(self.task.labels, 0) for split in SPLITS}
        for example in self.examples:
            counts[example.split][example.label] += 1
        return SplitSummary(
            task=self.task.name,
            rows=self.count,
            examples=len(self.examples),
            merged_duplicates=self.merged,
            groups=len({example.group for example in self.examples} - {None}),
            counts=counts,
            empty_fields={
                name: sum(not visible(example.inputs[name]) for example in self.examples) for name in self.task.fields
            },
            shortened=dict(self._shortened),
        )

    def _of_cells(self, raw: RawExample) -> Iterator[Offence]:
        names, labels = raw.columns, self.task.labels
        if raw.id is not None:
            if not visible(raw.id):
                remedy = "fill it in, or name no id column"
                yield Offence("empty id", raw, names.id, "an id", "none", remedy)
            if not on_one_line(raw.id):
                remedy = "remove line ends and control characters"
                yield Offence("multi-line id", raw, names.id, "an id on one line", f"{raw.id!r:.60}", remedy)
            if raw.id in self._ids:
                got = f"{raw.id!r:.60}, which {self._ids[raw.id]} has too"
                remedy = "delete one of the rows or change its id; if ids repeat throughout, they may be groups"
                yield Offence("duplicate id", raw, names.id, "each id once", got, remedy)
            self._ids[raw.id] = raw.place
        if raw.label not in labels:
            expected = f"a label of task {self.task.name} ({', '.join(labels):.300})"
            got = f"{raw.label!r:.60}" if unicodedata.is_normalized("NFC", raw.label) else f"{raw.label!a:.60}"
            remedy = "correct the row, or the task's labels"
            hint = partial(guess_label, raw.label, labels)
            yield Offence(_UNDECLARED, raw, names.label, expected, got, remedy, hint)
        if not any(map(visible, raw.inputs.values())):
            columns = [names.inputs.get(name, name) for name in raw.inputs]
            only = columns[0] if len(columns) == 1 and names.inputs else None
            expected = "text" if only is not None else f"text in {' or '.join(map(repr, columns))}"
            got = "only blanks or invisible characters" if any(raw.inputs.values()) else "none"
            yield Offence("empty input", raw, only, expected, got, "fill it in or delete the row")
        if raw.group is not None:
            first, place = self._spellings.setdefault(plain(raw.group), (raw.group, raw.place))
            if first != raw.group:
                expected = f"group {first!a:.60} spelled as in {place}"
                got = f"{raw.group!a:.60}, which differs in {_LOOK}"
                yield Offence("group spelled in two ways", raw, names.group, expected, got, "spell both the same")
        if raw.split is not None and _named_split(raw.split) is None:
            expected = f"a split ({', '.join(SPLIT_NAMES)})"
            remedy = "correct the row, or name no split column to split by hash"
            yield Offence("unknown split", raw, names.split, expected, f"{raw.split!r:.60}", remedy)
        elif raw.split is not None and raw.derive == _named_split(raw.split):
            expected = f"no {raw.derive} rows where this split is derived"
            remedy = "name the split column alone, without derive, or mark all held-out rows the same"
            yield Offence("derived split", raw, names.split, expected, f"{raw.split!r:.60}", remedy)

    def _of_splits(self, raw: RawExample, example: Example, named: Split | None, input_hash: str) -> Iterator[Offence]:
        """Contradictions to earlier rows with the same group or input. `named`: the split that the row itself names."""
        if named is not None and raw.group is not None:
            split, place = self._groups.setdefault(raw.group, (named, raw.place))
            if split != named:
                expected = f"group {raw.group!r:.60} in one split"
                got = f"{named} here and {split} in {place}"
                remedy = "give all rows of a group the same split"
                yield Offence("group in two splits", raw, raw.columns.split, expected, got, remedy)
        if input_hash not in self._inputs:
            return
        first, place, elsewhere = self._inputs[input_hash]
        if first.label != example.label:
            got = f"{example.label!r} here and {first.label!r} for the same input in {place}"
            remedy = "correct or delete one of the two rows"
            yield Offence("two labels", raw, raw.columns.label, "one label per input", got, remedy)
        if named != elsewhere:
            got = f"this one in {named} here and in {elsewhere} in {place}"
            remedy = "delete one of the two rows"
            yield Offence("input in two splits", raw, raw.columns.split, "each input in one split", got, remedy)


def _named_split(text: str) -> Split | None:
    return SPLIT_NAMES.get(text.strip().lower())


def guess_label(found: str, labels: Iterable[str]) -> str:
    """What an undeclared label may have been meant to be, in brackets; nothing without a guess."""
    if len(found) > _LONGEST_GUESS:
        return f"… ({len(found):,} characters: is this the label column?)"
    for label in labels:
        if plain(found) == plain(label) and found.strip() != label:
            return f" (did you mean {label!a}, which differs in invisible characters or Unicode form?)"
    if "\n" in found or "\r" in found:
        return " (is a quote left open?)"
    folded = {label.strip().casefold(): label for label in labels}
    near = difflib.get_close_matches(found.strip().casefold(), folded, n=1)
    return f" (did you mean {folded[near[0]]!r}?)" if near else ""


def _further(offences: list[Offence], rows: int) -> str:
    kinds = Counter(offence.kind for offence in offences)
    (kind, number), *others = kinds.items()
    further = [f"{number - 1:,} more of this kind"] * (number > 1)
    further += [f"{count:,} of {other!r}" for other, count in sorted(others)]
    if kind == _UNDECLARED and number == rows > 1:
        further.append("so in every row: is this the label column?")
    return f" (and {', '.join(further)})" if further else ""


def _gaps(task: Task, summary: SplitSummary, state: _State) -> Iterator[str]:
    if not summary.examples:
        yield f"expected examples, got none (task {task.name}); name another data file"
        return
    totals = {split: sum(summary.counts[split].values()) for split in SPLITS}
    found = ", ".join(f"{count} {split}" for split, count in totals.items())
    for split in SPLITS:
        if not totals[split]:
            other: Split = "validation" if split == "test" else "test"
            derived = f", or derive it from the {other} rows (`pld new-task --derive {split}`)"
            remedy = (
                f"mark rows as {split} in the split column{derived if split != 'train' and totals[other] else ''}"
                if state.brings_splits
                else "add examples or groups (about half go to train, a fifth to validation, the rest to test), or "
                "add a split column"
            )
            yield f"expected examples in every split, got {found} ({state.file}); {remedy}"
    missing = [label + _elsewhere(label, summary) for label in task.labels if not summary.counts["train"][label]]
    if missing:
        yield (
            f"expected a training example of every label, got none of {', '.join(missing)} among {totals['train']} "
            f"({state.file}); add some, or drop the label"
        )


def _elsewhere(label: str, summary: SplitSummary) -> str:
    found = [f"{summary.counts[split][label]} {split}" for split in SPLITS if summary.counts[split][label]]
    return f" ({', '.join(found)})" if found else ""
