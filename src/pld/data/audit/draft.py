"""Draft the Task that reads a file, from the columns that a user names."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pld.data.readers import read
from pld.data.readers.source import locate
from pld.data.splits import RawExample, on_one_line, plain, visible
from pld.data.task_drafting import draft_instruction, draft_template, field_names
from pld.errors import ConfigError, DataError
from pld.params import RecordsReader, TaskParams
from pld.prompts import render_string

_LONGEST_LABEL = 200
"""In characters."""


@dataclass(frozen=True)
class Request:
    """What the user asked for: columns by name, and texts that replace the drafts."""

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
    """The Task, its rows as read, and how its labels are ordered, in words."""

    task: TaskParams
    raws: list[RawExample]
    order: str


def draft(request: Request, file: Path, name: str) -> Draft:
    """The Task that reads `file`, which messages call `name`.

    Raises DataError where the file can't be read or a column is not there, ConfigError for a template that can't be.
    """
    fields = field_names(request.shown)
    labels: tuple[str, ...] = (
        tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[: len(request.options)]) if request.options else ("0", "1")
    )  # any two, until they are read
    task = TaskParams(
        name=request.name,
        labels=labels,
        fields=fields,
        input_template=request.template or draft_template(fields, request.shown, request.options, labels),
        base_instruction="",
        reader=RecordsReader(
            format="records",
            path=str(file),
            fields=dict(zip(fields, request.shown, strict=True)),
            label=request.label,
            options=request.options or None,
            id=request.id,
            group=request.group,
            split=request.split,
        ),
    )
    if request.template is not None:
        _check_template(task, dict.fromkeys(fields, "text"))
    try:
        raws = [raw if raw.file == name else replace(raw, file=name) for raw in read(task)]
    except (DataError, ConfigError) as error:
        message = str(error).replace(str(file), name)
        raise type(error)(in_options(message, _option_of(message, request))) from None
    order = "that of the options"
    if not request.options:
        _check_lengths(raws, request.label, name)
        labels, order = declared(raw.label for raw in raws)
        _check_labels(labels, raws, request.label, name)
    instruction = request.instruction or draft_instruction(request.shown, request.options, request.label, labels)
    task = task.model_copy(update={"labels": labels, "base_instruction": instruction})
    if request.template is not None:
        for raw in raws:
            _check_template(task, raw.inputs)
    return Draft(task, raws, order)


def check_there(file: Path, name: str) -> None:
    """Raises DataError unless `file` is a file."""
    try:
        locate(str(file))
    except DataError as error:
        raise DataError(in_options(str(error).replace(str(file), name))) from None


def in_options(message: str, option: str = "the options") -> str:
    """A message about settings, rewritten for the options that become those settings; `option` names a column."""
    for settings, options in (
        ("reader.path in conf/task/", "--data"),
        ("reader.path", "--data"),
        ("reader in conf/task/", option),
        ("set reader.id to null in conf/task/", "omit --id"),
        ("set reader.split to null in conf/task/", "omit --split"),
        ("reader.label", "--label"),
        ("reader.fields or", "--text or"),
        ("if ids repeat throughout, they may be groups", "if ids repeat throughout, try --group instead of --id"),
        ("add a split column", "add a column for --split"),
        (", or declare the label in conf/task/", ""),
        (" in conf/task/", ""),
    ):
        message = message.replace(settings, options)
    return message


def _option_of(message: str, request: Request) -> str:
    """The option that names the column of a reader's message."""
    named = [("--text", column) for column in request.texts] + [("--options", column) for column in request.options]
    named += [("--label", request.label), ("--id", request.id or ""), ("--group", request.group or "")]
    named += [("--split", request.split or "")]
    found = (option for option, column in named if message.startswith(f"expected a column {column!r}"))
    return next(found, "the options")


def declared(labels: Iterable[str]) -> tuple[tuple[str, ...], str]:
    """The labels to declare, and how they are ordered: by number if all are numbers, else by alphabet. Of spellings
    that look the same, the most frequent one; blank and multi-line ones are left out."""
    counts = Counter(labels)
    spelled: dict[str, str] = {}
    for label in sorted(counts, key=lambda label: (-counts[label], label)):
        if visible(label) and on_one_line(label):
            spelled.setdefault(plain(label), label)
    if spelled and all(re.fullmatch(r"[+-]?\d{1,15}(\.\d{1,15})?", label, re.ASCII) for label in spelled):
        return tuple(sorted(spelled.values(), key=lambda label: (float(label), label))), "by number"
    return tuple(sorted(spelled.values(), key=lambda label: (label.casefold(), label))), "by alphabet"


def _check_lengths(raws: Sequence[RawExample], column: str, name: str) -> None:
    for raw in raws:
        if len(raw.label) > _LONGEST_LABEL:
            raise DataError(
                f"expected a label, got a text of {len(raw.label):,} characters ({name}: {raw.place}, column "
                f"{column!r}); correct the row, or name another column with --label"
            )


def _check_labels(labels: Sequence[str], raws: Sequence[RawExample], column: str, name: str) -> None:
    if len(labels) < 2:
        only = f"only {labels[0]!r:.60}" if labels else "none"
        raise DataError(
            f"expected at least two different labels, got {only} ({name}: column {column!r}); name another with --label"
        )
    if len(labels) > max(20, len(raws) / 2):
        raise DataError(
            f"expected a column of labels that repeat, got {len(labels):,} different texts in {len(raws):,} rows "
            f"({name}: column {column!r}); name another column, or, where it holds the text of one of several "
            "options, name their columns with --options"
        )


def _check_template(task: TaskParams, inputs: Mapping[str, str]) -> None:
    try:
        render_string(task.input_template, dict(inputs))
    except ConfigError as error:
        fields = ", ".join(f"{{{{ {field} }}}}" for field in task.fields)
        raise ConfigError(f"expected a template with {fields}, got another (--template): {error}") from None
