"""`pld new-task`: a file of labelled examples becomes a task."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pld.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pld.data.audit.checks import Census, Finding
    from pld.data.audit.examination import Draft
    from pld.data.audit.lengths import Lengths
    from pld.params import Config, TaskParams

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_NO_NAMES = frozenset(("null", "true", "false", "yes", "no", "on", "off", "nan", "inf", "y", "n"))


@click.command()
@click.argument("name")
@click.option("--data", required=True, help="A .csv, .jsonl or .parquet file, or hf:OWNER/DATASET[/CONFIG][:SPLIT].")
@click.option("--text", "texts", multiple=True, required=True, help="A column that the Student is shown; repeatable.")
@click.option("--label", required=True, help="The column of labels.")
@click.option("--options", multiple=True, help="A column of answers, of which --label holds one's text; repeatable.")
@click.option("--id", "id_column", help="The column that names rows; without one a hash of the input does.")
@click.option("--group", help="The column of what must stay on one side of a split: document, customer, thread.")
@click.option("--split", help="The column of train, validation and test, where the data bring their splits.")
@click.option("--template", help="How an input is shown, in Jinja over the fields, as 'Claim: {{ claim }}'.")
@click.option("--instruction", help="The base instruction, in place of a draft.")
@click.option("--select", is_flag=True, help="Select the task in params.yaml.")
@click.option("--teacher", help="With --select: the Teacher, an option of conf/teacher/.")
@click.option("--force", is_flag=True, help="Write over a task or a data file that is there and differs.")
def new_task(
    name: str,
    data: str,
    texts: tuple[str, ...],
    label: str,
    options: tuple[str, ...],
    id_column: str | None,
    group: str | None,
    split: str | None,
    template: str | None,
    instruction: str | None,
    select: bool,
    teacher: str | None,
    force: bool,
) -> None:
    """Look at a file of labelled examples, say what is in it, and write conf/task/NAME.yaml.

    Nothing is written unless every row is good: what must be mended is listed, all of it. A file from elsewhere is
    copied to assets/corpus/records/; the next commands are printed last.
    """
    from pld.artifacts import file_sha256
    from pld.data.audit import task_files
    from pld.data.audit.examination import Wish, census_of, check_there, draft, judge, lengths_of, warnings
    from pld.data.audit.hub_dataset import HUB, brought
    from pld.data.task_drafting import task_file

    if not NAME.fullmatch(name) or name.lower() in _NO_NAMES:
        raise ConfigError(
            f"{name!r:.80}: wanted a name of letters, digits, _ and -, a letter first, found another; choose one that "
            "can be a file and a registered model"
        )
    if teacher is not None and not select:
        raise click.UsageError("wanted --select with --teacher, found it alone")
    if len(options) == 1 or len(options) > 26:
        raise click.UsageError(f"wanted 2 to 26 columns as --options, found {len(options)}")
    for column in dict.fromkeys(texts + options):
        if (texts + options).count(column) > 1:
            raise click.UsageError(f"wanted each column once, found {column!r} more often in --text and --options")
    task_files.selected({"task": name})  # says at once that this is no project's folder

    wish = Wish(name, texts, label, options, id_column, group, split, template, instruction)
    with brought(data, label) as found:
        file = found.file
        check_there(file, data)
        place = task_files.RECORDS / found.file_name if data.startswith(HUB) else task_files.place_of(file)
        if not force and place.exists() and file.is_file() and not task_files.same_file(file, place):
            raise DataError(
                f"{place}: wanted a place for the data, found another file of this name; rename yours, or --force to "
                "write over it"
            )
        drafted = draft(wish, file, data)
        digest = file_sha256(file)
        reader = drafted.task.reader.model_copy(update={"path": task_files.as_seen(place)})
        task = drafted.task.model_copy(update={"reader": reader})
        text = task_file(task, drafted.order, found.origin, instruction is None)
        groups = {"task": name} | ({"teacher": teacher} if teacher is not None else {})
        config = task_files.composed(task, text, groups)

        census = census_of(drafted)
        lengths = lengths_of(drafted, census, config.student) if census.kept else None
        _show_counts(drafted, census, lengths, data, str(config.student.get("name", "the Student")))
        worth_a_look = list(warnings(drafted, census, lengths, file))
        _show("must be mended", census.faults)
        _show("worth a look", worth_a_look)
        judge(drafted)

        path = task_files.TASKS / f"{name}.yaml"
        if not force and path.exists() and path.read_bytes() != text.encode():
            raise ConfigError(
                f"{path}: wanted no task of this name, found one that says something else; choose another name, or "
                "--force to write over it"
            )
        texts_of = {path: text} | ({task_files.PARAMS: task_files.selected(groups)} if select else {})
        written = task_files.write(file, place, digest, texts_of)
    click.echo()
    if not written:
        click.echo(f"all is there already: nothing was changed ({', '.join(map(str, [place, *texts_of]))})")
    for changed in written:
        click.echo(f"written: {changed}")
    _show_next(task, place, path, config, select)


def _show_counts(drafted: "Draft", census: "Census", lengths: "Lengths | None", data: str, student: str) -> None:
    """The head of the report: rows, labels by split, lengths."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pld.records import SPLITS

    click.echo(f"\n{data}: {census.rows:,} rows, {len(census.kept):,} examples\n")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text("label"), overflow="fold", max_width=48)
    for column in (*SPLITS, "all"):
        table.add_column(Text(column), justify="right")
    for label, row in census.counts.items():
        table.add_row(Text(label), *(f"{row[split]:,}" for split in SPLITS), f"{sum(row.values()):,}")
    totals = [sum(row[split] for row in census.counts.values()) for split in SPLITS]
    table.add_row(Text("all"), *(f"{total:,}" for total in totals), f"{sum(totals):,}")
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print(table)
    for line in _notes(drafted, census, lengths, student):
        click.echo(line)


def _notes(drafted: "Draft", census: "Census", lengths: "Lengths | None", student: str) -> list[str]:
    from pld.params import RecordsReader

    reader = drafted.task.reader
    assert isinstance(reader, RecordsReader)
    lines = [""]
    if reader.split is not None:
        lines.append(f"splits: as column {reader.split!r} says")
    else:
        by = f"of column {reader.group or reader.id!r}" if reader.group or reader.id else "of the input"
        lines.append(f"splits: by hash {by}, about half, a fifth and the rest; new rows move no other")
    if census.groups:
        lines.append(f"groups: {census.groups:,}, each in one split, the largest of {census.largest_group:,} examples")
    if census.merged:
        lines.append(f"repeated: {census.merged:,} rows have another's input and are merged into it")
    if lengths is not None:
        whose = f"context of {student}: {lengths.context:,}" if lengths.context else f"{student}'s tokens: not here yet"
        sample = "" if lengths.sampled == len(census.kept) else f" (of {lengths.sampled:,})"
        lines.append(
            f"inputs: {lengths.median:,} {lengths.unit} in the middle, 95 % up to {lengths.high:,}{sample}, the "
            f"longest {lengths.longest:,}; {whose}"
        )
    return lines


def _show(title: str, findings: "list[Finding] | tuple[Finding, ...]") -> None:
    import textwrap

    if not findings:
        return
    click.echo(f"\n{title}:")
    for finding in findings:
        click.echo("\n".join(textwrap.wrap(finding.text, 118, initial_indent="- ", subsequent_indent="  ")))
        for instance in finding.shown:
            click.echo(f"    {instance}")


def _show_next(task: "TaskParams", place: Path, path: Path, config: "Config", select: bool) -> None:
    """What follows, in its order: the settings that are still to be made, then commands."""
    from pld.data.audit.task_files import PARAMS, has_answers, is_tracked, teachers_to_ask

    settings = [] if select else [f"`task: {task.name}` (or, for one run, dvc exp run -S groups.task={task.name})"]
    if not has_answers(config):
        teachers = " or ".join(f"`teacher: {option}`" for option in teachers_to_ask())
        settings.append(f"{teachers} (new data have no recorded answers)")
    tracked = is_tracked(place)
    steps = [] if tracked else [("dvc add " + shlex.quote(str(place)), "")]
    pointer = Path(f"{place}.dvc")
    added = [pointer, place.parent / ".gitignore", path] if not tracked or pointer.exists() else [path]
    added += [PARAMS] * select
    steps.append(("git add " + " ".join(shlex.quote(str(file)) for file in added), ""))
    steps.append(("dvc repro prepare", "brings the data to data/ and splits them"))
    steps.append(("pld estimate", "what the Teacher will cost, before it is asked"))
    steps.append(("dvc repro", "the whole pipeline"))
    click.echo("\nnext:")
    for setting in settings:
        click.echo(f"  in params.yaml: {setting}")
    for step, why in steps:
        click.echo(f"  {step:20}# {why}" if why else f"  {step}")
