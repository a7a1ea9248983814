"""The sheet that people fill in, as Markdown (the fields of each instruction in a fence of YAML) or as one YAML
document: written with the evidence, and read back as it was edited by hand."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml
from markdown_it import MarkdownIt

from pld.distill.text_checks import one_line
from pld.prompts.markup import escaped
from pld.resolve.lineage import told
from pld.resolve.records import Effect
from pld.review.checks import Filled, SheetFault
from pld.review.decisions import ReviewEntry
from pld.review.inputs import Evidence

Format = Literal["markdown", "yaml"]
HEAD = ("task", "prompt", "reviewer")
BLOCK = ("instruction", "verdict", "reviewer", "note", "text")
ENDINGS: dict[Format, str] = {"markdown": ".md", "yaml": ".yaml"}
_FEW_RULES, _FEW_IDS, _WIDTH = 5, 10, 100
_OPENING = frozenset("#+-=>[_~")  # of a line, where Markdown would make more of it than text
_LITERAL = frozenset(("reviewer", "note", "text"))  # what YAML would cut off as a comment belongs to these
_HOW = (
    "Give each instruction a verdict: approve (as it stands), edit (with a new text) or reject (it goes).",
    "Say who decides: in the head for all instructions, or beside one of them. A note says why; it is kept for good.",
    "Change nothing but verdict, reviewer, note and text. Indent the further lines of a long text or note.",
)
_THEN = "pld review import FILE"
_WRITE = "write it on lines of its own, indented by two spaces, below `>-`"


@dataclass(frozen=True)
class SheetHead:
    """What a sheet is about; `figures`: lines on what the prompt reaches."""

    task: str
    prompt_sha256: str
    figures: tuple[str, ...]


@dataclass
class Sheet:
    """A sheet as it was filled in, unchecked but for its form; `faults` of that."""

    task: str = ""
    prompt_sha256: str = ""
    reviewer: str = ""
    blocks: list[Filled] = field(default_factory=list)
    faults: list[SheetFault] = field(default_factory=list)

    def holds_decisions(self, texts: Mapping[str, str]) -> bool:
        """Whether something was filled in; `texts`: instruction → its text when the sheet was written."""
        return bool(self.faults or self.reviewer) or any(
            block.verdict or block.note or block.reviewer or one_line(block.text) != texts.get(block.instruction_id)
            for block in self.blocks
        )


def write_sheet(head: SheetHead, evidence: Sequence[Evidence], log: Sequence[ReviewEntry], kind: Format) -> str:
    """The sheet to fill in. `log`: what was decided before, which stands with the evidence."""
    write = _markdown if kind == "markdown" else _yaml
    return write(head, evidence, log)


def read_sheet(held: bytes, kind: Format) -> Sheet:
    """The sheet in a file. Line ends and a byte order mark are those of any system; other encodings are a fault."""
    sheet = Sheet()
    try:
        text = held.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        sheet.faults.append(SheetFault(0, "the file", f"wanted UTF-8, found byte {held[error.start]:#04x}; save it so"))
        return sheet
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        sheet.faults.append(
            SheetFault(text[: text.index("\0")].count("\n") + 1, "the file", "wanted text, found a NUL")
        )
        return sheet
    (_read_markdown if kind == "markdown" else _read_yaml)(text, sheet)
    if not sheet.faults and not sheet.prompt_sha256:
        words = f"wanted a head with {', '.join(HEAD)}, found none; `pld review export` writes one"
        sheet.faults.append(SheetFault(0, "the head", words))
    return sheet


@dataclass(frozen=True)
class _Field:
    value: str
    line: int


def _read_markdown(text: str, sheet: Sheet) -> None:
    # a fence inside a list or a quotation is none of ours: evidence may hold anything
    for token in MarkdownIt("commonmark").parse(text):
        if token.type != "fence" or token.level or token.info.strip().casefold() not in ("yaml", "yml"):
            continue
        assert token.map is not None
        _take(_fields(token.content, token.map[0] + 2, sheet.faults), token.map[0] + 1, sheet)


def _fields(content: str, first: int, faults: list[SheetFault]) -> dict[str, _Field]:
    """The fields of a fence whose content starts at the line `first`: lines `name: value`, of which a value in quotes,
    or below `>-` or `|`, is YAML's, and any other is taken as it stands, colons and all."""
    chunks: list[tuple[str, int, list[str]]] = []
    for number, line in enumerate(content.split("\n"), first):
        name, colon, rest = line.partition(":")
        if not line.strip() or line[0] in " \t":
            if chunks:
                tabs = len(line) - len(line.lstrip("\t"))
                chunks[-1][2].append("  " * tabs + line[tabs:])
            elif line.strip():
                faults.append(SheetFault(number, "the fields", "wanted a field's name and a colon, found neither"))
        elif colon and (known := name.strip().casefold()) in (*HEAD, *BLOCK):
            chunks.append((known, number, [rest]))
        else:
            words = (
                f"wanted one of {', '.join(dict.fromkeys((*BLOCK, *HEAD)))} and a colon, found {line[:40]!r}; indent "
                "the further lines of a text or a note"
            )
            faults.append(SheetFault(number, "the fields", words))
    found: dict[str, _Field] = {}
    for name, number, lines in chunks:
        if name in found:
            faults.append(SheetFault(number, name, "wanted one line for the field, found a second one; take one out"))
            continue
        found[name] = _Field(_value(name, number, lines, faults), number)
    return found


def _value(name: str, number: int, lines: Sequence[str], faults: list[SheetFault]) -> str:
    first = lines[0].strip()
    if first[:1] not in ('"', "'", "|", ">"):
        return "\n".join(line.strip() for line in (first, *lines[1:])).strip()
    try:
        value = yaml.load("value: " + "\n".join((first, *lines[1:])), yaml.BaseLoader)["value"]
        assert isinstance(value, str)
    except (yaml.YAMLError, AssertionError, TypeError) as error:
        faults.append(SheetFault(number, name, f"wanted a text as YAML writes it, found {_problem(error)}; {_WRITE}"))
        return ""
    return value


def _problem(error: Exception) -> str:
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or "something else")


def _read_yaml(text: str, sheet: Sheet) -> None:
    try:
        root = yaml.compose(text, yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        words = (
            f"wanted YAML, found {_problem(error)}; put a value with a colon or a quote on lines of its own below `>-`"
        )
        sheet.faults.append(SheetFault(mark.line + 1 if mark else 0, "the file", words))
        return
    if not isinstance(root, yaml.MappingNode):
        sheet.faults.append(SheetFault(0, "the file", "wanted a sheet as `pld review export` writes it, found none"))
        return
    lines = text.split("\n")
    blocks: list[Any] = []
    head: dict[str, _Field] = {}
    for key, value in root.value:
        if key.value == "instructions" and isinstance(value, yaml.SequenceNode):
            blocks = value.value
        else:
            _node(key, value, HEAD, head, lines, sheet.faults)
    _take(head, root.start_mark.line + 1, sheet)
    for block in blocks:
        found: dict[str, _Field] = {}
        pairs = block.value if isinstance(block, yaml.MappingNode) else ()
        for key, value in pairs:
            _node(key, value, BLOCK, found, lines, sheet.faults)
        _take(found, block.start_mark.line + 1, sheet)


def _node(
    key: Any, value: Any, known: Sequence[str], found: dict[str, _Field], lines: Sequence[str], faults: list[SheetFault]
) -> None:
    """Take one key and its value into `found`."""
    number, name = key.start_mark.line + 1, str(key.value).strip().casefold()
    if name not in known:
        faults.append(
            SheetFault(number, "the fields", f"wanted one of {', '.join(known)}, found {str(key.value)[:40]!r}")
        )
    elif name in found:
        faults.append(SheetFault(number, name, "wanted one line for the field, found a second one; take one out"))
    elif not isinstance(value, yaml.ScalarNode):
        faults.append(SheetFault(number, name, f"wanted a text, found a list or a mapping; {_WRITE}"))
    else:
        after = lines[value.end_mark.line][value.end_mark.column :] if value.end_mark.line < len(lines) else ""
        if name in _LITERAL and value.style is None and value.value and after.lstrip().startswith("#"):
            faults.append(SheetFault(number, name, f"wanted a text, found what YAML cuts off as a comment; {_WRITE}"))
        found[name] = _Field(value.value, number)


def _take(fields: Mapping[str, _Field], line: int, sheet: Sheet) -> None:
    """Into `sheet`: the head, or one block."""

    def value(name: str) -> str:
        return fields[name].value.strip() if name in fields else ""

    if "prompt" in fields or "task" in fields:
        if sheet.prompt_sha256:
            sheet.faults.append(SheetFault(line, "the head", "wanted one head, found a second one; take one out"))
            return
        sheet.task, sheet.prompt_sha256, sheet.reviewer = one_line(value("task")), value("prompt"), value("reviewer")
    elif value("instruction"):
        lines = {"instruction": line} | {name: found.line for name, found in fields.items()}
        verdict = value("verdict").partition("#")[0].strip()
        sheet.blocks.append(
            Filled(value("instruction"), verdict, value("text"), value("note"), value("reviewer"), lines)
        )
    else:
        words = "wanted the field instruction with an id, found none; put it back, or take the block out"
        sheet.faults.append(SheetFault(line, "the block", words))


def _markdown(head: SheetHead, evidence: Sequence[Evidence], log: Sequence[ReviewEntry]) -> str:
    parts = [f"# Review of {_plain(head.task)}", "\n".join(f"- {_plain(line)}" for line in head.figures)]
    parts += ["## How to fill this in", *(_plain(line) for line in _HOW), f"Then: `{_THEN}`"]
    parts += [_fence(_scalars({"task": head.task, "prompt": head.prompt_sha256, "reviewer": ""}))]
    for place, own in enumerate(evidence, 1):
        item = own.instruction
        parts += [f"## {place} of {len(evidence)}: {_plain(item.label)}", f"> {_plain(item.text)}"]
        parts += ["\n".join(f"{'  ' * depth}- {_plain(line)}" for depth, line in _told(own, log))]
        parts += [_fence(_scalars(_block(own)))]
    return "\n\n".join(parts) + "\n"


def _yaml(head: SheetHead, evidence: Sequence[Evidence], log: Sequence[ReviewEntry]) -> str:
    told = (f"Review of {head.task}", *head.figures, *_HOW, f"Then: {_THEN}")
    lines = [_comment(line) for line in told]
    lines += [_scalars({"task": head.task, "prompt": head.prompt_sha256, "reviewer": ""}), "instructions:"]
    for place, own in enumerate(evidence, 1):
        lines += ["", "  " + _comment(f"{place} of {len(evidence)}: {own.instruction.label}")]
        lines += [f"  {_comment(line, depth)}" for depth, line in _told(own, log)]
        block = textwrap.indent(_scalars(_block(own)), "    ")
        lines += ["  - " + block.removeprefix("    ")]
    return "\n".join(lines) + "\n"


def _comment(line: str, depth: int = 0) -> str:
    return f"# {'  ' * depth}{escaped(one_line(line))}"


def _block(own: Evidence) -> dict[str, str]:
    return {"instruction": own.instruction.id, "verdict": "", "reviewer": "", "note": "", "text": own.instruction.text}


def _told(own: Evidence, log: Sequence[ReviewEntry]) -> Iterator[tuple[int, str]]:
    """The evidence as lines, each with its depth."""
    item, descent = own.instruction, own.descent
    clusters = f"cluster {', '.join(map(str, descent.cluster_ids))}" if descent.cluster_ids else "no cluster"
    yield 0, f"support: {item.support:g} ({len(item.rule_ids)} rules, {clusters}); origin: {descent.origin}"
    yield from _told_effect(own.effect)
    if descent.edits:
        yield 0, "Edits:"
        yield from ((1, told(step)) for step in descent.edits)
    for entry in log:
        for decision in entry.decisions:
            if decision.instruction_id == item.id:
                why = f": {one_line(decision.note)}" if decision.note else ""
                yield 0, f"decided before, sheet {entry.number}: {decision.verdict} by {decision.reviewer}{why}"
    if not own.rules:
        return
    yield 0, f"comes from {len(own.rules)} rules" + (", the most typical first:" if len(own.rules) > 1 else ":")
    for rule in own.rules[:_FEW_RULES]:
        doubtful = " (doubtful)" if rule.doubtful else ""
        yield 1, f"{one_line(rule.example_id)}{doubtful}: {one_line(rule.text)}"
    if len(own.rules) > _FEW_RULES:
        yield 1, f"and {len(own.rules) - _FEW_RULES} more: pld explain {item.id} --all"


def _told_effect(effect: Effect | None) -> Iterator[tuple[int, str]]:
    if effect is None:
        yield 0, "effect: not measured (resolution.ablation); pld ablate does it"
        return
    yield 0, f"effect on validation, with it less without it: macro-F1 {effect.macro_f1.signed}; {effect.tokens} tokens"
    for words, ids in (("turns right", effect.fixed), ("turns wrong", effect.broken)):
        few = ", ".join(map(one_line, ids[:_FEW_IDS])) or "none"
        more = f" and {len(ids) - _FEW_IDS} more" if len(ids) > _FEW_IDS else ""
        yield 0, f"{words} {len(ids)}: {few}{more}" if ids else f"{words} none"


class _Folded(str):
    """A text that is written over several lines."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Folded, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, ">"))


def _scalars(fields: Mapping[str, str]) -> str:
    """`fields` as lines of YAML that read back as they are; an empty one is left open to be filled in."""
    return "\n".join(f"{name}: {_scalar(value)}".rstrip() for name, value in fields.items())


def _scalar(value: str) -> str:
    if not value:
        return ""
    if value != one_line(value):  # PyYAML reads some of these otherwise than it wrote them, but not in this style
        written = yaml.dump({"v": value}, Dumper=_Dumper, width=math.inf, default_style='"')
    elif " " in value:
        written = yaml.dump({"v": _Folded(value)}, Dumper=_Dumper, width=_WIDTH, allow_unicode=True)
    else:
        written = yaml.dump({"v": value}, Dumper=_Dumper, width=math.inf, allow_unicode=True)
    return str(written).partition(":")[2].strip("\n").removeprefix(" ")


def _fence(content: str) -> str:
    """A fence that nothing in `content` closes."""
    longest, run = 2, 0
    for character in content:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    ticks = "`" * (longest + 1)
    return f"{ticks}yaml\n{content}\n{ticks}"


def _plain(text: str) -> str:
    """`text` on one line of Markdown, none of it a link, code, HTML or the beginning of a block."""
    flat = escaped(one_line(text)).replace("\\", "\\\\")
    for mark in ("`", "*", "<", "](", "]["):
        flat = flat.replace(mark, f"\\{mark}")
    return f"\\{flat}" if flat[:1] in _OPENING else flat
