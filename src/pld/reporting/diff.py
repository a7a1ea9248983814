"""Compares two prompts: instructions added, removed and reworded, example turns, and examples that are answered
differently."""

import difflib
from collections.abc import Mapping, Sequence

from pld.metrics import compare, indices, label_scores
from pld.records import Instruction, Messages, Prediction, Record, Split
from pld.reports import Comparison

_SAME_RULES = 0.5  # Jaccard index of rule ids from which two texts are one instruction, reworded


class Reworded(Record):
    """One instruction in other words. `words`: its text with `[-removed-]` and `{+added+}` words."""

    before: Instruction
    after: Instruction
    words: str


class ListDiff(Record):
    """Every instruction of either list is in here once, in the order of its list (`reworded`: of the later one)."""

    added: tuple[Instruction, ...]
    removed: tuple[Instruction, ...]
    reworded: tuple[Reworded, ...]
    unchanged: tuple[Instruction, ...]


class Turn(Record):
    """A training example that the prompt shows as a turn of the chat: its rendered input and its label."""

    input: str
    label: str


class TurnDiff(Record):
    """The example turns of both prompts, each in the order of its prompt; `reordered`: the unchanged ones are."""

    added: tuple[Turn, ...]
    removed: tuple[Turn, ...]
    unchanged: tuple[Turn, ...]
    reordered: bool


class ChangedAnswer(Record):
    """An example that is answered differently; None: unparsable."""

    example_id: str
    label: str
    before: str | None
    after: str | None


class LabelChanges(Record):
    """Counts over the examples with this gold label; `other`: wrong before and wrong after, with another label."""

    label: str
    n: int
    fixed: int
    broken: int
    other: int
    f1_before: float
    f1_after: float


class AnswerDiff(Record):
    """`comparison`: after minus before; `left_out`: examples that only one side answered, or that have different gold
    labels."""

    split: Split
    n: int
    left_out: int
    comparison: Comparison
    per_label: tuple[LabelChanges, ...]
    fixed: tuple[ChangedAnswer, ...]
    broken: tuple[ChangedAnswer, ...]
    other: tuple[ChangedAnswer, ...]


def compare_lists(before: Sequence[Instruction], after: Sequence[Instruction]) -> ListDiff:
    """Same label and text: unchanged. Same label and at least half of their rules in common: reworded."""
    old, new = list(before), []
    unchanged, reworded, added = [], [], []
    for own in after:
        same = next((other for other in old if (other.label, other.text) == (own.label, own.text)), None)
        if same is None:
            new.append(own)
        else:
            old.remove(same)
            unchanged.append(own)
    for own in new:
        was = max((other for other in old if other.label == own.label), key=lambda it: _overlap(it, own), default=None)
        if was is None or _overlap(was, own) < _SAME_RULES:
            added.append(own)
        else:
            old.remove(was)
            reworded.append(Reworded(before=was, after=own, words=word_diff(was.text, own.text)))
    return ListDiff(added=tuple(added), removed=tuple(old), reworded=tuple(reworded), unchanged=tuple(unchanged))


def compare_turns(before: Messages, after: Messages) -> TurnDiff:
    """By input and label."""
    old, new = turns_of(before), turns_of(after)
    unchanged = tuple(turn for turn in new if turn in old)
    return TurnDiff(
        added=tuple(turn for turn in new if turn not in old),
        removed=tuple(turn for turn in old if turn not in new),
        unchanged=unchanged,
        reordered=unchanged != tuple(turn for turn in old if turn in new),
    )


def turns_of(messages: Messages) -> list[Turn]:
    """The example turns of a prompt."""
    pairs = zip(messages[1::2], messages[2::2], strict=True)
    return [Turn(input=user.content, label=assistant.content) for user, assistant in pairs]


def word_diff(before: str, after: str) -> str:
    """The words of both texts, `[-removed-]` and `{+added+}` ones in brackets."""
    old, new = before.split(), after.split()
    parts = []
    for op, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if op == "equal":
            parts.append(" ".join(old[i:j]))
            continue
        parts += [f"[-{' '.join(old[i:j])}-]"] if j > i else []
        parts += [f"{{+{' '.join(new[k:m])}+}}"] if m > k else []
    return " ".join(parts)


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
    """Over the examples that both sides answered with the same gold label, by id; None if there are none. `groups`:
    example id → group ({}: the examples are independent)."""
    old = {row.example_id: row for row in before}
    new = {row.example_id: row for row in after}
    both = sorted(key for key in old.keys() & new.keys() if old[key].label == new[key].label)
    if not both:
        return None
    changed = [
        ChangedAnswer(example_id=key, label=new[key].label, before=old[key].predicted, after=new[key].predicted)
        for key in both
        if old[key].predicted != new[key].predicted
    ]
    fixed = tuple(own for own in changed if own.after == own.label)
    broken = tuple(own for own in changed if own.before == own.label)
    other = tuple(own for own in changed if own.label not in (own.before, own.after))
    gold = indices([new[key].label for key in both], labels)
    then, now = (indices([rows[key].predicted for key in both], labels) for rows in (old, new))
    f1_before, f1_after = (label_scores(gold, chosen, len(labels))[1] for chosen in (then, now))
    own_groups = [groups.get(key, f"id:{key}") for key in both] if groups else None
    return AnswerDiff(
        split=split,
        n=len(both),
        left_out=len(old.keys() | new.keys()) - len(both),
        comparison=compare(names[1], names[0], gold, now, then, len(labels), own_groups, resamples, seed),
        per_label=tuple(
            LabelChanges(
                label=label,
                n=int((gold == place).sum()),
                fixed=sum(own.label == label for own in fixed),
                broken=sum(own.label == label for own in broken),
                other=sum(own.label == label for own in other),
                f1_before=float(f1_before[place]),
                f1_after=float(f1_after[place]),
            )
            for place, label in enumerate(labels)
        ),
        fixed=fixed,
        broken=broken,
        other=other,
    )


def _overlap(a: Instruction, b: Instruction) -> float:
    union = {*a.rule_ids, *b.rule_ids}
    return len({*a.rule_ids} & {*b.rule_ids}) / len(union) if union else 0.0
