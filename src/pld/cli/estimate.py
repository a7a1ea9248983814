"""`pld estimate`: what the Teacher's calls will cost, before any is made."""

import json
from pathlib import Path

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def estimate(as_json: bool) -> None:
    """Print how many calls of the Teacher each stage would make, with tokens and dollars, and what the budget allows.

    It reads params.yaml and conf/ as they stand, and subtracts what the answer store has. The calls of `extract` are
    exact, those of later stages bounds. With a key in the environment the provider counts the tokens of a few requests,
    which is free; nothing is asked.
    """
    from rich.console import Console
    from rich.table import Table

    from pld.adapters.teachers.factory import create_teacher
    from pld.config.composition import compose
    from pld.distill import cost_estimate
    from pld.pricing import dollars, millions

    config = compose(Path("conf"), Path("params.yaml"))
    found = cost_estimate.estimate(config, create_teacher(config))
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), ensure_ascii=False, indent=2))
        return
    ways = cost_estimate.ways_of(found.way)
    table = Table(title=f"calls of the Teacher ({found.teacher}) for task {found.task}", title_justify="left")
    texts = ("stage", "role", "model")
    for column in (*texts, "calls", "stored", "to ask", "tokens in", "tokens out", *ways):
        table.add_column(column, justify="left" if column in texts else "right")
    for stage in found.stages:
        most = "≤ " if stage.at_most else ""
        tokens = [millions(count) for count in (stage.input_tokens, stage.output_tokens)]
        rest = ["–"] * 3 if found.free else [f"{most}{stage.to_ask:,}", *tokens]
        usd = [dollars(stage.usd[way]) for way in ways]
        calls = f"{most}{stage.calls:,}"
        table.add_row(stage.stage, stage.role, stage.model, calls, f"{stage.stored:,}", *rest, *usd)
    if len(found.stages) > 1:
        table.add_row("all", *[""] * 7, *(dollars(found.total(way)) for way in ways))
    console = Console(width=None if Console().is_terminal else 120)
    console.print()
    console.print(table)
    for line in (*(f"{stage.stage}: {stage.basis}" for stage in found.stages), *cost_estimate.verdicts(found)):
        console.print(line, highlight=False, markup=False)
