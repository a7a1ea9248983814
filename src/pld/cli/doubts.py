"""`pld doubts`: training examples whose gold label the Teacher found hard to defend, to be reviewed and relabelled."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from pld.artifacts import csv_line, read_jsonl, write_text
from pld.config.assets import edited_file
from pld.config.settings import load_config
from pld.distill.doubts import Doubt, doubted
from pld.errors import ArtifactError
from pld.records import Example, Rule
from pld.task_params import RecordsReader, TaskParams

ARTIFACTS = Path("artifacts")
RULES = ARTIFACTS / "rules/rules.jsonl"
TRAIN = ARTIFACTS / "splits/train.jsonl"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would evaluate


@click.command()
@click.option("--label", help="Only examples with this gold label.")
@click.option("--limit", type=click.IntRange(min=1), help="Maximum number, most suspicious first (default: all).")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write a CSV sheet to review them in.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def doubts(label: str | None, limit: int | None, out: Path | None, as_json: bool) -> None:
    """List the training examples whose gold label the Teacher found hard to defend, the most suspicious first.

    Each with the Teacher's reason, and with how many of the ten nearest rules lead to another label. A sheet (--out)
    has a row for each and an empty column `new_label`.
    """
    task = load_config().task
    if label is not None and label not in task.labels:
        raise click.UsageError(f"expected a label of task {task.name} ({', '.join(task.labels)}), got {label!r}")
    found, of = _found()
    chosen = [doubt for doubt in found if label in (None, doubt.label)]
    shown = chosen[:limit]
    if out is not None and shown:
        _write_sheet(out, shown, task)
    if as_json:
        plain = {"rules_of": of, "doubted": len(chosen), "doubts": [doubt.model_dump(mode="json") for doubt in shown]}
        click.echo(json.dumps(plain, ensure_ascii=False, indent=2))
        return
    whose = f"labelled {label} " if label else ""
    if not chosen:
        click.echo(f"none of the {of:,} training examples with a rule {whose}has a label that the Teacher doubts")
        return
    if out is None:
        for doubt in shown:
            for line in _lines(doubt):
                click.echo(line)
    else:
        click.echo(
            f"{out}: {len(shown):,} examples to review; write a label into new_label where the gold one is wrong"
        )
    rest = f", {len(shown):,} of them here" if len(shown) < len(chosen) else ""
    click.echo(f"{len(chosen):,} of the {of:,} training examples with a rule {whose}have a doubtful label{rest}")
    if shown[0].nearest is None:
        click.echo("nearest rules: not known without the embeddings of these rules; `dvc repro embed` makes them")
    click.echo(_next_step(task))


def _found() -> tuple[list[Doubt], int]:
    """The doubts, and how many training examples have a rule."""
    from pld.distill.embeddings import read_vectors

    rules = read_jsonl(RULES, Rule)
    train = {example.id: example for example in read_jsonl(TRAIN, Example)}
    if strange := next((rule for rule in rules if rule.example_id not in train), None):
        raise ArtifactError(f"expected rules of {TRAIN}, got one of {strange.example_id} ({RULES}); run `dvc repro`")
    try:
        vectors = read_vectors(ARTIFACTS, rules)
    except (ArtifactError, OSError):  # not made yet, or of other rules: the list is worth reading without them
        vectors = None
    return doubted(rules, train, vectors), len({rule.example_id for rule in rules})


def _lines(doubt: Doubt) -> Iterator[str]:
    draws = f", doubted in {doubt.doubted} of {doubt.rules} draws" if doubt.rules > 1 else ""
    yield _plain(f"{doubt.example_id}: labelled {doubt.label}{draws}{_nearest(doubt, '; ')}")
    for name, value in doubt.inputs.items():
        yield _plain(f"  {name}: {value}")
    for rationale in doubt.rationales:
        yield _plain(f"  {rationale}")
    yield ""


def _nearest(doubt: Doubt, before: str = "") -> str:
    if not doubt.nearest:
        return ""
    others = ", ".join(f"{label} {count}" for label, count in doubt.nearest.items() if label != doubt.label)
    all_of = sum(doubt.nearest.values())
    return f"{before}{doubt.elsewhere} of the {all_of} nearest rules lead elsewhere{f': {others}' if others else ''}"


def _plain(text: str) -> str:
    """On one line and without control characters: data may hold what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)


def _write_sheet(path: Path, shown: Sequence[Doubt], task: TaskParams) -> None:
    """Never over a sheet that is there: a person may have written into it."""
    if path.exists():
        raise ArtifactError(f"expected a path for a new sheet, got a file ({path}); name another, or remove it")
    own = ("id", "label", "new_label", "rationale", "nearest")
    fields = [f"input {field}" if field in own else field for field in task.fields]
    lines = [csv_line([own[0], *fields, *own[1:]])]
    for doubt in shown:
        inputs = [doubt.inputs[field] for field in task.fields]
        cells = [doubt.example_id, *inputs, doubt.label, "", " | ".join(doubt.rationales), _nearest(doubt)]
        lines.append(csv_line([f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]))
    write_text(path, "".join(line + "\n" for line in lines))


def _next_step(task: TaskParams) -> str:
    reader = task.reader
    if not isinstance(reader, RecordsReader):
        return f"the labels are in {reader.source}: to correct some, use your own file (docs/reference/data-files.md)"
    file = edited_file(reader.path)
    tracked = f"`dvc add {file}` and " if Path(f"{file}.dvc").exists() else ""
    rows = f" (the row's {reader.id} is the id above)" if reader.id else ""
    return (
        f"next: correct {reader.label} in {file}{rows}, then {tracked}`dvc repro`: only changed examples are asked "
        "about again"
    )
