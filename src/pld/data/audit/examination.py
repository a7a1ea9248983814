"""A file and the columns that a user names → the Task, and what there is to know of the file before it is used."""

import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pld.data.audit import checks as auditing
from pld.data.audit.checks import Census, Finding
from pld.data.audit.columns import column_names, profiles
from pld.data.audit.lengths import COUNTED, Lengths, measure
from pld.data.near_duplicates import near_duplicates
from pld.data.readers import read
from pld.data.readers.columns import Columns, find_columns
from pld.data.readers.source import locate
from pld.data.splits import RawExample, assemble
from pld.data.task_drafting import draft_instruction, draft_template, field_names
from pld.errors import ConfigError, DataError
from pld.params import RecordsReader, TaskParams
from pld.progress import progress
from pld.prompts import render_string

_LABEL = 200
"""Characters of a label at most."""


@dataclass(frozen=True)
class Wish:
    """What the user said: names of columns, and texts in place of the drafts."""

    name: str
    texts: tuple[str, ...]
    label: str
    options: tuple[str, ...]
    id: str | None
    group: str | None
    split: str | None
    template: str | None
    instruction: str | None

    @property
    def shown(self) -> tuple[str, ...]:
        """Columns of the input: the texts, then the options that are not among them."""
        return (*self.texts, *(column for column in self.options if column not in self.texts))


@dataclass(frozen=True)
class Draft:
    """The Task, its rows as they were read, and the name of the order of its labels."""

    task: TaskParams
    raws: list[RawExample]
    order: str


def draft(wish: Wish, file: Path, name: str) -> Draft:
    """The Task that reads `file`, which messages call `name`.

    Raises DataError where the file can't be read or a column is not there, ConfigError for a template that can't be.
    """
    _check_columns(wish, file, name)
    fields = field_names(wish.shown)
    labels = auditing.letters(len(wish.options)) if wish.options else ("0", "1")  # any two, until they have been read
    task = TaskParams(
        name=wish.name,
        labels=labels,
        fields=fields,
        input_template=wish.template or draft_template(fields, wish.shown, wish.options, labels),
        base_instruction="",
        reader=RecordsReader(
            format="records",
            path=str(file),
            fields=dict(zip(fields, wish.shown, strict=True)),
            label=wish.label,
            options=wish.options or None,
            id=wish.id,
            group=wish.group,
            split=wish.split,
        ),
    )
    if wish.template is not None:
        _check_template(task, dict.fromkeys(fields, "text"))
    try:
        raws = [raw if raw.file == name else replace(raw, file=name) for raw in read(task)]
    except (DataError, ConfigError) as error:
        raise type(error)(_as_options(str(error).replace(str(file), name))) from None
    order = "that of the options"
    if not wish.options:
        _check_lengths(raws, wish.label, name)
        labels, order = auditing.declared(raw.label for raw in raws)
        _check_labels(labels, raws, wish.label, name)
    instruction = wish.instruction or draft_instruction(wish.shown, wish.options, wish.label, labels)
    task = task.model_copy(update={"labels": labels, "base_instruction": instruction})
    if wish.template is not None:
        for raw in raws:
            _check_template(task, raw.inputs)
    return Draft(task, raws, order)


def _check_columns(wish: Wish, file: Path, name: str) -> None:
    found = column_names(file)
    named: list[tuple[str, str | None]] = [("--text", column) for column in wish.texts]
    named += [("--options", column) for column in wish.options]
    named += [("--label", wish.label), ("--id", wish.id), ("--group", wish.group), ("--split", wish.split)]
    for option, column in named:
        if found and column is not None and column not in found:
            try:
                find_columns(Columns((column,), frozenset()), found, name)
            except DataError as error:
                raise DataError(_as_options(str(error), option)) from None


def check_there(file: Path, name: str) -> None:
    """Raises DataError unless `file` is a file."""
    with contextlib.suppress(OSError):  # which the reader's own look will meet
        if not file.exists() and not file.is_symlink():
            pointer = Path(f"{file}.dvc")
            remedy = f"run `dvc pull {shlex.quote(str(pointer))}`" if pointer.exists() else "correct --data"
            raise DataError(f"{name}: wanted a file, found none; {remedy}")
    try:
        locate(str(file))
    except DataError as error:
        raise DataError(_as_options(str(error).replace(str(file), name))) from None


def _as_options(message: str, option: str = "the options") -> str:
    """What a reader says of settings, said of the options that become them."""
    for settings, options in (
        ("as reader.path in conf/task/", "with --data"),
        ("reader.path", "--data"),
        ("reader in conf/task/", option),
        ("set reader.id to null in conf/task/", "leave --id out"),
        ("set reader.split to null in conf/task/", "leave --split out"),
        ("reader.label", "--label"),
        ("reader.fields or", "--text or"),
        (", or declare the label in conf/task/", ""),
        (" in conf/task/", ""),
    ):
        message = message.replace(settings, options)
    return message


def _check_lengths(raws: Sequence[RawExample], column: str, name: str) -> None:
    for raw in raws:
        if len(raw.label) > _LABEL:
            raise DataError(
                f"{name}: {raw.place}: column {column!r}: wanted a label, found a text of {len(raw.label):,} characters"
                "; correct the row, or name another column with --label"
            )


def _check_labels(labels: Sequence[str], raws: Sequence[RawExample], column: str, name: str) -> None:
    if len(labels) < 2:
        only = f"only {labels[0]!r:.60}" if labels else "none"
        raise DataError(
            f"{name}: --label {column!r}: wanted two or more different labels, found {only}; name another column"
        )
    if len(labels) > max(20, len(raws) / 2):
        raise DataError(
            f"{name}: --label {column!r}: wanted a column of labels that repeat, found {len(labels):,} different "
            f"texts in {len(raws):,} rows; name another column, or, where it holds the text of one of several options, "
            "name their columns with --options"
        )


def _check_template(task: TaskParams, inputs: Mapping[str, str]) -> None:
    try:
        render_string(task.input_template, dict(inputs))
    except ConfigError as error:
        fields = ", ".join(f"{{{{ {field} }}}}" for field in task.fields)
        raise ConfigError(f"--template: wanted a template with {fields}, found: {error}") from None


def census_of(draft: Draft) -> Census:
    return auditing.take_census(draft.raws, draft.task.labels)


def judge(draft: Draft) -> None:
    """Raises the error with which `prepare` would refuse the file."""
    try:
        assemble(draft.task, iter(draft.raws))
    except (DataError, ConfigError) as error:
        raise type(error)(f"{_as_options(str(error))}; nothing was written") from None


def lengths_of(draft: Draft, census: Census, student: Mapping[str, Any]) -> Lengths:
    texts = [render_string(draft.task.input_template, draft.raws[kept.row].inputs) for kept in census.kept]
    return measure(texts, student)


def warnings(draft: Draft, census: Census, lengths: Lengths | None, file: Path) -> Iterator[Finding]:
    """What `prepare` would take and is worth a look: the gravest first."""
    raws, kept = draft.raws, census.kept
    columns = profiles(file)
    texts = [" ".join(raws[example.row].inputs.values()) for example in kept]
    with progress("comparing texts", len(texts)) as advance:
        links = near_duplicates(texts, advance)
    reader = draft.task.reader
    assert isinstance(reader, RecordsReader)
    yield from auditing.proxies(raws)
    yield from auditing.labels_in_text(raws, draft.task.labels)
    yield from auditing.twins_across(links, kept, raws, columns if reader.group is None else [])
    inputs = tuple(reader.fields.values())
    named = reader.id is not None, reader.group is not None, reader.split is not None
    others = [column for column in columns if column.name not in (reader.label, reader.id, reader.group)]
    yield from auditing.column_hints(others, inputs, *named)
    yield from auditing.alike_labels({label: sum(row.values()) for label, row in census.counts.items()})
    yield from auditing.rare_labels(census.counts)
    yield from auditing.empty_fields(raws, kept)
    if lengths is not None and lengths.too_long:
        places = [raws[kept[at].row].place for at in lengths.too_long]
        count = f"{len(places):,}{' or more' if len(places) >= COUNTED - 64 else ''}"
        yield Finding(
            f"{count} inputs are longer than the Student's context of {lengths.context:,} tokens, even without a "
            "prompt, and would count as wrong: shorten them, or choose a Student with a longer context",
            auditing.few(places),
        )
