"""`pld estimate`: what the Teacher's calls will cost, before any is made."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pld.distill.cost_estimate import Estimate, StageEstimate, dollars, millions, total, verdicts, ways_of

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one object instead, for a program.")
def estimate(as_json: bool) -> None:
    """Print how many calls of the Teacher each stage would make, with tokens and dollars, and what the budget allows.

    It goes by params.yaml and conf/ as they stand, edits that were not run yet included, and takes what the answer
    store has: an edit of a template or a setting shows here what it would cost. With a key in the environment the
    provider counts the tokens of a few requests, which is free; nothing is asked.
    """
    from pld.adapters.teachers.factory import hire
    from pld.config.composition import compose
    from pld.evaluate.teacher_forecast import forecast

    config = compose(Path("conf"), Path("params.yaml"))
    found = forecast(config, hire(config))
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 120)
    console.print()
    console.print(_calls(found))
    if not found.recorded:
        console.print(_dollars(found))
    for line in (*_notes(found), *verdicts(found)):
        console.print(line, highlight=False, markup=False)


def _calls(found: Estimate) -> "Table":
    """One row a stage; a recording's `stored` are those that it can play back."""
    columns = ("stage", "role", "model", "calls", "stored", "to ask", "edited", "tokens in", "tokens out")
    table = _table(f"calls of the Teacher ({found.teacher}) for task {found.task}", columns)
    for stage in found.stages:
        at_most = "≤ " if stage.at_most else ""
        asked = ("–", "–", "–", "–") if found.recorded else (
            f"{at_most}{stage.to_ask:,}{f' + {stage.retries:,}' if stage.retries else ''}",
            f"{stage.answered_before:,}",
            millions(stage.input_tokens),
            millions(stage.output_tokens),
        )  # fmt: skip
        table.add_row(stage.stage, stage.role, stage.model, f"{at_most}{stage.calls:,}", f"{stage.stored:,}", *asked)
    return table


def _dollars(found: Estimate) -> "Table":
    ways = ways_of(found.way)
    table = _table("dollars by each way of asking", ("stage", "role", *ways))
    for stage in found.stages:
        table.add_row(stage.stage, stage.role, *(dollars(stage.usd[way]) for way in ways))
    if len(found.stages) > 1:
        table.add_row("all", "", *(dollars(total(found, way)) for way in ways))
    return table


def _notes(found: Estimate) -> Iterator[str]:
    """How each row is known."""
    if any(stage.answered_before for stage in found.stages):
        yield "edited: of those to ask, answered before under another wording or setting"
    for stage in found.stages:
        if found.recorded:
            yield f"{stage.stage}: {stage.basis}; stored: those that have a recorded answer"
        else:
            yield f"{stage.stage}: {stage.basis}{_tokens(stage)}"


def _tokens(stage: StageEstimate) -> str:
    if not stage.to_ask:
        return ""
    again = f"; {stage.retries:,} are asked again, as often as past answers were refused" if stage.retries else ""
    return f"; tokens in: {stage.input_from}, out: {stage.output_from}{again}"


def _table(title: str, columns: tuple[str, ...]) -> "Table":
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("stage", "role", "model") else "right")
    return table
