"""`pld new-task`: check a file of labelled examples and write a task for it."""

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pld.errors import ConfigError, DataError

if TYPE_CHECKING:
    from pld.data.audit.columns import Finding
    from pld.data.audit.draft import Draft
    from pld.data.audit.lengths import Lengths
    from pld.data.splits import SplitSummary
    from pld.params import Config
    from pld.task_params import TaskParams

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)
_NO_NAMES = frozenset(("null", "true", "false", "yes", "no", "on", "off", "nan", "inf", "y", "n"))


@click.command()
@click.argument("name")
@click.option("--data", required=True, help="A .csv, .jsonl or .parquet file, or hf:OWNER/DATASET[/CONFIG][:SPLIT].")
@click.option(
    "--text",
    "texts",
    multiple=True,
    required=True,
    help="Column that the Student reads (nested: a.b); repeatable.",
)
@click.option("--label", required=True, help="Column of labels.")
@click.option(
    "--options",
    multiple=True,
    help="Column with one of the possible answers; --label then holds the text of the right one; repeatable.",
)
@click.option("--id", "id_column", help="Column of ids (default: a hash of the input).")
@click.option("--group", help="Column of groups that must not be split: document, customer, thread.")
@click.option("--split", help="Column that says train, validation or test, if the data have splits.")
@click.option(
    "--derive",
    type=click.Choice(["validation", "test"]),
    help="With --split: the held-out split that the data lack, made by hash from the rows of the other one.",
)
@click.option("--template", help="Jinja template of an input, e.g. 'Claim: {{ claim }}'.")
@click.option("--instruction", help="Base instruction (default: a draft).")
@click.option("--select", is_flag=True, help="Select the task in params.yaml.")
@click.option("--teacher", help="With --select: the Teacher, an option of conf/teacher/.")
@click.option("--force", is_flag=True, help="Overwrite a different task or data file.")
def new_task(
    name: str,
    data: str,
    texts: tuple[str, ...],
    label: str,
    options: tuple[str, ...],
    id_column: str | None,
    group: str | None,
    split: str | None,
    derive: Literal["validation", "test"] | None,
    template: str | None,
    instruction: str | None,
    select: bool,
    teacher: str | None,
    force: bool,
) -> None:
    """Check a file of labelled examples, report what is in it, and write conf/task/NAME.yaml.

    Nothing is written unless every row is good: all that must be fixed is listed. A file from elsewhere is copied to
    assets/corpus/records/; the next commands are printed last.
    """
    from pld.data.audit import task_files
    from pld.data.audit.draft import Request, draft
    from pld.data.audit.findings import faults, warnings
    from pld.data.audit.hub_dataset import HUB, downloaded
    from pld.data.audit.lengths import measure
    from pld.data.readers.source import locate
    from pld.data.splits import examine
    from pld.data.task_drafting import task_file
    from pld.prompts import render_string

    if not NAME.fullmatch(name) or name.lower() in _NO_NAMES:
        raise ConfigError(
            f"expected a name of letters, digits, _ and - that starts with a letter, got {name!r:.80} (NAME); choose "
            "one that can name a file and a registered model"
        )
    if teacher is not None and not select:
        raise click.UsageError("expected --select with --teacher, got --teacher alone")
    if derive is not None and split is None:
        raise click.UsageError("expected --split with --derive, got --derive alone (without --split all is by hash)")
    if len(options) == 1 or len(options) > 26:
        raise click.UsageError(f"expected 2 to 26 columns as --options, got {len(options)}")
    for column in dict.fromkeys(texts + options):
        if (texts + options).count(column) > 1:
            raise click.UsageError(f"expected each column once, got {column!r} repeatedly (--text, --options)")
    task_files.selected({"task": name})  # raises at once outside a project

    request = Request(name, texts, label, options, id_column, group, split, derive, template, instruction)
    with downloaded(data, label) as found:
        file = found.file
        if not data.startswith(HUB):
            locate(data, "--data")
        place = task_files.RECORDS / found.file_name if data.startswith(HUB) else task_files.place_of(file)
        if not force and place.exists() and file.is_file() and not task_files.same_file(file, place):
            raise DataError(
                f"expected no file of this name, got one with other content ({place}); rename yours, or overwrite "
                "it with --force"
            )
        drafted = draft(request, file, data)
        reader = drafted.task.reader.model_copy(update={"path": task_files.path_in_data(place)})
        task = drafted.task.model_copy(update={"reader": reader})
        text = task_file(task, drafted.order, found.origin, instruction is None)
        groups = {"task": name} | ({"teacher": teacher} if teacher is not None else {})
        config = task_files.composed(task, text, groups)

        assembly = examine(drafted.task, drafted.raws)
        rendered = [render_string(task.input_template, example.inputs) for example in assembly.examples]
        lengths = measure(rendered, config.student, config.embedder) if rendered else None
        student = str(config.student.get("name", "the Student"))
        _show_counts(drafted, assembly.summary, lengths, data, student)
        worth_a_look = list(warnings(drafted, assembly, lengths, file))
        _show("must be fixed", list(faults(assembly)))
        _show("worth a look", worth_a_look)
        try:
            assembly.check()
        except DataError as error:
            raise DataError(f"{error}; nothing was written") from None

        path = task_files.TASKS / f"{name}.yaml"
        if not force and path.exists() and path.read_bytes() != text.encode():
            raise ConfigError(
                f"expected no task of this name, got a different one ({path}); choose another name, or overwrite it "
                "with --force"
            )
        texts_of = {path: text} | ({task_files.PARAMS: task_files.selected(groups)} if select else {})
        written = task_files.write(file, place, texts_of)
    click.echo()
    if not written:
        click.echo(f"nothing to change: all is there already ({', '.join(map(str, [place, *texts_of]))})")
    for changed in written:
        click.echo(f"written: {changed}")
    _show_next(task, place, path, config, select)


def _show_counts(drafted: "Draft", summary: "SplitSummary", lengths: "Lengths | None", data: str, student: str) -> None:
    """The head of the report: rows, labels by split, lengths."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from pld.task_params import RecordsReader

    click.echo(f"\n{data}: {summary.rows:,} rows, {summary.examples:,} examples\n")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(Text("label"), overflow="fold", max_width=48)
    for column in (*summary.counts, "all"):
        table.add_column(Text(column), justify="right")
    per_label = {label: [counts[label] for counts in summary.counts.values()] for label in drafted.task.labels}
    per_label["all"] = [sum(counts.values()) for counts in summary.counts.values()]
    for label, row in per_label.items():
        table.add_row(Text(label), *(f"{count:,}" for count in [*row, sum(row)]))
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print(table)
    click.echo()
    reader = drafted.task.reader
    assert isinstance(reader, RecordsReader)
    if reader.split is not None:
        other = "test" if reader.derive == "validation" else "validation"
        derived = f"; {other} rows are divided by hash into validation and test, about 2 to 3; new rows move no other"
        click.echo(f"splits: from column {reader.split!r}{derived if reader.derive else ''}")
    else:
        by = f"of column {reader.group or reader.id!r}" if reader.group or reader.id else "of the input"
        click.echo(f"splits: by hash {by}, about half, a fifth and the rest; new rows move no other")
    for note in summary.notes():
        click.echo(note)
    if lengths is not None:
        context = (
            f"context of {student}: {lengths.context:,}" if lengths.context else f"no tokenizer of {student} here yet"
        )
        sample = "" if lengths.sampled == summary.examples else f" (of {lengths.sampled:,})"
        click.echo(
            f"inputs: median {lengths.median:,} {lengths.unit}, 95 % up to {lengths.high:,}{sample}, longest "
            f"{lengths.longest:,}; {context}"
        )


def _show(title: str, findings: "list[Finding]") -> None:
    import textwrap

    if not findings:
        return
    click.echo(f"\n{title}:")
    for finding in findings:
        click.echo("\n".join(textwrap.wrap(finding.text, 118, initial_indent="- ", subsequent_indent="  ")))
        for instance in finding.shown:
            click.echo(f"    {instance}")


def _show_next(task: "TaskParams", place: Path, path: Path, config: "Config", select: bool) -> None:
    """The settings that remain to be made, then the next commands."""
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
