"""What to fix in a file of labelled examples before `prepare` takes it, and what it takes but is worth a look."""

import re
import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from pld.data.audit.columns import SHOWN, Column, Finding, column_hints, columns_of
from pld.data.audit.draft import Draft
from pld.data.audit.lengths import Lengths
from pld.data.near_duplicates import near_duplicates
from pld.data.splits import Assembly, RawExample
from pld.progress import progress
from pld.task_params import RecordsReader

FEW = 10
"""Training examples below which a label is called rare: its rules hardly make a cluster."""
_WORDS = re.compile(r"[^\W_]+")


def faults(assembly: Assembly) -> Iterator[Finding]:
    """Every reason for which `prepare` would refuse the file, by kind."""
    ordered = sorted(assembly.offences, key=lambda offence: offence.kind)
    for kind, group in groupby(ordered, key=lambda offence: offence.kind):
        same = list(group)
        rows = "1 row" if len(same) == 1 else f"{len(same):,} rows"
        # hints only for the offences that are shown: guessing takes time
        shown = [f"{one.raw.place}: got {one.got}{one.hint() if at < SHOWN else ''}" for at, one in enumerate(same)]
        yield Finding.of(f"{kind} in {rows}: {same[0].remedy}", shown)
    for gap in assembly.gaps:
        yield Finding(gap)


def warnings(draft: Draft, assembly: Assembly, lengths: Lengths | None, file: Path) -> Iterator[Finding]:
    """What `prepare` would take and is worth a look, the most serious first."""
    raws, examples, reader = draft.raws, assembly.examples, draft.task.reader
    assert isinstance(reader, RecordsReader)
    columns = columns_of(file)
    with progress("comparing texts", len(examples)) as advance:
        links = near_duplicates([" ".join(example.inputs.values()) for example in examples], advance)
    yield from proxies(raws)
    yield from labels_in_text(raws, draft.task.labels)
    yield from near_duplicates_across_splits(links, raws, assembly, columns if reader.group is None else [])
    others = [column for column in columns if column.name not in (reader.label, reader.id, reader.group)]
    named = reader.id is not None, reader.group is not None, reader.split is not None
    yield from column_hints(others, tuple(reader.fields.values()), *named)
    counts = assembly.summary.counts
    yield from similar_labels({label: sum(row[label] for row in counts.values()) for label in draft.task.labels})
    if rare := [f"{quoted(label)}: {count} in train" for label, count in counts["train"].items() if 0 < count < FEW]:
        yield Finding.of(
            f"a label with fewer than {FEW} training examples gets few rules, which hardly make an instruction: add "
            "some if you can",
            rare,
        )
    if lengths is not None and lengths.too_long:
        yield Finding.of(
            f"{len(lengths.too_long):,} inputs are longer than the Student's context of {lengths.context:,} tokens, "
            "even without a prompt, and would count as wrong: shorten them, or choose a Student with a longer context",
            [raws[assembly.rows[at]].place for at in lengths.too_long],
        )
    if lengths is not None and lengths.exceed_window:
        several = len(draft.task.fields) > 1
        by = "as the mean of its fields" if several else "as the mean of its parts"
        yield Finding.of(
            f"{len(lengths.exceed_window):,} inputs are longer than the embedder's window of {lengths.window:,} "
            f"tokens: what compares inputs (nearest examples, the classifier on embeddings) sees each of them {by}",
            [raws[assembly.rows[at]].place for at in lengths.exceed_window],
        )


def similar_labels(counts: Mapping[str, int]) -> Iterator[Finding]:
    """Labels that differ only in case, spaces, punctuation or Unicode form."""
    sets: dict[str, list[str]] = defaultdict(list)
    for label in counts:
        bare = re.sub(r"[\s_.,;:'\"()/-]+", "", unicodedata.normalize("NFKC", label).casefold())
        sets[bare if bare and not bare.isdigit() else label].append(label)
    if same := [labels for labels in sets.values() if len(labels) > 1]:
        shown = [", ".join(f"{quoted(label)} ({counts[label]:,} examples)" for label in labels) for labels in same]
        yield Finding.of(
            "labels differ only in case, spaces or punctuation: if they mean the same, spell them the same in the file",
            shown,
        )


def labels_in_text(raws: Sequence[RawExample], labels: Sequence[str]) -> Iterator[Finding]:
    """Texts that contain their own label, and hardly ever another one."""
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
            "label was written into the text, remove it, because it will not be there in use"
        )


def _bare_words(text: str) -> str:
    return f" {' '.join(_WORDS.findall(text.lower()))} "


def proxies(raws: Sequence[RawExample]) -> Iterator[Finding]:
    """Input fields with few different values, each of which goes with one label alone."""
    labels = len({raw.label for raw in raws})
    for name in raws[0].inputs if raws else ():
        goes_with: dict[str, str] = {}
        for raw in raws:
            if goes_with.setdefault(raw.inputs[name], raw.label) != raw.label or len(goes_with) > len(raws) / 10:
                break
        else:
            if len(set(goes_with.values())) == labels > 1:
                yield Finding(
                    f"each of the {len(goes_with):,} different values of {name!r} goes with one label alone: if it is "
                    "the label under another name, leave the column out"
                )


def near_duplicates_across_splits(
    links: Sequence[tuple[int, int, float]], raws: Sequence[RawExample], assembly: Assembly, columns: Sequence[Column]
) -> Iterator[Finding]:
    """Near-duplicates in different splits. `links`: positions among the examples and what the two have in common, as
    `near_duplicates` gives them."""
    from scipy.cluster.hierarchy import DisjointSet

    splits = [example.split for example in assembly.examples]
    sets = DisjointSet(at for first, second, _ in links for at in (first, second))
    for first, second, _ in links:
        sets.merge(first, second)
    across = [twins for twins in sets.subsets() if len({splits[at] for at in twins}) > 1]
    if not across:
        return
    seen_in_train = sum(
        splits[at] != "train" for twins in across if any(splits[at] == "train" for at in twins) for at in twins
    )
    one_of_each = {
        sets[first]: (first, second, common)
        for first, second, common in reversed(links)
        if splits[first] != splits[second]
    }

    def named(at: int) -> str:
        raw = raws[assembly.rows[at]]
        return f"{raw.place} ({f'{raw.id:.40}, ' if raw.id is not None else ''}{splits[at]})"

    shown = [
        f"{named(first)} and {named(second)}, {common:.0%} alike: {beginning(raws[assembly.rows[first]])}"
        for first, second, common in sorted(one_of_each.values())
    ]
    what = (
        f"{seen_in_train:,} of the {sum(split != 'train' for split in splits):,} validation and test examples have a "
        "near-duplicate in train"
        if seen_in_train
        else f"{len(across):,} sets of near-duplicates are in both validation and test"
    )
    rows = [[assembly.rows[at] for at in twins] for twins in across]
    yield Finding.of(f"{what}, which inflates the scores: {_remedy(rows, columns)}", shown)


def _remedy(sets: Sequence[Sequence[int]], columns: Sequence[Column]) -> str:
    """A column that would keep most of the sets (of rows) together, if there is one."""
    together = {
        column.name: sum(len({column.values[row] for row in rows}) == 1 for rows in sets) / len(sets)
        for column in columns
        if len(column.rows_of) >= 10 and max(column.rows_of.values()) > 1
    }
    best = max(together, key=lambda name: together[name], default=None)
    if best is not None and together[best] >= 0.5:
        return f"--group {shlex.quote(best)} would keep {together[best]:.0%} of such sets in one split"
    return "name a column that they share with --group (add one if there is none), or delete all but one of each"


def quoted(text: str, limit: int = 40) -> str:
    """`text` in quotes and shortened, with invisible characters escaped."""
    return repr(text if len(text) <= limit else f"{text[:limit]}…")


def beginning(raw: RawExample, limit: int = 60) -> str:
    """How an example's text begins, on one line."""
    return quoted(" ".join(" ".join(raw.inputs.values()).split()), limit)
