"""A sheet that somebody filled in: the decisions that it makes, or all that is wrong with it."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pld.distill.text_checks import FindPersonalData, control_token, copy_test, one_line, personal_data_fault
from pld.records import Instruction, Task, sha256
from pld.resolve.coverage import lost_labels
from pld.resolve.edits import fault_of
from pld.resolve.records import Revise
from pld.review.decisions import VERDICTS, Decision, Verdict, edited

_LONGEST_NAME, _LONGEST_NOTE = 100, 2000  # characters; both go into the log, the report and MLflow for good


@dataclass(frozen=True)
class Filled:
    """One block of a sheet as it was filled in, unchecked; `lines`: field → where it stands (`instruction`: where the
    block does)."""

    instruction_id: str
    verdict: str
    text: str
    note: str
    reviewer: str
    lines: Mapping[str, int]


@dataclass(frozen=True)
class SheetFault:
    """What keeps a sheet from being imported: at `line` (0: the sheet as a whole), `where` in it, wanted and found."""

    line: int
    where: str
    words: str


@dataclass(frozen=True)
class SheetRules:
    """What a sheet must keep to. `sources`: the inputs of all training examples, of which no text repeats more than
    `max_copied_words` in a row; a text has at most `max_words`, or as many as the one that it takes the place of."""

    task: Task
    sources: Sequence[Mapping[str, str]]
    max_words: int
    max_copied_words: int
    personal_data: FindPersonalData | None
    allow_missing_label: bool = False


def judged(
    blocks: Sequence[Filled], instructions: Sequence[Instruction], reviewer: str, rules: SheetRules
) -> tuple[list[Decision], list[SheetFault]]:
    """The decisions of a sheet about `instructions`, in their order, and all that is wrong with it: what was decided
    counts only where that is nothing. `reviewer` signs where a block names none."""
    by_id = {own.id: own for own in instructions}
    faults = [
        SheetFault(0, own.id, "wanted a block for this instruction, found none; `pld review export` writes one")
        for own in instructions
        if own.id not in {block.instruction_id for block in blocks}
    ]
    decisions: dict[str, Decision] = {}
    seen: set[str] = set()
    for block in blocks:
        own, line = by_id.get(block.instruction_id), block.lines["instruction"]
        if own is None:
            words = f"wanted one of the prompt's instructions ({', '.join(by_id)}), found another; take the block out"
            faults.append(SheetFault(line, _shown(block.instruction_id), words))
        elif own.id in seen:
            words = "wanted one block for each instruction, found a second one; take one out"
            faults.append(SheetFault(line, own.id, words))
        else:
            seen.add(own.id)
            found = _decision(block, own, reviewer, instructions, rules)
            if isinstance(found, Decision):
                decisions[own.id] = found
            else:
                faults += found
    in_order = [decisions[own.id] for own in instructions if own.id in decisions]
    return in_order, faults or _list_faults(in_order, instructions, rules)


def _decision(
    block: Filled, own: Instruction, reviewer: str, instructions: Sequence[Instruction], rules: SheetRules
) -> Decision | list[SheetFault]:
    """What `block` says about `own`, or all that is wrong with it."""
    verdict, text = _verdict(block.verdict), one_line(block.text)
    signed = one_line(block.reviewer or reviewer)
    note = "\n".join(line.strip() for line in block.note.splitlines()).strip()
    problems = {
        "verdict": None if verdict else f"wanted approve, edit or reject, found {_shown(block.verdict)}",
        "reviewer": _name_fault(signed),
        "note": hidden(block.note) or _too_long(note, _LONGEST_NOTE) or _note_fault(note, rules),
        "text": _text_fault(block.text, verdict, own, instructions, rules),
    }
    faults = [
        SheetFault(block.lines.get(field, block.lines["instruction"]), f"{own.id}: {field}", words)
        for field, words in problems.items()
        if words
    ]
    if faults or verdict is None:
        return faults
    return Decision(
        instruction_id=own.id,
        text_sha256=sha256(own.text),
        verdict=verdict,
        text=text if verdict == "edit" else None,
        note=note,
        reviewer=signed,
    )


def _name_fault(name: str) -> str | None:
    if not name:
        return "wanted who decided this, here or for all blocks in the head of the sheet, found none"
    return hidden(name) or _too_long(name, _LONGEST_NAME)


def _text_fault(
    typed: str, verdict: Verdict | None, own: Instruction, instructions: Sequence[Instruction], rules: SheetRules
) -> str | None:
    text = one_line(typed)
    if text in ("", one_line(own.text)):
        same = "wanted another text than now with verdict edit, found the same; change it, or approve"
        return same if verdict == "edit" else None
    if verdict in ("approve", "reject"):
        return f"wanted the text as it was with verdict {verdict}, found another; the verdict for it is edit"
    if problem := hidden(typed):
        return problem
    found = fault_of(
        Revise(id=own.id, text=text, reason=""),
        instructions,
        rules.task,
        rules.sources,
        max(rules.max_words, len(own.text.split())),
        rules.max_copied_words,
        rules.personal_data,
    )
    return f"{found.reason}: {found.detail}; word it in another way" if found else None


def _verdict(value: str) -> Verdict | None:
    return next((verdict for verdict in VERDICTS if verdict == value.strip().casefold()), None)


def _list_faults(
    decisions: Sequence[Decision], instructions: Sequence[Instruction], rules: SheetRules
) -> list[SheetFault]:
    """What is wrong with the list that decisions make, each of which is right by itself."""
    made = edited(instructions, decisions)
    if not made:
        return [SheetFault(0, "verdict", "wanted at least one instruction that stays, found all of them rejected")]
    twice = [text for text, count in Counter(own.text for own in made).items() if count > 1]
    faults = [
        SheetFault(0, "text", f"wanted different texts, found the same for {' and '.join(_ids_of(decisions, text))}")
        for text in twice
    ]
    lost = lost_labels(instructions, made)
    if lost and not rules.allow_missing_label:
        words = (
            f"wanted an instruction for each label that has one now, found none left for {', '.join(lost)}; keep one, "
            "or import with --allow-missing-label"
        )
        faults.append(SheetFault(0, "verdict", words))
    return faults


def hidden(text: str) -> str | None:
    """Why `text` may not go into a log, onto a terminal and into a page, if it holds what nobody would see there."""
    token = control_token(text)
    if token is None:
        token = next((character for character in text if unicodedata.category(character) == "Cs"), None)
    if token is None:
        return None
    return f"wanted no control token and no hidden or control character, found {token[:20]!r}; take it out"


def _note_fault(note: str, rules: SheetRules) -> str | None:
    """A note is kept where the data may not be."""
    if found := personal_data_fault(note, rules.personal_data):
        return f"{found.detail}, and notes are kept for good; take it out"
    copies: Callable[[str], bool] = copy_test(note, rules.max_copied_words + 1)
    if any(copies(value) for source in rules.sources for value in source.values()):
        return f"repeats more than {rules.max_copied_words} words of a training example; name the example's id instead"
    return None


def _too_long(text: str, limit: int) -> str | None:
    return f"wanted at most {limit:,} characters, found {len(text):,}" if len(text) > limit else None


def _ids_of(decisions: Sequence[Decision], text: str) -> list[str]:
    same = sha256(text)
    return [
        own.instruction_id
        for own in decisions
        if own.text == text or (own.verdict == "approve" and own.text_sha256 == same)
    ]


def _shown(value: str) -> str:
    return repr(value[:60]) if value.strip() else "none"
