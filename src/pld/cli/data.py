"""`pld data`: show what changed in the task's data set, and add examples from what was served."""

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pld.data.diff import DataDiff, Placed
    from pld.data.versions import DataVersion

ARTIFACTS = Path("artifacts")
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_SHOWN = 10  # ids of each kind


@click.group()
def data() -> None:
    """Show what changed in the data set since a revision; add examples from what was served."""


@data.command("diff", short_help="Compare two versions of the data set, by id.")
@click.argument("before", metavar="REV", default="HEAD")
@click.argument("after", metavar="[REV2]", required=False)
@click.option("--all", "every", is_flag=True, help=f"Print every id, not the first {_SHOWN} of each kind.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with every id, instead of text.")
def diff_versions(before: str, after: str | None, every: bool, as_json: bool) -> None:
    """Print what changed in the task's data set since REV (default: HEAD), by the ids of its examples.

    REV is compared with the current data file, whether or not `prepare` has run on it, or with REV2. A revision's data
    set is the output of `prepare` in its dvc.lock, read from DVC's cache or remote; nothing is checked out. Ids, labels
    and counts are printed, also of the test split, but no texts.
    """
    from pld.config.composition import compose
    from pld.data.diff import compare_examples
    from pld.data.versions import at_revision, in_workspace
    from pld.errors import DataError

    old = at_revision(before)
    new = at_revision(after) if after is not None else in_workspace()
    if old.task != new.task:
        remedy = "name a revision with that task" + ("" if after else ", or select the other in params.yaml")
        raise DataError(f"expected the data of task {new.task!r}, got those of task {old.task!r} ({before}); {remedy}")
    found = compare_examples(old.examples, new.examples, tuple(dict.fromkeys([*new.labels, *old.labels])))
    if as_json:
        plain = {"task": new.task, "versions": [old.name, new.name], **found.model_dump(mode="json")}
        click.echo(json.dumps(plain, ensure_ascii=False, indent=2))
        return
    limit = compose(Path("conf"), Path("params.yaml")).extraction.examples
    for line in _diff_lines(old, new, found, None if every else _SHOWN, limit):
        click.echo(line)


def _diff_lines(
    old: "DataVersion", new: "DataVersion", found: "DataDiff", shown: int | None, limit: int | None
) -> Iterator[str]:
    head = f"{new.task}: {old.name} → {new.name}"
    if found.same:
        order = ", in another order" if found.reordered else ""
        yield f"{head}: the same {len(new.examples):,} examples{order}"
        return
    yield head
    yield from _counts(found)
    kinds: dict[str, list[tuple[str, str, str]]] = {
        "added": [_placed(one) for one in found.added],
        "removed": [_placed(one) for one in found.removed],
        "relabelled": [(one.id, one.split, f"{one.before} → {one.after}") for one in found.relabelled],
        "moved": [(one.id, f"{one.before} → {one.after}", one.label) for one in found.moved],
        "edited": [_placed(one) for one in found.edited],
        "regrouped": [_placed(one) for one in found.regrouped],
    }
    for kind, rows in kinds.items():
        yield from _listed(kind, rows, shown)
    which = "if task and Teacher settings are unchanged, `dvc repro` asks about no others"
    if limit is not None:
        which = f"extraction.examples={limit} decides which of all it is asked about (`pld estimate` counts them)"
    yield f"new to the Teacher: {len(found.new_to_teacher):,} of the training examples; {which}"


def _counts(found: "DataDiff") -> Iterator[str]:
    """A row per split, a column per label: before → after where they differ."""
    rows = [["", *found.after["train"], "all"]]
    for split, now in found.after.items():
        then = found.before[split]
        pairs = [*((then[label], now[label]) for label in now), (sum(then.values()), sum(now.values()))]
        rows.append([split, *(f"{b:,}" if a == b else f"{a:,} → {b:,}" for a, b in pairs)])
    widths = [max(10, *map(len, column)) for column in zip(*rows, strict=True)]
    for first, *cells in rows:
        numbers = (f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join([f"{first:{widths[0]}}", *numbers])


def _placed(one: "Placed") -> tuple[str, str, str]:
    return one.id, one.split, one.label


def _listed(kind: str, rows: Sequence[tuple[str, str, str]], shown: int | None) -> Iterator[str]:
    """The count of one kind and its first ids; no lines if there are none."""
    if not rows:
        return
    splits = ", ".join(f"{count:,} {split}" for split, count in Counter(row[1] for row in rows).items())
    yield f"{kind}: {len(rows):,} ({splits})"
    listed = [(_printable(identity), split, label) for identity, split, label in rows[:shown]]
    wide, next_to = (max(len(row[column]) for row in listed) for column in (0, 1))
    for identity, split, label in listed:
        yield f"  {identity:{wide}}  {split:{next_to}}  {label}"
    if more := len(rows) - len(listed):
        yield f"  and {more:,} more: --all"


def _printable(identity: str) -> str:
    return identity if identity.isprintable() else repr(identity)


@data.command("add-from-log", short_help="Label the least certain served inputs and add them to the data.")
@click.argument("logs", nargs=-1, type=_FILE)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write a CSV sheet to label them in.")
@click.option("--count", type=click.IntRange(min=1), default=50, show_default=True, help="Maximum number of inputs.")
@click.option("--per-label", is_flag=True, help="Balance the inputs by predicted label.")
@click.option("--inputs", type=_FILE, help="CSV, JSONL or Parquet file with the texts, if the log has none.")
@click.option("--labelled", type=_FILE, help="A labelled sheet: add its rows to the task's data file.")
@click.option(
    "--into", type=click.Path(path_type=Path, dir_okay=False), help="Data file to add to (default: the task's)."
)
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

    First run `pld data add-from-log LOGS --out to_label.csv`: it writes inputs without an answer, then those with the
    smallest margin between the two best log-scores, each once, and none that the data already have. Label the rows, or
    leave them empty. Then `pld data add-from-log --labelled to_label.csv` appends the labelled rows to the data file.
    """
    if labelled is not None:
        if logs or out or inputs or per_label:
            raise click.UsageError("expected LOGS with --out, or --labelled alone (with --into), got both")
        _add(labelled, into)
        return
    if not logs or out is None or into is not None:
        raise click.UsageError("expected LOGS with --out FILE, or --labelled FILE (with --into)")
    _write(logs, out, count, per_label, inputs)


def _write(logs: tuple[Path, ...], out: Path, count: int, per_label: bool, inputs: Path | None) -> None:
    from pld.config.settings import load_config
    from pld.serving.log import read
    from pld.serving.new_examples import write_sheet

    chosen = write_sheet(out, load_config().task, read(logs), ARTIFACTS, inputs, count, per_label)
    left = []
    if chosen.other_prompts:
        left.append(f"{chosen.other_prompts:,} answers of earlier prompts are left out")
    if chosen.no_text:
        left.append(f"{chosen.no_text:,} inputs have no text here")
    click.echo("; ".join([f"{out}: {chosen.rows:,} inputs to label, the least certain first", *left]))
    click.echo(
        f"next: fill in the labels, change nothing else, then run "
        f"`pld data add-from-log --labelled {shlex.quote(str(out))}`"
    )


def _add(labelled: Path, into: Path | None) -> None:
    from pld.config.settings import load_config
    from pld.records import SPLITS
    from pld.serving.new_examples import add_labelled

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
