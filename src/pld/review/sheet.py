"""The YAML sheet that reviewers fill in: written with the evidence in comments, read back with PyYAML and pydantic."""

import math
import textwrap
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pld.distill.text_checks import one_line
from pld.prompts.markup import escaped
from pld.records import Example
from pld.resolve.lineage import describe_step
from pld.resolve.records import Effect
from pld.review.decisions import ReviewEntry
from pld.review.inputs import ReviewItem

_FEW_RULES, _FEW_IDS, _WIDTH = 5, 10, 100
_FREE_TEXT = ("reviewer", "note", "text")
_OF_TURNS = (
    "training examples that come with the instructions: whoever approves the instructions approves them too, and an "
    "example of rejected instructions alone goes with them"
)
_HOW = (
    "Give each instruction a verdict: approve (keep it), edit (change its text) or reject (remove it).",
    "Put the reviewer's name at the top for all instructions, or beside a single one. Notes are kept for good.",
    "Change only verdict, reviewer, note and text. For a long note, write `>-` and indent the lines below it.",
    "Then: pld review import FILE",
)


class SheetItem(BaseModel):
    """One instruction of a filled-in sheet, not yet checked against the prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    instruction: Annotated[str, Field(min_length=1)]
    verdict: str = ""
    reviewer: str = ""
    note: str = ""
    text: str = ""


class SheetContent(BaseModel):
    """A filled-in sheet; `prompt` is the hash of the prompt that it reviews."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    task: str
    prompt: Annotated[str, Field(min_length=1)]
    reviewer: str = ""
    instructions: list[SheetItem]


@dataclass(frozen=True)
class SheetFault:
    """A reason to refuse a sheet. `line` 0: the sheet as a whole; `problem`: `expected X, got Y`; `advice`: what to do
    about it."""

    line: int
    where: str
    problem: str
    advice: str = ""

    def message(self, path: str) -> str:
        line = f":{self.line}" if self.line else ""
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.problem} ({path}{line}, {self.where}){advice}"


@dataclass(frozen=True)
class Sheet:
    content: SheetContent
    root: yaml.Node

    def line(self, *location: str | int) -> int:
        """The line of the field at `location` (keys and list indices), or of its nearest parent in the file."""
        return _line(self.root, location)


def write_sheet(
    task: str,
    prompt_sha256: str,
    figures: Sequence[str],
    items: Sequence[ReviewItem],
    log: Sequence[ReviewEntry],
    turns: Sequence[tuple[str, Example]] = (),
) -> str:
    """The sheet to fill in. `figures`: lines on the prompt's quality; `log`: earlier decisions, shown as evidence;
    `turns`: the prompt's example turns, as (rendered input, example)."""
    lines = [_comment(line) for line in (f"Review of {task}", *figures, *_HOW)]
    lines += [_scalars({"task": task, "prompt": prompt_sha256, "reviewer": ""}), "instructions:"]
    for place, item in enumerate(items, 1):
        own = item.instruction
        fields = {"instruction": own.id, "verdict": "", "reviewer": "", "note": "", "text": own.text}
        lines += ["", "  " + _comment(f"{place} of {len(items)}: {own.label}")]
        lines += [f"  {_comment(line, depth)}" for depth, line in _evidence(item, log)]
        lines += ["  - " + textwrap.indent(_scalars(fields), "    ").removeprefix("    ")]
    if turns:
        lines += ["", *map(_comment, (f"The prompt ends in {len(turns)} example turns, {_OF_TURNS}:",))]
        lines += [_comment(f"{own.id} is {own.label}: {text}", 1) for text, own in turns]
    return "\n".join(lines) + "\n"


def read_sheet(held: bytes) -> Sheet | list[SheetFault]:
    """The sheet in a file (UTF-8, any line ends), or why its form is wrong."""
    root: yaml.Node | None = None
    try:
        loader = _Loader(held.decode("utf-8-sig"))
        root = loader.get_single_node()
        if not isinstance(root, yaml.MappingNode):
            problem = "expected a sheet as `pld review export` writes it, got none"
            return [SheetFault(0, "the file", problem)]
        return Sheet(SheetContent.model_validate(loader.construct_document(root)), root)
    except UnicodeDecodeError as error:
        problem = f"expected UTF-8, got byte {held[error.start]:#04x}"
        return [SheetFault(0, "the file", problem, "save it as UTF-8")]
    except (yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        found = getattr(error, "problem", None) or getattr(error, "reason", None) or "something else"
        advice = "write a text with a colon, a quote or # below `>-`, on lines indented by two more spaces"
        return [SheetFault(mark.line + 1 if mark else 0, "the file", f"expected YAML, got {found}", advice)]
    except ValidationError as error:
        return [_form_fault(root, found["loc"], found["msg"]) for found in error.errors() if root]


class _Loader(yaml.BaseLoader):
    """Reads every scalar as a string, and refuses what YAML would drop silently: repeated keys, and the part of a text
    after ` #`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.constructor.ConstructorError(problem=f"a second {name!r:.40}", problem_mark=key.start_mark)
            seen.add(name)
            end = value.end_mark
            plain = isinstance(value, yaml.ScalarNode) and value.style is None and value.value and name in _FREE_TEXT
            if plain and end.buffer[end.pointer :].partition("\n")[0].lstrip().startswith("#"):
                words = f"a {name} cut off by a comment"
                raise yaml.constructor.ConstructorError(problem=words, problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def _form_fault(root: yaml.Node, location: tuple[str | int, ...], message: str) -> SheetFault:
    where = ".".join(str(part)[:40] for part in location)
    problem = f"expected the fields that `pld review export` writes, got {message[:1].lower()}{message[1:]}"
    return SheetFault(_line(root, location), where, problem)


def _line(node: yaml.Node, location: Sequence[str | int]) -> int:
    line = node.start_mark.line + 1
    for part in location:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
        elif isinstance(node, yaml.MappingNode):
            pair = next(((key, value) for key, value in node.value if key.value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
    return line


def _comment(line: str, depth: int = 0) -> str:
    return f"# {'  ' * depth}{escaped(one_line(line))}"


def _evidence(own: ReviewItem, log: Sequence[ReviewEntry]) -> Iterator[tuple[int, str]]:
    """Lines on one instruction, each with its depth."""
    item, descent = own.instruction, own.descent
    clusters = f"cluster {', '.join(map(str, descent.cluster_ids))}" if descent.cluster_ids else "no cluster"
    yield 0, f"support: {item.support:g} ({len(item.rule_ids)} rules, {clusters}); origin: {descent.origin}"
    yield from _effect_lines(own.effect)
    if descent.edits:
        yield 0, "Edits:"
        yield from ((1, describe_step(step)) for step in descent.edits)
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


def _effect_lines(effect: Effect | None) -> Iterator[tuple[int, str]]:
    if effect is None:
        yield 0, "effect: not measured (resolution.ablation); `pld ablate` measures it"
        return
    yield (
        0,
        (
            f"effect on {effect.examples} validation examples, with it minus without it: macro-F1 "
            f"{effect.macro_f1.signed}; {effect.tokens} tokens"
        ),
    )
    for words, ids in (("fixes", effect.fixed), ("breaks", effect.broken)):
        few = ", ".join(map(one_line, ids[:_FEW_IDS]))
        more = f" and {len(ids) - _FEW_IDS} more" if len(ids) > _FEW_IDS else ""
        yield 0, f"{words} {len(ids)}: {few}{more}" if ids else f"{words} none"


class _Folded(str):
    """A text that is written over several lines."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(_Folded, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, ">"))


def _scalars(fields: Mapping[str, str]) -> str:
    """`fields` as lines of YAML that read back unchanged; an empty one is left open to be filled in."""
    return "\n".join(f"{name}: {_scalar(value)}".rstrip() for name, value in fields.items())


def _scalar(value: str) -> str:
    if not value:
        return ""
    if value != one_line(value):  # PyYAML reads back some of these only in double quotes
        written = yaml.dump({"v": value}, Dumper=_Dumper, width=math.inf, default_style='"')
    elif " " in value:
        written = yaml.dump({"v": _Folded(value)}, Dumper=_Dumper, width=_WIDTH, allow_unicode=True)
    else:
        written = yaml.dump({"v": value}, Dumper=_Dumper, width=math.inf, allow_unicode=True)
    return str(written).partition(":")[2].strip("\n").removeprefix(" ")
