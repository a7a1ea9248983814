"""Two prompts side by side: what became of each instruction, and which answers are others. Seen from B it is the mirror
image of what is seen from A."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from pld.metrics import Indices, compare, indices, label_scores
from pld.records import Comparison, Instruction, Prediction, Record, Split

_SHARING = 0.4  # of their words, for two that share rules to be the same instruction in other words
_ALIKE = 0.7  # of their words, where nothing else links them

Earlier = Mapping[str, Collection[str]]
"""Instruction id → ids of the instructions that it was before its Edits."""


class Listed(Record):
    """An instruction in its place, from 1."""

    place: int
    id: str
    label: str
    text: str


class Piece(Record):
    """Some words of one text or of both, parted by single spaces."""

    op: Literal["same", "removed", "added"]
    words: str


class Pair(Record):
    """An instruction of both lists. `moved`: it stands elsewhere among those that both have."""

    before: Listed
    after: Listed
    moved: bool


class Reworded(Pair):
    """`by`: what links the two: an Edit, rules that both rest on, or most of their words."""

    by: Literal["edit", "rules", "words"]
    pieces: tuple[Piece, ...]


class ListDiff(Record):
    """Every instruction of either list stands here once, each in the order of its list (pairs: of the later one)."""

    added: tuple[Listed, ...]
    removed: tuple[Listed, ...]
    reworded: tuple[Reworded, ...]
    unchanged: tuple[Pair, ...]

    @property
    def moved(self) -> int:
        return sum(pair.moved for pair in (*self.reworded, *self.unchanged))


class Setting(Record):
    """Something else that answers depend on, and that differs; None: it is not there."""

    key: str
    before: str | None
    after: str | None


class Changed(Record):
    """An example that is answered otherwise; None: no label could be chosen."""

    example_id: str
    label: str
    before: str | None
    after: str | None


class LabelChanges(Record):
    """Of the examples with this gold label; `other`: wrong before, and wrong in another way after."""

    label: str
    n: int
    fixed: int
    broken: int
    other: int
    f1_before: float
    f1_after: float


class AnswerDiff(Record):
    """`comparison`: after less before; `left_out`: examples that one side alone answered, or that have another label
    there."""

    split: Split
    n: int
    left_out: int
    comparison: Comparison
    per_label: tuple[LabelChanges, ...]
    fixed: tuple[Changed, ...]
    broken: tuple[Changed, ...]
    other: tuple[Changed, ...]


def compare_lists(
    before: Sequence[Instruction], after: Sequence[Instruction], earlier: Earlier, later: Earlier
) -> ListDiff:
    """`earlier`: what instructions of `after` were before; `later`: the same for those of `before`, should `after` be
    the older list.

    The same label and text: unchanged. What an Edit links; what has the same label and rests on a common rule or is
    alike: reworded, the closest first. The rest was removed or added.
    """
    pairs = _unchanged(before, after)
    links = _links(before, after, pairs, earlier, later)
    matched = sorted((*pairs, *links), key=lambda pair: pair[1])
    ranks = {pair: rank for rank, pair in enumerate(sorted(matched))}  # by the place before
    moved = {pair: ranks[pair] != rank for rank, pair in enumerate(matched)}
    there, here = _listed(before), _listed(after)
    return ListDiff(
        added=tuple(own for j, own in enumerate(here) if j not in {pair[1] for pair in matched}),
        removed=tuple(own for i, own in enumerate(there) if i not in {pair[0] for pair in matched}),
        reworded=tuple(
            Reworded(
                before=there[i],
                after=here[j],
                moved=moved[i, j],
                by=links[i, j],
                pieces=word_diff(there[i].text, here[j].text),
            )
            for i, j in matched
            if (i, j) in links
        ),
        unchanged=tuple(
            Pair(before=there[i], after=here[j], moved=moved[i, j]) for i, j in matched if (i, j) not in links
        ),
    )


def word_diff(before: str, after: str) -> tuple[Piece, ...]:
    """What of the words went and came, in turn; what goes stands before what comes in its place."""
    mirrored = before > after  # difflib may find another alignment the other way round
    old, new = before.split(), after.split()
    codes = _matcher(new, old).get_opcodes() if mirrored else _matcher(old, new).get_opcodes()
    pieces = []
    for op, first, last, *others in codes:
        old_words, new_words = old[first:last], new[others[0] : others[1]]
        if mirrored:
            old_words, new_words = old[others[0] : others[1]], new[first:last]
        if op == "equal":
            pieces.append(Piece(op="same", words=" ".join(old_words)))
            continue
        if old_words:
            pieces.append(Piece(op="removed", words=" ".join(old_words)))
        if new_words:
            pieces.append(Piece(op="added", words=" ".join(new_words)))
    return tuple(pieces)


def compare_settings(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Setting, ...]:
    """Keys of either whose values differ, sorted."""
    return tuple(
        Setting(key=key, before=before.get(key), after=after.get(key))
        for key in sorted({*before, *after})
        if before.get(key) != after.get(key)
    )


def compare_answers(
    split: Split,
    names: tuple[str, str],
    before: Sequence[Prediction],
    after: Sequence[Prediction],
    labels: Sequence[str],
    groups: Mapping[str, str],
    resamples: int,
    seed: int,
) -> AnswerDiff | None:
    """On the examples that both answered with the same gold label, in the order of their ids; None where there is
    none. `groups` of examples ({}: there are none)."""
    old = {row.example_id: row for row in before}
    new = {row.example_id: row for row in after}
    both = [identity for identity in sorted({*old, *new}) if _same_example(old.get(identity), new.get(identity))]
    if not both:
        return None
    gold, then, now = (
        indices([getattr(rows[identity], field) for identity in both], labels)
        for rows, field in ((new, "label"), (old, "predicted"), (new, "predicted"))
    )
    changes = [
        Changed(
            example_id=identity,
            label=new[identity].label,
            before=old[identity].predicted,
            after=new[identity].predicted,
        )
        for identity in both
        if old[identity].predicted != new[identity].predicted
    ]
    fixed = tuple(found for found in changes if found.after == found.label)
    broken = tuple(found for found in changes if found.before == found.label)
    other = tuple(found for found in changes if found.label not in (found.before, found.after))
    own_groups = [groups.get(identity, f"id:{identity}") for identity in both] if groups else None
    earlier, later = names
    return AnswerDiff(
        split=split,
        n=len(both),
        left_out=len({*old, *new}) - len(both),
        comparison=compare(later, earlier, gold, now, then, len(labels), own_groups, resamples, seed),
        per_label=_by_label(labels, gold, then, now, (fixed, broken, other)),
        fixed=fixed,
        broken=broken,
        other=other,
    )


def _unchanged(before: Sequence[Instruction], after: Sequence[Instruction]) -> set[tuple[int, int]]:
    """Places in both lists of what says the same; the first with the first, where it stands there more than once."""
    places: dict[tuple[str, str], list[int]] = {}
    for j, own in enumerate(after):
        places.setdefault((own.label, own.text), []).append(j)
    pairs = set()
    for i, own in enumerate(before):
        if left := places.get((own.label, own.text)):
            pairs.add((i, left.pop(0)))
    return pairs


def _links(
    before: Sequence[Instruction],
    after: Sequence[Instruction],
    taken: set[tuple[int, int]],
    earlier: Earlier,
    later: Earlier,
) -> dict[tuple[int, int], Literal["edit", "rules", "words"]]:
    """Places of what is reworded, and what links them; each place once, the closest pairs first."""
    free = [i for i in range(len(before)) if i not in {pair[0] for pair in taken}]
    open_ = [j for j in range(len(after)) if j not in {pair[1] for pair in taken}]
    found: list[tuple[tuple[float, ...], tuple[int, int], Literal["edit", "rules", "words"]]] = []
    for i in free:
        for j in open_:
            a, b = before[i], after[j]
            alike, shared = _likeness(a.text, b.text), _overlap(a.rule_ids, b.rule_ids)
            by: Literal["edit", "rules", "words"]
            if a.id in earlier.get(b.id, ()) or b.id in later.get(a.id, ()):
                by = "edit"
            elif a.label == b.label and shared and alike >= _SHARING:
                by = "rules"
            elif a.label == b.label and alike >= _ALIKE:
                by = "words"
            else:
                continue
            # the last two are the same seen from either side, so that ties fall out the same way
            found.append(((-(by == "edit"), -shared - alike, i + j, abs(i - j)), (i, j), by))
    links: dict[tuple[int, int], Literal["edit", "rules", "words"]] = {}
    for _, (i, j), by in sorted(found):
        if all(i != pair[0] and j != pair[1] for pair in links):
            links[i, j] = by
    return links


def _likeness(a: str, b: str) -> float:
    """Share of words in common, the same whichever text comes first."""
    first, second = sorted((a, b))
    return _matcher(first.split(), second.split()).ratio()


def _overlap(a: Collection[str], b: Collection[str]) -> float:
    union = {*a, *b}
    return len({*a} & {*b}) / len(union) if union else 0.0


def _matcher(a: Sequence[str], b: Sequence[str]) -> "difflib.SequenceMatcher[str]":
    return difflib.SequenceMatcher(None, a, b, autojunk=False)


def _listed(instructions: Sequence[Instruction]) -> list[Listed]:
    return [Listed(place=place, id=own.id, label=own.label, text=own.text) for place, own in enumerate(instructions, 1)]


def _same_example(a: Prediction | None, b: Prediction | None) -> bool:
    return a is not None and b is not None and a.label == b.label


def _by_label(
    labels: Sequence[str], gold: Indices, then: Indices, now: Indices, changes: Sequence[Sequence[Changed]]
) -> tuple[LabelChanges, ...]:
    f1_before, f1_after = (label_scores(gold, chosen, len(labels))[1] for chosen in (then, now))
    rows = []
    for place, label in enumerate(labels):
        fixed, broken, other = (sum(change.label == label for change in kind) for kind in changes)
        rows.append(
            LabelChanges(
                label=label,
                n=int((gold == place).sum()),
                fixed=fixed,
                broken=broken,
                other=other,
                f1_before=float(f1_before[place]),
                f1_after=float(f1_after[place]),
            )
        )
    return tuple(rows)
