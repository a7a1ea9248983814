"""`pld teacher`: what the stored answers cost, and how they move to another machine."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pld.pricing import dollars, millions, tokens_read, tokens_written

if TYPE_CHECKING:
    from pld.adapters.teachers.answer_store import AnswerStore, Spent
    from pld.params import BudgetParams


@click.group()
def teacher() -> None:
    """What the Teacher's stored answers cost, and moving them to another machine.

    All answers that were ever paid for are kept in one store, in PLD_CACHE or the user's cache folder.
    """


@teacher.command(short_help="Print what was spent, against the budget.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def spent(as_json: bool) -> None:
    """Print what was paid for: by task, role, model and way, with calls lost in killed runs, against the budget."""
    store = _store()
    found = store.spent_by()
    current = _current()
    names = dict.fromkeys([row.task for row in found] + ([current[0]] if current else []))
    tasks = {name: store.spent(name) for name in names}
    if as_json:
        budgets = {current[0]: current[1].model_dump()} if current else {}
        whole = {"rows": [asdict(row) for row in found], "tasks": {name: asdict(one) for name, one in tasks.items()}}
        click.echo(json.dumps(whole | {"budgets": budgets}, ensure_ascii=False, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if Console().is_terminal else 120)
    table = Table(title="what the Teacher's answers cost", title_justify="left")
    for column in ("task", "role", "model", "way", "calls", "tokens in", "tokens out", "dollars"):
        table.add_column(column, justify="right" if column in ("calls", "dollars") or "tokens" in column else "left")
    for row in found:
        read, written = millions(tokens_read(row.tokens)), millions(tokens_written(row.tokens))
        table.add_row(
            row.task, row.role, row.model, row.way, f"{row.calls:,}", read, written, _paid(row.usd, row.unpriced)
        )
    console.print()
    if found:
        console.print(table)
    else:
        console.print("no answer in the store was paid for here")
    for name, one in tasks.items():
        for line in _of_task(name, one, current[1] if current and current[0] == name else None):
            console.print(line, highlight=False, markup=False)


@teacher.command(short_help="Write stored answers to a file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--task", help="Only answers of this task.")
@click.option("--model", help="Only answers of this model, named as in `pld teacher spent`.")
def export(file: Path, task: str | None, model: str | None) -> None:
    """Write stored answers to FILE as JSON Lines, with what they cost; no key and no prompt is in them.

    `pld teacher import` takes them into another store; groups.teacher=recorded with teacher.path=FILE plays them back
    without one.
    """
    from itertools import chain

    from pld.adapters.teachers.answer_export import write_answers
    from pld.errors import TeacherError

    store = _store()
    entries = store.export(task, model)
    first = next(entries, None)
    if first is None:
        known = sorted({f"{kept.question.task} by {kept.question.model}" for kept in store.export()})
        raise TeacherError(
            f"expected answers of task {task or 'any'} by model {model or 'any'}, got none (pld teacher export); "
            f"stored are those of {', '.join(known) or 'none'}"
        )
    click.echo(f"{write_answers(file, chain([first], entries)):,} answers written to {file}")


@teacher.command(short_help="Write the questions that wait for an answer.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The file to write.")
@click.option("--task", help="Only questions of this task.")
def questions(out: Path, task: str | None) -> None:
    """Write the offline Teacher's questions without an answer to a file, one JSON object a line.

    Each has what a model needs to answer it: `system`, `prompt`, and the JSON `schema` of the answer. Answer each with
    a line {"asked": its hash, "content": the answer, "model": who gave it, "date": when, if known}, and take these in
    with `pld teacher import`.
    """
    from pld.adapters.teachers.offline import waiting, write_questions

    found = waiting(_store(), task)
    write_questions(out, found)
    click.echo(f"{len(found):,} questions written to {out}")


@teacher.command(name="import", short_help="Import answers from a file.")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def import_(file: Path) -> None:
    """Take the answers of FILE into the store: all of them, or none if a line is bad. Existing answers stay.

    A line is what `pld teacher export` wrote, or an answer to one of `pld teacher questions`, which must fit its
    schema. They cost nothing here: no budget counts them.
    """
    from pld.adapters.teachers.answer_export import read_answers
    from pld.adapters.teachers.offline import answer_parser, waiting

    store = _store()
    entries = [line.entry for _, line in read_answers(file, answer_parser(store))]
    new = store.add_unpaid(entries)
    left = len(waiting(store))
    still = f"; {left:,} questions still wait" if left else ""
    click.echo(f"{len(entries):,} answers in {file}, {new:,} of them new{still}")


def _store() -> "AnswerStore":
    from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore
    from pld.config.assets import cache_folder

    return AnswerStore(cache_folder() / FILE_NAME)


def _current() -> "tuple[str, BudgetParams] | None":
    """The task of the project that this is called in, and its budget."""
    if not Path("params.yaml").exists():
        return None
    from pld.config.composition import compose

    config = compose(Path("conf"), Path("params.yaml"))
    return config.task.name, config.budget


def _paid(usd: float, unpriced: int) -> str:
    return f"{dollars(usd)} + {unpriced:,} calls of unknown price" if unpriced else dollars(usd)


def _of_task(name: str, one: "Spent", budget: "BudgetParams | None") -> Iterator[str]:
    line = f"{name}: {one.calls:,} calls, {_paid(one.usd, one.unpriced)}"
    if one.lost:
        line += f"; lost in killed runs: {one.lost:,} calls, at most {dollars(one.lost_usd)}"
    if one.open_calls:
        line += f"; in flight: {one.open_calls:,} calls, at most {dollars(one.open_usd)}"
    yield line
    if budget is not None and budget.usd is not None:
        yield f"{name}: {dollars(max(budget.usd - one.all_usd, 0))} of budget.usd {dollars(budget.usd)} left"
    if budget is not None and budget.calls is not None:
        yield f"{name}: {max(budget.calls - one.all_calls, 0):,} of budget.calls {budget.calls:,} left"
