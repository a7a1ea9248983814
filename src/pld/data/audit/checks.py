"""What a user should know of a file of labelled examples before anything is spent on it: counts, what `prepare` would
refuse (every instance of it, where `prepare` names the first), and what it would take but is worth a look."""

import math
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pld.data.splits import SPLIT_NAMES, RawExample, plain, split_of, visible
from pld.records import SPLITS, Split, inputs_id

SHOWN = 5
"""Instances of a finding that are shown; of the others their number."""
FEW = 10
"""Training examples below which a label is called rare: its rules hardly make a cluster."""

_WORDS = re.compile(r"[^\W_]+")
_ID_NAME = re.compile(r"(^|[\W_])(id|no|nr|num|number|key|code|ref|uuid|guid)s?$", re.IGNORECASE)
_CAMEL_ID = re.compile(r"[a-z](Id|ID|No|Nr|Key|Ref)$")
_NUMBER = re.compile(r"[+-]?[\d.,]+(e[+-]?\d+)?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}[-/.]\d\d?([-/.]\d\d?)?([T ].*)?|\d\d?[-/.]\d\d?[-/.]\d{2,4}([T ].*)?|\d\d?:\d\d.*")


@dataclass(frozen=True)
class Finding:
    """One line on what was found and what to do, and a few instances of it."""

    text: str
    shown: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """An example that would be kept: its row (position among the raw ones), where it would go."""

    row: int
    split: Split


@dataclass(frozen=True)
class Census:
    """`counts`: label → split → examples; `largest_group`: of so many examples; `kept`: one for each different input
    with a label and a split; `faults`: what `prepare` would refuse."""

    rows: int
    groups: int
    largest_group: int
    merged: int
    counts: dict[str, dict[Split, int]]
    kept: tuple[Kept, ...]
    faults: tuple[Finding, ...]


@dataclass(frozen=True)
class Column:
    """What is known of a column's values. `repeated`: rows whose value stands in another row too; `largest`: rows of
    the commonest value; `numbers`, `dates`, `splits`: whether all values look like that, `words`: whether one has a
    space; `codes` [rows]: equal numbers for equal values."""

    name: str
    rows: int
    empty: int
    different: int
    repeated: int
    largest: int
    mean_length: float
    numbers: bool
    dates: bool
    words: bool
    splits: bool
    codes: Sequence[int]


def declared(labels: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """The labels that a task is to declare, and the name of their order: by number where all are numbers, else by
    alphabet. Of spellings that look the same the commonest; none that has nothing to be seen, or has line ends."""
    counts = Counter(labels)
    spelled: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        if visible(label) and _on_one_line(label):
            spelled.setdefault(plain(label), label)
    if spelled and all(re.fullmatch(r"[+-]?\d{1,15}(\.\d{1,15})?", label, re.ASCII) for label in spelled):
        return tuple(sorted(spelled.values(), key=lambda label: (float(label), label))), "by number"
    return tuple(sorted(spelled.values(), key=lambda label: (label.casefold(), label))), "by alphabet"


def _on_one_line(text: str) -> bool:
    return not any(unicodedata.category(char) in ("Cc", "Zl", "Zp") for char in text)


def letters(count: int) -> tuple[str, ...]:
    """Labels of `count` options: A, B, C, …"""
    return tuple(chr(ord("A") + at) for at in range(count))


def take_census(raws: Sequence[RawExample], labels: Sequence[str]) -> Census:
    """The rules of `pld.data.splits.assemble`, except that nothing stops at the first offence."""
    faults: dict[str, list[str]] = defaultdict(list)
    looks_like = {plain(label): label for label in labels}
    is_declared = frozenset(labels)
    spelled: dict[str, tuple[str, str]] = {}
    place_of_id: dict[str, str] = {}
    split_of_group: dict[str, tuple[Split, str]] = {}
    of_inputs: dict[str, list[tuple[int, Split]]] = {}
    for row, raw in enumerate(raws):
        has_label = raw.label in is_declared
        if not has_label:
            meant = looks_like.get(plain(raw.label))
            known = f", meant as {meant!a:.40}" if meant is not None else ""
            faults["spelling" if visible(raw.label) else "label"].append(
                f"{raw.place}: {raw.label!a:.40}{known}" if visible(raw.label) else raw.place
            )
        has_text = any(map(visible, raw.inputs.values()))
        if not has_text:
            faults["text"].append(raw.place)
        if raw.id is not None and not visible(raw.id):
            faults["id"].append(raw.place)
        elif raw.id is not None and not _on_one_line(raw.id):
            faults["lines"].append(f"{raw.place}: {quoted(raw.id)}")
        elif raw.id is not None and place_of_id.setdefault(raw.id, raw.place) is not raw.place:
            faults["ids"].append(f"{raw.place} and {place_of_id[raw.id]}: {quoted(raw.id)}")
        of_inputs_id = inputs_id(raw.inputs)
        split = _split(raw, of_inputs_id)
        if split is None:
            faults["split"].append(f"{raw.place}: {quoted(raw.split or '')}")
            continue
        if raw.group is not None:
            other, place = spelled.setdefault(plain(raw.group), (raw.group, raw.place))
            if other != raw.group:
                faults["groups"].append(f"{raw.place} {raw.group!a:.40} and {place} {other!a:.40}")
            first, place = split_of_group.setdefault(raw.group, (split, raw.place))
            if first != split:
                faults["group"].append(f"{raw.place} ({split}) and {place} ({first}): {quoted(raw.group)}")
        if has_label and has_text:
            of_inputs.setdefault(of_inputs_id, []).append((row, split))
    kept = []
    counts: dict[str, dict[Split, int]] = {label: dict.fromkeys(SPLITS, 0) for label in labels}
    for rows in of_inputs.values():
        row, split = rows[0]
        kept.append(Kept(row, split))
        counts[raws[row].label][split] += 1
        if len({raws[other].label for other, _ in rows}) > 1:
            by_label: dict[str, str] = {}
            for at, _ in rows:
                by_label.setdefault(raws[at].label, raws[at].place)
            both = ", ".join(f"{place} {quoted(label)}" for label, place in by_label.items())
            faults["labels"].append(f"{both}: {beginning(raws[row])}")
        elif raws[row].split is not None and (moved := [(o, s) for o, s in rows if s != split]):
            places = f"{raws[row].place} ({split}) and {raws[moved[0][0]].place} ({moved[0][1]})"
            faults["splits"].append(f"{places}: {beginning(raws[row])}")
    groups = Counter(raws[example.row].group for example in kept)
    groups.pop(None, None)
    repeats = place_of_id and len(faults["ids"]) > len(raws) / 10
    return Census(
        rows=len(raws),
        groups=len(groups),
        largest_group=max(groups.values(), default=0),
        merged=sum(map(len, of_inputs.values())) - len(kept),
        counts=counts,
        kept=tuple(kept),
        faults=(*_faults(faults, bool(repeats)), *_gaps(counts, raws)),
    )


def _split(raw: RawExample, of_inputs_id: str) -> Split | None:
    if raw.split is None:
        return split_of(raw.group or raw.id or of_inputs_id)
    return SPLIT_NAMES.get(raw.split.strip().lower())


def _faults(found: Mapping[str, list[str]], ids_repeat: bool) -> Iterator[Finding]:
    remedy = (
        "these may be what rows belong to: name the column with --group instead of --id"
        if ids_repeat
        else "delete one of each two rows or change its id, or leave --id out"
    )
    lines = {
        "labels": ("input", "more than one label", "make the labels the same, or delete all rows of it but one"),
        "label": ("row", "no label", "fill in or delete"),
        "spelling": ("row", "a label with blanks or characters that can't be seen", "write as in the other rows"),
        "text": ("row", "no text", "fill in or delete"),
        "id": ("row", "no id", "fill in, or leave --id out"),
        "lines": ("row", "an id with line ends or control characters", "take them out"),
        "ids": ("row", "an id that an earlier row has", remedy),
        "split": ("row", f"a split that is none of {', '.join(SPLIT_NAMES)}", "correct, or leave --split out"),
        "splits": ("input", "rows in more than one split", "delete all rows of it but one"),
        "groups": ("row", "a group that only looks like another row's", "write both alike"),
        "group": ("row", "a group that stands in another split", "give all rows of a group the same split"),
    }
    for kind, (of_what, has, todo) in lines.items():
        if instances := found.get(kind):
            have = f"{of_what} has" if len(instances) == 1 else f"{of_what}s have"
            yield Finding(f"{len(instances):,} {have} {has}: {todo}", few(instances))


def _gaps(counts: Mapping[str, Mapping[Split, int]], raws: Sequence[RawExample]) -> Iterator[Finding]:
    """A split without examples, a label without a training example."""
    brought = bool(raws) and raws[0].split is not None
    for split in SPLITS:
        if not any(row[split] for row in counts.values()):
            remedy = (
                f"mark rows as {split} in the split column"
                if brought
                else "add rows (or groups), or bring a split column with --split"
            )
            yield Finding(f"no example would be in {split}: {remedy}")
    if untrained := [label for label, row in counts.items() if not row["train"]]:
        yield Finding(
            f"no training example of {', '.join(map(quoted, untrained[:SHOWN]))}"
            f"{' and others' if len(untrained) > SHOWN else ''}: add rows of it, or delete those there are"
        )


def alike_labels(counts: Mapping[str, int]) -> Iterator[Finding]:
    """Labels that differ only in case, spaces, punctuation or the coding of their characters."""
    sets: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        bare = re.sub(r"[\s_.,;:'\"()/-]+", "", unicodedata.normalize("NFKC", label).casefold())
        sets[bare if bare and not bare.isdigit() else label].append(label)
    if same := [labels for labels in sets.values() if len(labels) > 1]:
        shown = [", ".join(f"{quoted(label)} ({counts[label]:,} examples)" for label in labels) for labels in same]
        yield Finding(
            "labels differ only in case, spaces or punctuation: if they mean the same, write them alike in the file",
            few(shown),
        )


def rare_labels(counts: Mapping[str, Mapping[Split, int]]) -> Iterator[Finding]:
    """Labels of few training examples, and those that validation or test lack."""
    rare = [label for label, row in counts.items() if 0 < row["train"] < FEW]
    if rare:
        shown = [f"{quoted(label)}: {counts[label]['train']} in train" for label in rare]
        yield Finding(
            f"fewer than {FEW} training examples of a label give it few rules, which hardly make an instruction: "
            "add some if you can",
            few(shown),
        )
    lacking = [
        f"{quoted(label)}: none in {' and '.join(missing)}"
        for label, row in counts.items()
        if (missing := [split for split in SPLITS[1:] if not row[split]]) and row["train"]
    ]
    if lacking:
        yield Finding("where a label has no example, its F1 is 0 whatever the prompt: add rows of it", few(lacking))


def empty_fields(raws: Sequence[RawExample], kept: Sequence[Kept]) -> Iterator[Finding]:
    """Fields without text beside others with text."""
    empty: Counter[str] = Counter()
    for example in kept:
        empty.update(field for field, text in raws[example.row].inputs.items() if not visible(text))
    for field, count in empty.items():
        if count < len(kept) and len(raws[0].inputs) > 1:
            yield Finding(f"{count:,} examples have nothing in {field!r}: the Student sees an empty place there")


def labels_in_text(raws: Sequence[RawExample], labels: Sequence[str]) -> Iterator[Finding]:
    """Texts that say their own label, and hardly ever another one."""
    own = other = rows = 0
    names = {label: _bare_words(label) for label in labels}
    step = max(1, len(raws) // 2000)
    for raw in raws[::step]:
        if raw.label in names:
            text = _bare_words(" ".join(raw.inputs.values()))
            said = {label for label, name in names.items() if name.strip() and name in text}
            rows, own, other = rows + 1, own + (raw.label in said), other + bool(said - {raw.label})
    if rows and own / rows >= 0.8 and other / rows <= 0.2:
        yield Finding(
            f"{own / rows:.0%} of the texts contain their own label as a word, {other / rows:.0%} another one: if the "
            "label was written into the text, take it out, for it will not be there in use"
        )


def _bare_words(text: str) -> str:
    return f" {' '.join(_WORDS.findall(text.lower()))} "


def proxies(raws: Sequence[RawExample]) -> Iterator[Finding]:
    """Input fields of few different values, each of which goes with one label alone."""
    labels = len({raw.label for raw in raws})
    for field in raws[0].inputs if raws else ():
        goes_with: dict[str, str] = {}
        for raw in raws:
            if goes_with.setdefault(raw.inputs[field], raw.label) != raw.label or len(goes_with) > len(raws) / 10:
                break
        else:
            if len(set(goes_with.values())) == labels > 1:
                yield Finding(
                    f"each of the {len(goes_with):,} different values of {field!r} goes with one label alone: if it is "
                    "the label under another name, leave the column out"
                )


class Profile:
    """Gathers what a column's values look like; only a number for each value is held."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._codes: list[int] = []
        self._blank: set[int] = set()
        self._length = self._empty = 0
        self._numbers = self._dates = True
        self._words = False
        self._splits: set[Split | None] = set()

    def add(self, value: str) -> None:
        self._codes.append(hash(value))
        self._length += len(value)
        if not value.strip():
            self._empty += 1
            self._blank.add(self._codes[-1])
            return
        self._numbers = self._numbers and bool(_NUMBER.fullmatch(value))
        self._dates = self._dates and bool(_DATE.fullmatch(value))
        self._words = self._words or any(map(str.isspace, value))
        if None not in self._splits:
            self._splits.add(SPLIT_NAMES.get(value.strip().lower()))

    def column(self) -> Column:
        sizes = Counter(self._codes)
        for code in self._blank:
            del sizes[code]
        return Column(
            name=self._name,
            rows=len(self._codes),
            empty=self._empty,
            different=len(sizes),
            repeated=sum(size for size in sizes.values() if size > 1),
            largest=max(sizes.values(), default=0),
            mean_length=self._length / max(len(self._codes), 1),
            numbers=self._numbers,
            dates=self._dates,
            words=self._words,
            splits=self._splits == set(SPLITS),
            codes=self._codes,
        )


def looks_like_group(column: Column, is_text: bool) -> bool:
    """Whether the values look like the documents (customers, threads) that rows come from: many, most of them in few
    rows, a share of them in several. Not quantities, dates and the few values of a category. An input text may be what
    rows share, too (the clause that several questions are asked of)."""
    return (
        column.different >= 10
        and column.repeated >= column.rows / 20
        and column.largest <= max(column.rows / 5, 2)
        and column.empty <= column.rows / 2
        and not column.dates
        and (not column.numbers or _named_as_id(column.name))
        and (is_text or column.mean_length <= 80)
    )


def looks_like_id(column: Column) -> bool:
    """Whether the values look like names of the rows: all different, short, without spaces, no quantities."""
    return (
        column.rows > 1
        and column.different == column.rows
        and not column.empty
        and not column.words
        and not column.dates
        and column.mean_length <= 64
        and (not column.numbers or _named_as_id(column.name))
    )


def column_hints(
    columns: Sequence[Column], texts: Sequence[str], names_id: bool, names_group: bool, brings_splits: bool
) -> Iterator[Finding]:
    """Columns for --split, --group and --id that were not named. `texts`: names of the input columns."""
    of_splits = [column.name for column in columns if column.splits]
    if of_splits and not brings_splits:
        yield Finding(
            f"the values of {of_splits[0]!r} name splits: with --split {shlex.quote(of_splits[0])} the data keep theirs"
        )
    if not names_group and not brings_splits:
        found = [column for column in columns if looks_like_group(column, column.name in texts)]
        if len(texts) == 1:  # its repetitions are merged
            found = [column for column in found if column.name not in texts]
        found.sort(key=lambda column: (not _named_as_id(column.name), -column.mean_length))  # documents are long
        if found:
            yield Finding(
                "rows that share a value of a column below would stand on both sides of a split: if they belong "
                "together (one document, customer or thread), name it",
                few([f"--group {shlex.quote(column.name)}: {_sizes(column)}" for column in found]),
            )
    ids = sorted(
        (column for column in columns if looks_like_id(column) and column.name not in texts),
        key=lambda column: not _named_as_id(column.name),
    )
    if ids and not names_id:
        yield Finding(
            f"no two values of {ids[0].name!r} are the same: with --id {shlex.quote(ids[0].name)} examples go by it in "
            "all reports, and not by a hash of their text"
        )


def _sizes(column: Column) -> str:
    mean = (column.rows - column.empty) / column.different
    about = f"about {mean:.0f}" if mean >= 1.95 else f"{mean:.1f}"
    return f"{column.different:,} different values, {about} rows each, {column.largest:,} at most"


def _named_as_id(name: str) -> bool:
    return bool(_ID_NAME.search(name) or _CAMEL_ID.search(name))


def twins_across(
    links: Sequence[tuple[int, int, float]], kept: Sequence[Kept], raws: Sequence[RawExample], columns: Sequence[Column]
) -> Iterator[Finding]:
    """Near-duplicates on two sides of a split. `links`: positions in `kept` and what the two have in common, as
    `near_duplicates` gives them."""
    sets: dict[int, list[int]] = {}
    for first, second, _ in links:
        joined = sets.get(first, [first]) + sets.get(second, [second])  # links make trees: never one set twice
        for at in joined:
            sets[at] = joined
    across = {id(held): held for held in sets.values() if len({kept[at].split for at in held}) > 1}
    if not across:
        return
    of_train = sum(
        kept[at].split != "train"
        for held in across.values()
        if any(kept[at].split == "train" for at in held)
        for at in held
    )
    outside = sum(example.split != "train" for example in kept)
    one_of_each = {
        id(sets[first]): (first, second, common)
        for first, second, common in reversed(links)
        if kept[first].split != kept[second].split
    }
    shown = [
        f"{_where(raws, kept[first])} and {_where(raws, kept[second])}, {common:.0%} alike: "
        f"{beginning(raws[kept[first].row])}"
        for first, second, common in sorted(one_of_each.values())
    ]
    where = (
        f"{of_train:,} of the {outside:,} validation and test examples have a near-duplicate in train"
        if of_train
        else f"{len(across):,} sets of near-duplicates stand in both validation and test"
    )
    yield Finding(f"{where}, which makes figures too good: {_remedy(across.values(), kept, columns)}", few(shown))


def _remedy(sets: Iterable[Sequence[int]], kept: Sequence[Kept], columns: Sequence[Column]) -> str:
    """A column that holds the most of the sets together, if one does."""
    held = [[kept[at].row for at in members] for members in sets]
    together = {
        column.name: sum(len({column.codes[row] for row in rows}) == 1 for rows in held) / len(held)
        for column in columns
        if column.different >= 10 and column.repeated
    }
    best = max(together, key=lambda name: together[name], default=None)
    if best is not None and together[best] >= 0.5:
        return f"--group {shlex.quote(best)} would keep {together[best]:.0%} of such sets on one side"
    return "name a column that they share with --group (make one if there is none), or delete all but one of each"


def _where(raws: Sequence[RawExample], example: Kept) -> str:
    raw = raws[example.row]
    return f"{raw.place} ({f'{raw.id:.40}, ' if raw.id is not None else ''}{example.split})"


def few(instances: Sequence[str]) -> tuple[str, ...]:
    """The first of them, and the number of the others."""
    more = len(instances) - SHOWN
    return (*instances[:SHOWN], *([f"… and {more:,} more"] * (more > 0)))


def quoted(text: str, limit: int = 40) -> str:
    """`text` in quotes, nothing in it invisible, its end cut off."""
    return repr(text if len(text) <= limit else f"{text[:limit]}…")


def beginning(raw: RawExample, limit: int = 60) -> str:
    """How an example's text begins, on one line."""
    return quoted(" ".join(" ".join(raw.inputs.values()).split()), limit)


def percentile(ordered_values: Sequence[int], share: float) -> int:
    """The value that `share` of the ordered values do not exceed."""
    return ordered_values[max(0, math.ceil(share * len(ordered_values)) - 1)]


def words_of(name: str) -> str:
    """A column's name as words: "claimText_2" → "claim text 2"."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(_WORDS.findall(apart)).lower() or "text"
