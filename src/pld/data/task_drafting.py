"""Draft a task from the columns of a file: field names, template, base instruction, and the text of its file."""

import json
import re
import unicodedata
from collections.abc import Sequence

import yaml
from jinja2 import Environment, TemplateSyntaxError, meta

from pld.task_params import RecordsReader, TaskParams

_GENERIC = frozenset(
    ["label", "labels", "class", "target", "category", "y", "gold", "answer", "outcome", "output", "result"]
)
_TEMPLATES = Environment()
_WIDTH = 110


def field_names(columns: Sequence[str]) -> tuple[str, ...]:
    """A different name for each column, usable in a template: "claim text" → claim_text, "2nd" → field_2nd."""
    names: list[str] = []
    for column in columns:
        name = re.sub(r"\W+", "_", unicodedata.normalize("NFKC", column)).strip("_") or "field"
        if not name.isidentifier():
            name = f"field_{name}"
        if not name.isidentifier():
            name = "field"
        if not _can_be_filled(name):
            name = f"{name}_text"
        numbered, number = name, 2
        while numbered in names:
            numbered, number = f"{name}_{number}", number + 1
        names.append(numbered)
    return tuple(names)


def _can_be_filled(name: str) -> bool:
    """Whether a template reads `name` as a variable, not as a keyword ("not") or function ("range") of Jinja."""
    try:
        return meta.find_undeclared_variables(_TEMPLATES.parse(f"{{{{ {name} }}}}")) == {name}
    except TemplateSyntaxError:
        return False


def _words_of(name: str) -> str:
    """A column's name as words: "claimText_2" → "claim text 2"."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return " ".join(re.findall(r"[^\W_]+", apart)).lower() or "text"


def draft_template(fields: Sequence[str], columns: Sequence[str], options: Sequence[str], labels: Sequence[str]) -> str:
    """A single field alone; of several, each after its column's name, options after their labels."""
    if len(fields) == 1:
        return f"{{{{ {fields[0]} }}}}"
    lines = []
    for field, column in zip(fields, columns, strict=True):
        name = f"{labels[options.index(column)]}." if column in options else f"{_words_of(column).capitalize()}:"
        lines.append(f"{name} {{{{ {field} }}}}")
    return "\n".join(lines)


def draft_instruction(columns: Sequence[str], options: Sequence[str], label: str, labels: Sequence[str]) -> str:
    """Two sentences: what to read and decide, and how to answer."""
    read = _joined([_words_of(column) for column in columns if column not in options], "and", "the ")
    decided = _words_of(label)
    if options:
        first = f"Read {read} and choose the right one of the {len(options)} options."
    elif decided in _GENERIC:
        first = f"Read {read} and decide which of the labels fits."
    else:
        first = f"Read {read} and decide the {decided}."
    kind = "letter" if options else "word" if all(re.fullmatch(r"[\w-]+", text) for text in labels) else "label"
    if all(re.fullmatch(r"[\d.+-]+", text) for text in labels):
        kind = "number"
    return f"{first}\nAnswer with exactly one {kind}: {_joined(labels, 'or')}."


def task_file(task: TaskParams, order: str, origin: str, drafted: bool) -> str:
    """The text of conf/task/<name>.yaml. `order`: how labels are ordered, in words; `origin`: of the data; `drafted`:
    whether the base instruction is a draft."""
    reader = task.reader
    assert isinstance(reader, RecordsReader)
    template = _block(task.input_template) if "\n" in task.input_template else _text(task.input_template)
    roles = (("id", reader.id), ("group", reader.group), ("split", reader.split))
    lines = [
        f"# {origin}",
        f"name: {task.name}",
        *_labels(task.labels, order),
        "fields: [" + ", ".join(map(_key, task.fields)) + "]",
        f"input_template: {template}",
    ]
    if drafted:
        lines.append("# a draft: say in your own words what is decided, and what each label means")
    lines += [
        "base_instruction: " + _block(task.base_instruction),
        "reader:",
        "  format: records",
        f"  path: {_text(reader.path)}   # .csv, .jsonl or .parquet; assets/corpus/ is seen as data/",
        "  fields:   # input field: its column",
        *(f"    {_key(field)}: {_text(column)}" for field, column in reader.fields.items()),
        f"  label: {_text(reader.label)}   # columns; id, group and split may be null",
        "  options: " + ("null" if reader.options is None else "[" + ", ".join(map(_text, reader.options)) + "]"),
        *(f"  {role}: {'null' if column is None else _text(column)}" for role, column in roles),
    ]
    if reader.derive is not None:
        other = "test" if reader.derive == "validation" else "validation"
        lines.append(f"  derive: {reader.derive}   # the column lacks it: {other} rows are divided by hash, 2 to 3")
    return "\n".join(lines) + "\n"


def _labels(labels: Sequence[str], order: str) -> list[str]:
    line = "labels: [" + ", ".join(map(_text, labels)) + "]"
    comment = f"   # all there are, in the order of reports: {order}"
    if len(line) + len(comment) <= _WIDTH:
        return [line + comment]
    return [f"labels:{comment}", *(f"  - {_text(label)}" for label in labels)]


def _key(name: str) -> str:
    """A field's name, quoted if YAML would read it as something else ("no", "on")."""
    return name if yaml.safe_load(name) == name and name.isascii() else _text(name)


def _text(text: str) -> str:
    """In double quotes, so that a label 0, no or 1e3 stays text; interpolation of OmegaConf is escaped."""
    return json.dumps(_escaped(text), ensure_ascii=not text.isprintable())


def _block(text: str) -> str:
    """As a block of lines if they are plain, else in double quotes."""
    lines = text.split("\n")
    if all(line.isprintable() and line == line.strip() and line for line in lines):
        return "|-\n" + "\n".join(f"  {line}" for line in map(_escaped, lines))
    return _text(text)


def _escaped(text: str) -> str:
    return re.sub(r"(\\*)\$\{", lambda found: found[1] * 2 + "\\${", text)


def _joined(words: Sequence[str], last: str, before: str = "") -> str:
    named = [f"{before}{word}" for word in words]
    return named[0] if len(named) == 1 else f"{', '.join(named[:-1])} {last} {named[-1]}"
