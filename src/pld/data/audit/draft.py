"""Draft the Task that reads a file, from the columns that a user names."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pld.data.readers import read
from pld.data.splits import RawExample, on_one_line, plain, visible
from pld.data.task_drafting import draft_instruction, draft_template, field_names
from pld.errors import ConfigError, DataError
from pld.prompts import render_string
from pld.task_params import RecordsReader, TaskParams

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
    derive: Literal["validation", "test"] | None
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
            derive=request.derive,
        ),
    )
    try:
        render_string(task.input_template, dict.fromkeys(fields, "text"))
    except ConfigError as error:
        names = ", ".join(f"{{{{ {field} }}}}" for field in fields)
        raise ConfigError(f"expected a template with {names}, got another (--template): {error}") from None
    try:
        raws = [replace(raw, file=name) for raw in read(task)]
    except (DataError, ConfigError) as error:
        raise type(error)(str(error).replace(str(file), name)) from None
    order = "that of the options"
    if not request.options:
        labels, order = declared(raw.label for raw in raws)
        _check_labels(labels, len(raws), request.label, name)
    instruction = request.instruction or draft_instruction(request.shown, request.options, request.label, labels)
    task = task.model_copy(update={"labels": labels, "base_instruction": instruction})
    return Draft(task, raws, order)


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


def _check_labels(labels: Sequence[str], rows: int, column: str, name: str) -> None:
    if len(labels) < 2:
        only = f"only {labels[0]!r:.60}" if labels else "none"
        raise DataError(
            f"expected at least two different labels, got {only} ({name}: column {column!r}); name another with --label"
        )
    if len(labels) > max(20, rows / 2) or max(map(len, labels)) > _LONGEST_LABEL:
        raise DataError(
            f"expected a column of short labels that repeat, got {len(labels):,} different texts in {rows:,} rows "
            f"({name}: column {column!r}); name another column, or, where it holds the text of one of several "
            "options, name their columns with --options"
        )
