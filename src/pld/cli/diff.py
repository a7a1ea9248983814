"""`pld diff`: two prompts or versions, instruction by instruction and answer by answer."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pld.records import Record, Split, sha256
from pld.reporting.diff import (
    AnswerDiff,
    Changed,
    ListDiff,
    Listed,
    Reworded,
    Setting,
    compare_answers,
    compare_lists,
    compare_settings,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pld.params import Config
    from pld.reporting.snapshot import Side

ARTIFACTS = Path("artifacts")
_SHOWN = 8  # characters of an id; `pld explain` takes four
_MARKS = {"same": ("", "", ""), "removed": ("[-", "-]", "red"), "added": ("{+", "+}", "green")}


class Compared(Record):
    """A side, for a reader. None: it is not known."""

    name: str
    what: str
    prompt_sha256: str
    prompt_tokens: int | None
    instructions: int | None


class Difference(Record):
    """`instructions` None: those of a side are gone; `answers` None: `missing` says why."""

    a: Compared
    b: Compared
    instructions: ListDiff | None
    settings: tuple[Setting, ...]
    answers: AnswerDiff | None
    missing: str
    notes: tuple[str, ...]

    @property
    def none(self) -> bool:
        """Whether nothing differs of all that is known."""
        found, answers = self.instructions, self.answers
        lists = found is not None and bool(found.added or found.removed or found.reworded or found.moved)
        changes = answers is not None and bool(answers.fixed or answers.broken or answers.other)
        return not (self.a.prompt_sha256 != self.b.prompt_sha256 or lists or self.settings or changes)


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--ids", "with_ids", is_flag=True, help="List the examples whose answers change.")
@click.option("--measure", is_flag=True, help="Compare on validation; the Student answers where nothing is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print one object instead, for a program.")
def diff(a: str, b: str, with_ids: bool, measure: bool, as_json: bool) -> None:
    """Print what changes from A to B: instructions, and the answers that they fix and break.

    A and B are each: an alias or a number of the registry (production, 3), artifacts (what ships now), resolve (what
    the loop left), best (what won the sweep), a trial's id, or a folder with instructions.jsonl and system_prompt.md.

    Answers are those that are kept of both on the same examples: of test, else of validation.
    """
    found = difference(a, b, measure)
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    show(found, with_ids, Console(width=None if Console().is_terminal else 120))


def difference(a: str, b: str, measure: bool = False) -> Difference:
    """Read both sides, and measure what is not known where that is wanted. Raises what `read_side` raises."""
    from pld.params import load_config
    from pld.reporting.snapshot import read_side, with_tokens

    config = load_config()
    before, after = (read_side(config, ARTIFACTS, wanted) for wanted in (a, b))
    if measure:
        before, after = _measured(config, before, after)
    before, after = with_tokens(before), with_tokens(after)
    lists = None
    if before.instructions is not None and after.instructions is not None:
        lists = compare_lists(before.instructions, after.instructions, after.earlier, before.earlier)
    answers, missing, notes = _answers(config, before, after, measure)
    return Difference(
        a=_compared(before),
        b=_compared(after),
        instructions=lists,
        settings=_settings(before, after),
        answers=answers,
        missing=missing,
        notes=tuple(notes),
    )


def show(found: Difference, with_ids: bool, console: "Console") -> None:
    """Print `found`; readable from 80 columns on."""
    console.print()
    console.print(_sides(found))
    if found.none:
        console.print("no difference")
    for line in (*_list_lines(found), *_answer_lines(found)):
        console.print(line, highlight=False)
    if found.answers is not None and (found.answers.fixed or found.answers.broken or found.answers.other):
        console.print(_labels(found.answers))
        for change in _ids(found.answers) if with_ids else ():
            console.print(change, highlight=False, markup=False)
    for note in found.notes:
        console.print(note, highlight=False, markup=False)


def _measured(config: "Config", before: "Side", after: "Side") -> tuple["Side", "Side"]:
    from pld.progress import progress
    from pld.reporting.snapshot import Asked

    def known(side: "Side") -> bool:
        return "validation" in side.answers and not side.answers["validation"].searching

    if known(before) and known(after):
        return before, after
    asked = Asked(config, ARTIFACTS)
    with progress("diff", sum(asked.examples(side) for side in (before, after) if not known(side))) as advance:
        asked.on_progress = advance
        one, other = (side if known(side) else asked.answer(side) for side in (before, after))
        return one, other


def _answers(
    config: "Config", before: "Side", after: "Side", measured: bool
) -> tuple[AnswerDiff | None, str, Iterator[str]]:
    """The comparison, or why there is none; and what to know of it."""
    from pld.reporting.snapshot import groups_in

    if before.task.labels != after.task.labels:
        labels = " and ".join(", ".join(side.task.labels) for side in (before, after))
        return None, f"their labels differ: {labels}", iter(())
    split = "validation" if measured else _shared(before, after)
    if split is None:
        return None, f"{_lacking(before, after)}; `--measure` asks the Student on validation", iter(())
    old, new = before.answers[split], after.answers[split]
    known = {*before.task.labels, None}
    if not {label for row in (*old.rows, *new.rows) for label in (row.label, row.predicted)} <= known:
        return None, f"answers on {split} have other labels than {', '.join(before.task.labels)}", iter(())
    found = compare_answers(
        split,
        (before.name, after.name),
        old.rows,
        new.rows,
        before.task.labels,
        groups_in(ARTIFACTS, split, old.of),
        config.evaluation.resamples,
        config.evaluation.seed,
    )
    missing = "" if found else f"they answered different examples of {split}"
    return found, missing, _notes(before, after, split, found)


def _notes(before: "Side", after: "Side", split: Split, found: AnswerDiff | None) -> Iterator[str]:
    if found is not None and found.left_out:
        yield f"{found.left_out} examples are left out: one side alone answered them, or their labels differ"
    searching = [side.name for side in (before, after) if side.answers[split].searching]
    if len(searching) == 1:
        yield (
            f"answers of {searching[0]} were given at the sweep's precision (student.search_dtype), the other ones at "
            "that of reported figures: some change by that alone; `--measure` asks again"
        )


def _settings(before: "Side", after: "Side") -> tuple[Setting, ...]:
    """What else differs; the settings of trials, where both sides go back to one."""
    trials = bool(before.trial and after.trial)
    one, other = ({**side.settings, **(side.trial if trials else {})} for side in (before, after))
    return compare_settings(one, other)


def _shared(before: "Side", after: "Side") -> Split | None:
    """The split on which answers of both are kept, of the same examples."""
    if "test" in before.answers and "test" in after.answers and before.answers["test"].of == after.answers["test"].of:
        return "test"
    return "validation" if "validation" in before.answers and "validation" in after.answers else None


def _lacking(before: "Side", after: "Side") -> str:
    if "test" in before.answers and "test" in after.answers:
        return f"answers of {before.name} and {after.name} are kept on different test sets"
    kept = [f"{side.name} has those on {' and '.join(side.answers) or 'nothing'}" for side in (before, after)]
    return f"no answers of both are kept on the same examples: {', '.join(kept)}"


def _compared(side: "Side") -> Compared:
    return Compared(
        name=side.name,
        what=side.what,
        prompt_sha256=sha256(side.prompt),
        prompt_tokens=side.tokens,
        instructions=None if side.instructions is None else len(side.instructions),
    )


def _sides(found: Difference) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"from {found.a.name} to {found.b.name}"), title_justify="left")
    for column in ("", found.a.name, found.b.name):
        table.add_column(Text(column), overflow="fold")
    rows = [
        ("", found.a.what, found.b.what),
        ("prompt", found.a.prompt_sha256[:12], found.b.prompt_sha256[:12]),
        ("tokens", _number(found.a.prompt_tokens), _number(found.b.prompt_tokens)),
        ("instructions", _number(found.a.instructions), _number(found.b.instructions)),
        *((setting.key, setting.before or "–", setting.after or "–") for setting in found.settings),
    ]
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _list_lines(found: Difference) -> "Iterator[Text]":
    from rich.text import Text

    lists = found.instructions
    if lists is None:
        gone = found.a.name if found.a.instructions is None else found.b.name
        yield Text(f"instructions: those of {gone} are gone; the prompts alone are compared")
        return
    yield Text(
        f"instructions: {len(lists.added)} added, {len(lists.removed)} removed, {len(lists.reworded)} reworded, "
        f"{len(lists.unchanged)} unchanged, {lists.moved} of those in both at another place",
        style="bold",
    )
    yield from (Text(f"- {_named(own)} {own.text}", style="red") for own in lists.removed)
    yield from (Text(f"+ {_named(own)} {own.text}", style="green") for own in lists.added)
    yield from map(_reworded, lists.reworded)
    for pair in lists.unchanged:
        if pair.moved:
            yield Text(f"  {_named(pair.before)} moved from place {pair.before.place} to {pair.after.place}")
    if found.a.prompt_sha256 != found.b.prompt_sha256 and not (
        lists.added or lists.removed or lists.reworded or lists.moved
    ):
        yield Text("the same list, rendered otherwise (frame, exemplars or base instruction)")


def _reworded(pair: Reworded) -> "Text":
    from rich.text import Text

    how = {"edit": "by an Edit", "rules": "common rules", "words": "alike"}[pair.by]
    text = Text(f"~ {pair.before.id[:_SHOWN]} → {_named(pair.after)} ({how}) ")
    for place, piece in enumerate(pair.pieces):
        opening, closing, style = _MARKS[piece.op]
        text.append(" " if place else "").append(f"{opening}{piece.words}{closing}", style=style or None)
    if all(piece.op == "same" for piece in pair.pieces):
        text.append("(only white space or the label differs)")
    return text


def _answer_lines(found: Difference) -> "Iterator[Text]":
    from rich.text import Text

    answers = found.answers
    if answers is None:
        yield Text(f"answers: not compared: {found.missing}")
        return
    compared = answers.comparison
    yield Text(
        f"answers on {answers.split}, n = {answers.n}: {len(answers.fixed)} fixed, {len(answers.broken)} broken, "
        f"{len(answers.other)} wrong in another way",
        style="bold",
    )
    yield Text(f"macro-F1 {compared.macro_f1_delta.signed}, McNemar p = {compared.mcnemar_p:.2g}")


def _labels(answers: AnswerDiff) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in ("gold label", "n", "fixed", "broken", "other", "F1", "F1 after", "change"):
        table.add_column(column, justify="left" if column == "gold label" else "right")
    for row in answers.per_label:
        cells = (row.label, row.n, row.fixed, row.broken, row.other)
        figures = (f"{row.f1_before:.3f}", f"{row.f1_after:.3f}", f"{row.f1_after - row.f1_before:+.3f}")
        table.add_row(*(Text(str(cell)) for cell in (*cells, *figures)))
    return table


def _ids(answers: AnswerDiff) -> Iterator[str]:
    kinds: tuple[tuple[str, Sequence[Changed]], ...] = (
        ("fixed", answers.fixed),
        ("broken", answers.broken),
        ("other", answers.other),
    )
    for kind, changes in kinds:
        for change in changes:
            yield f"{kind} {change.example_id}: {change.label}, {change.before or 'none'} → {change.after or 'none'}"


def _named(own: Listed) -> str:
    return f"{own.id[:_SHOWN]} ({own.label})"


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
