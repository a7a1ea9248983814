"""`pld diff`: two prompts or versions, instruction by instruction and answer by answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pld.records import Instruction, Record, Split, sha256
from pld.reporting.diff import AnswerDiff, ListDiff, compare_answers, compare_lists

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pld.params import Config
    from pld.reporting.snapshot import Snapshot

ARTIFACTS = Path("artifacts")
_ID = 8  # characters of an instruction's id


class Side(Record):
    """None: not known."""

    name: str
    what: str
    prompt_sha256: str
    prompt_tokens: int | None
    instructions: int | None


class Setting(Record):
    """A setting that answers depend on and that differs; None: it has none there."""

    key: str
    before: str | None
    after: str | None


class Difference(Record):
    """`instructions` None: one side's were not kept; `answers` None: `missing` says why."""

    a: Side
    b: Side
    instructions: ListDiff | None
    settings: tuple[Setting, ...]
    answers: AnswerDiff | None
    missing: str
    notes: tuple[str, ...]


@click.command()
@click.argument("a")
@click.argument("b")
@click.option("--ids", "with_ids", is_flag=True, help="List the examples whose answers change.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def diff(a: str, b: str, with_ids: bool, as_json: bool) -> None:
    """Print what changes from A to B: instructions, and the answers that they fix and break.

    A and B are each: an alias or a number of the registry (production, 3), artifacts (what ships now), resolve (what
    the loop left), best (what won the sweep), a trial's id, or a folder with instructions.jsonl and system_prompt.md.

    Answers are compared on test if both sides were measured on the same test split, else on validation.
    """
    found = difference(a, b)
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    show(found, with_ids, Console(width=None if Console().is_terminal else 120))


def difference(a: str, b: str) -> Difference:
    """Raises what `read_snapshot` raises."""
    from pld.config.settings import load_config
    from pld.reporting.snapshot import read_snapshot

    config = load_config()
    before, after = (read_snapshot(config, ARTIFACTS, name) for name in (a, b))
    lists = None
    if before.instructions is not None and after.instructions is not None:
        lists = compare_lists(before.instructions, after.instructions)
    answers, missing = _answers(config, before, after)
    return Difference(
        a=_side(before),
        b=_side(after),
        instructions=lists,
        settings=_settings(before, after),
        answers=answers,
        missing=missing,
        notes=tuple(_notes(before, after, answers)),
    )


def show(found: Difference, with_ids: bool, console: "Console") -> None:
    """Print `found`; readable from 80 columns on."""
    console.print()
    console.print(_sides(found))
    for line in (*_list_lines(found), *_answer_lines(found)):
        console.print(line, highlight=False)
    if answers := found.answers:
        console.print(_labels(answers))
        for kind in ("fixed", "broken", "other") if with_ids else ():
            for own in getattr(answers, kind):
                line = f"{kind} {own.example_id}: {own.label}, {own.before or 'none'} → {own.after or 'none'}"
                console.print(line, highlight=False, markup=False)
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


def _notes(before: "Snapshot", after: "Snapshot", answers: AnswerDiff | None) -> Iterator[str]:
    if answers and answers.left_out:
        yield f"{answers.left_out} examples are left out: only one side answered them, or their gold labels differ"
    if answers and answers.split == "validation" and before.searching != after.searching:
        name = before.name if before.searching else after.name
        yield f"{name} answered at student.search_dtype, the other side at student.dtype: some answers differ by that"


def _settings(before: "Snapshot", after: "Snapshot") -> tuple[Setting, ...]:
    trials = bool(before.trial and after.trial)
    old, new = ({**side.settings, **(side.trial if trials else {})} for side in (before, after))
    return tuple(
        Setting(key=key, before=old.get(key), after=new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    )


def _side(side: "Snapshot") -> Side:
    return Side(
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
        gone = found.a if found.a.instructions is None else found.b
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
        same = found.a.prompt_sha256 == found.b.prompt_sha256
        yield Text("the same prompt" if same else "the same instructions, in another order or rendered differently")


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


def _named(own: Instruction) -> str:
    return f"{own.id[:_ID]} ({own.label})"


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"
