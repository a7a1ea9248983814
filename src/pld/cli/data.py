"""`pld data`: new examples for the task's data set."""

import shlex
from pathlib import Path

import click

ARTIFACTS = Path("artifacts")
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.group()
def data() -> None:
    """New examples for the data set, from what was served."""


@data.command("add-from-log", short_help="The least certain served inputs: to a sheet, and back with labels.")
@click.argument("logs", nargs=-1, type=_FILE)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write a CSV sheet to label them in.")
@click.option("--count", type=click.IntRange(min=1), default=50, show_default=True, help="So many inputs at most.")
@click.option("--per-label", is_flag=True, help="As many of each answered label, in turn.")
@click.option("--inputs", type=_FILE, help="CSV, JSONL or Parquet with the texts, where the log has none.")
@click.option("--labelled", type=_FILE, help="A sheet with labels: add its rows to the task's data file.")
@click.option("--into", type=click.Path(path_type=Path, dir_okay=False), help="Another data file than the task's.")
def add_from_log(
    logs: tuple[Path, ...],
    out: Path | None,
    count: int,
    per_label: bool,
    inputs: Path | None,
    labelled: Path | None,
    into: Path | None,
) -> None:
    """Write the least certain inputs of a serving log (LOGS, JSON lines) to a sheet; with --labelled, add its rows.

    First `pld data add-from-log LOGS --out to_label.csv`: inputs without an answer, then those with the smallest margin
    (best log-score less the second), each once, none that the data have already. A person writes a label into each row,
    or leaves it empty. Then `pld data add-from-log --labelled to_label.csv` appends the labelled rows to the data file.
    """
    if labelled is not None:
        if logs or out or inputs or per_label:
            raise click.UsageError("wanted LOGS with --out, or --labelled alone (with --into), found both")
        _add(labelled, into)
        return
    if not logs or out is None or into is not None:
        raise click.UsageError("wanted LOGS with --out FILE, or --labelled FILE (with --into)")
    _write(logs, out, count, per_label, inputs)


def _write(logs: tuple[Path, ...], out: Path, count: int, per_label: bool, inputs: Path | None) -> None:
    from pld.adapters.served_examples import write_sheet
    from pld.adapters.serving_log import read
    from pld.params import load_config

    chosen = write_sheet(out, load_config().task, read(logs), ARTIFACTS, inputs, count, per_label)
    left = []
    if chosen.other_prompts:
        left.append(f"{chosen.other_prompts:,} answers of earlier prompts are left out")
    if chosen.no_text:
        left.append(f"{chosen.no_text:,} inputs have no text here")
    click.echo("; ".join([f"{out}: {chosen.rows:,} inputs to label, the least certain first", *left]))
    click.echo(
        f"next: write labels into it, as text and nothing else changed, then "
        f"`pld data add-from-log --labelled {shlex.quote(str(out))}`"
    )


def _add(labelled: Path, into: Path | None) -> None:
    from pld.adapters.served_examples import add_labelled
    from pld.params import load_config
    from pld.records import SPLITS

    added = add_labelled(labelled, load_config().task, into)
    where = ", ".join(f"{added.splits[split]:,} {split}" for split in SPLITS if split in added.splits)
    parts = [f"{added.file}: {added.rows:,} rows added" + (f" ({where})" if where else "")]
    if added.without_label:
        parts.append(f"{added.without_label:,} without a label left out")
    if added.already:
        parts.append(f"{added.already:,} were there already")
    click.echo("; ".join(parts))
    if added.rows:
        file = shlex.quote(str(added.file))
        tracked = f"`dvc add {file}`, " if Path(f"{added.file}.dvc").exists() else ""
        click.echo(f"next: {tracked}`dvc repro`: the Teacher is asked about the new training examples alone")
