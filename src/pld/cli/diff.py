"""`pld diff`: two prompts or versions, instruction by instruction and answer by answer."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pld.distill.text_checks import one_line
from pld.records import Instruction, Split, prompt_sha256
from pld.reporting.diff import AnswerDiff, ListDiff, TurnDiff, compare_answers, compare_lists, compare_turns

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pld.params import Config
    from pld.reporting.snapshot import Snapshot

ARTIFACTS = Path("artifacts")
_ID = 8  # characters of an instruction's id


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--ids", "with_ids", is_flag=True, help="List the examples whose answers change.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def diff(a: str, b: str, with_ids: bool, as_json: bool) -> None:
    """Print what changes from A to B: instructions, and the answers that they fix and break.

    A and B are each: an alias or a number of the registry (production, 3), artifacts (what ships now), resolve (what
    the loop left), best (what won the sweep), a trial's id, or a folder with instructions.jsonl and messages.json.

    Answers are compared on test if both sides were measured on the same test split, else on validation.
    """
    from rich.console import Console

    found = difference(a, b)
    if as_json:
        click.echo(json.dumps(found.as_json(), ensure_ascii=False, indent=2))
    else:
        show(found, with_ids, Console(width=None if Console().is_terminal else 120))


@dataclass(frozen=True)
class Difference:
    """`lists` None: one side's instructions were not kept; `answers` None: `missing` says why; `settings`: key → values
    that differ (None: no such setting)."""

    before: "Snapshot"
    after: "Snapshot"
    lists: ListDiff | None
    answers: AnswerDiff | None
    missing: str

    @property
    def settings(self) -> dict[str, tuple[str | None, str | None]]:
        trials = bool(self.before.trial and self.after.trial)
        old, new = ({**side.settings, **(side.trial if trials else {})} for side in (self.before, self.after))
        keys = sorted(old.keys() | new.keys())
        return {key: (old.get(key), new.get(key)) for key in keys if old.get(key) != new.get(key)}

    @property
    def turns(self) -> TurnDiff:
        return compare_turns(self.before.messages, self.after.messages)

    @property
    def notes(self) -> list[str]:
        notes, answers = [], self.answers
        if answers and answers.left_out:
            notes.append(f"{answers.left_out} examples left out: answered by one side only, or with other gold labels")
        if answers and answers.split == "validation" and self.before.searching != self.after.searching:
            name = self.before.name if self.before.searching else self.after.name
            notes.append(
                f"{name} answered at student.search_dtype, the other at student.dtype: some answers may differ"
            )
        return notes

    def as_json(self) -> dict[str, object]:
        return {
            **{key: _side(side) for key, side in (("a", self.before), ("b", self.after))},
            "instructions": self.lists and self.lists.model_dump(mode="json"),
            "turns": self.turns.model_dump(mode="json"),
            "settings": [{"key": key, "before": old, "after": new} for key, (old, new) in self.settings.items()],
            "answers": self.answers and self.answers.model_dump(mode="json"),
            "missing": self.missing,
            "notes": self.notes,
        }


def difference(a: str, b: str) -> Difference:
    """Raises what `read_snapshot` raises."""
    from pld.config.settings import load_config
    from pld.reporting.snapshot import read_snapshot

    config = load_config()
    before, after = (read_snapshot(config, ARTIFACTS, name) for name in (a, b))
    lists = None
    if before.instructions is not None and after.instructions is not None:
        lists = compare_lists(before.instructions, after.instructions)
    return Difference(before, after, lists, *_answers(config, before, after))


def show(found: Difference, with_ids: bool, console: "Console") -> None:
    """Print `found`; readable from 80 columns on."""
    sides = _side(found.before), _side(found.after)
    rows = [[key, *(str(side[key] or "unknown") for side in sides)] for key in sides[0] if key != "name"]
    rows += [[key, old or "–", new or "–"] for key, (old, new) in found.settings.items()]
    console.print()
    console.print(_table(("", found.before.name, found.after.name), rows, "left"))
    for line in (*_list_lines(found), *_turn_lines(found.turns), *_answer_lines(found)):
        console.print(line, highlight=False)
    if answers := found.answers:
        console.print(_labels(answers))
        for kind in ("fixed", "broken", "other") if with_ids else ():
            for own in getattr(answers, kind):
                change = f"{kind} {own.example_id}: {own.label}, {own.before or 'none'} → {own.after or 'none'}"
                console.print(change, highlight=False, markup=False)
    for note in found.notes:
        console.print(note, highlight=False, markup=False)


def _answers(config: "Config", before: "Snapshot", after: "Snapshot") -> tuple[AnswerDiff | None, str]:
    """The comparison, or why there is none."""
    from pld.reporting.snapshot import groups_in

    if before.labels != after.labels:
        return None, f"labels differ: {', '.join(before.labels)} and {', '.join(after.labels)}"
    split: Split = "test"
    if "test" not in before.answers or "test" not in after.answers or before.test_digest != after.test_digest:
        split = "validation"
    for side in (before, after):
        if split not in side.answers:
            kept = " and ".join(side.answers) or "no split"
            return None, f"expected answers on the same test split or on validation, got those on {kept} ({side.name})"
        if not {label for row in side.answers[split] for label in (row.label, row.predicted)} <= {*side.labels, None}:
            return None, f"expected the labels {', '.join(side.labels)}, got others on {split} ({side.name})"
    found = compare_answers(
        split,
        (before.name, after.name),
        before.answers[split],
        after.answers[split],
        before.labels,
        groups_in(ARTIFACTS, split, before.test_digest),
        config.evaluation.resamples,
        config.evaluation.seed,
    )
    return found, "" if found else f"no example of {split} has answers of both"


def _side(side: "Snapshot") -> dict[str, str | int | None]:
    return {
        "name": side.name,
        "what": side.what,
        "prompt_sha256": prompt_sha256(side.messages),
        "prompt_tokens": side.tokens,
        "instructions": None if side.instructions is None else len(side.instructions),
    }


def _list_lines(found: Difference) -> "Iterator[Text]":
    from rich.text import Text

    lists = found.lists
    if lists is None:
        gone = found.before if found.before.instructions is None else found.after
        yield Text(f"instructions: those of {gone.name} were not kept")
        return
    yield Text(
        f"instructions: {len(lists.added)} added, {len(lists.removed)} removed, {len(lists.reworded)} reworded, "
        f"{len(lists.unchanged)} unchanged",
        style="bold",
    )
    yield from (Text(f"- {_named(own)} {own.text}", style="red") for own in lists.removed)
    yield from (Text(f"+ {_named(own)} {own.text}", style="green") for own in lists.added)
    for own in lists.reworded:
        text = Text(f"~ {own.before.id[:_ID]} → {_named(own.after)} {own.words}")
        text.highlight_regex(r"\[-.*?-\]", "red")
        text.highlight_regex(r"\{\+.*?\+\}", "green")
        yield text
    if not (lists.added or lists.removed or lists.reworded):
        same = found.before.messages == found.after.messages
        yield Text("the same prompt" if same else "the same instructions, in another order or rendered differently")


def _turn_lines(turns: TurnDiff) -> "Iterator[Text]":
    from rich.text import Text

    if not (turns.added or turns.removed or turns.unchanged):
        return
    counts = f"{len(turns.added)} added, {len(turns.removed)} removed, {len(turns.unchanged)} unchanged"
    yield Text(f"example turns: {counts}{', in another order' if turns.reordered else ''}", style="bold")
    yield from (Text(f"- {one_line(turn.input)} → {turn.label}", style="red") for turn in turns.removed)
    yield from (Text(f"+ {one_line(turn.input)} → {turn.label}", style="green") for turn in turns.added)


def _answer_lines(found: Difference) -> "Iterator[Text]":
    from rich.text import Text

    answers = found.answers
    if answers is None:
        yield Text(f"answers: not compared: {found.missing}")
        return
    yield Text(
        f"answers on {answers.split}, n = {answers.n}: {len(answers.fixed)} fixed, {len(answers.broken)} broken, "
        f"{len(answers.other)} wrong in another way",
        style="bold",
    )
    compared = answers.comparison
    yield Text(f"macro-F1 {compared.macro_f1_delta.signed}, McNemar p = {compared.mcnemar_p:.2g}")


def _labels(answers: AnswerDiff) -> "Table":
    columns = ("gold label", "n", "fixed", "broken", "other", "F1", "F1 after", "change")
    rows = []
    for own in answers.per_label:
        counts = (str(own.n), str(own.fixed), str(own.broken), str(own.other))
        f1 = (f"{own.f1_before:.3f}", f"{own.f1_after:.3f}", f"{own.f1_after - own.f1_before:+.3f}")
        rows.append((own.label, *counts, *f1))
    return _table(columns, rows, "right")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], justify: Literal["left", "right"]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for place, column in enumerate(columns):
        table.add_column(Text(column), justify=justify if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _named(own: Instruction) -> str:
    return f"{own.id[:_ID]} ({own.label})"
