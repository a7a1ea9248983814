"""Checks a filled-in sheet against the prompt's instructions: its decisions, or everything that is wrong with it."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pld.distill.text_checks import FindPersonalData, control_token, copy_test, one_line, personal_data_fault
from pld.records import Instruction, Task, sha256
from pld.resolve.edits import fault_of, lost_labels
from pld.resolve.records import Revise
from pld.review.decisions import VERDICTS, Decision, apply_decisions
from pld.review.sheet import Sheet, SheetFault, SheetItem

_LONGEST_NAME, _LONGEST_NOTE = 100, 2000  # characters; both stay in the log, the report and MLflow for good


@dataclass(frozen=True)
class SheetRules:
    """What a sheet must comply with. No text may repeat more than `max_copied_words` words in a row of `sources`, the
    inputs of all training examples. A text has at most `max_words` words, or as many as the text that it replaces."""

    task: Task
    sources: Sequence[Mapping[str, str]]
    max_words: int
    max_copied_words: int
    personal_data: FindPersonalData | None
    allow_missing_label: bool = False


def check_sheet(
    sheet: Sheet, instructions: Sequence[Instruction], rules: SheetRules
) -> tuple[list[Decision], list[SheetFault]]:
    """The decisions on `instructions`, in their order, and all faults; decisions count only without faults."""
    by_id = {own.id: own for own in instructions}
    decisions: dict[str, Decision] = {}
    faults: list[SheetFault] = []
    seen: set[str] = set()
    for place, item in enumerate(sheet.content.instructions):
        own, line = by_id.get(item.instruction), sheet.line("instructions", place)
        if own is None:
            problem = f"expected one of the prompt's instructions ({', '.join(by_id)}), got another"
            faults.append(SheetFault(line, repr(item.instruction[:60]), problem, "remove the entry"))
        elif own.id in seen:
            problem = "expected one entry per instruction, got a second one"
            faults.append(SheetFault(line, own.id, problem, "remove one of them"))
        else:
            seen.add(own.id)
            signed = one_line(item.reviewer or sheet.content.reviewer)
            problems = list(_problems(item, signed, own, instructions, rules))
            faults += [
                SheetFault(sheet.line("instructions", place, field), f"{own.id}: {field}", problem, advice)
                for field, problem, advice in problems
            ]
            if not problems:
                decisions[own.id] = _decision(item, signed, own)
    faults += [
        SheetFault(0, own.id, "expected an entry for this instruction, got none", "`pld review export` writes one")
        for own in instructions
        if own.id not in seen
    ]
    in_order = [decisions[own.id] for own in instructions if own.id in decisions]
    return in_order, faults or _list_faults(in_order, instructions, rules)


def _decision(item: SheetItem, signed: str, own: Instruction) -> Decision:
    verdict = next(verdict for verdict in VERDICTS if verdict == item.verdict.casefold())
    return Decision(
        instruction_id=own.id,
        text_sha256=sha256(own.text),
        verdict=verdict,
        text=one_line(item.text) if verdict == "edit" else None,
        note=_note(item),
        reviewer=signed,
    )


def _note(item: SheetItem) -> str:
    return "\n".join(line.strip() for line in item.note.splitlines()).strip()


def _problems(
    item: SheetItem, signed: str, own: Instruction, instructions: Sequence[Instruction], rules: SheetRules
) -> Iterator[tuple[str, str, str]]:
    """(field, problem, advice) for everything that is wrong with one entry."""
    verdict, note, text = item.verdict.casefold(), _note(item), one_line(item.text)
    if verdict not in VERDICTS:
        shown = repr(item.verdict[:60]) if item.verdict else "none"
        yield "verdict", f"expected approve, edit or reject, got {shown}", ""
    if not signed:
        yield "reviewer", "expected a name here or at the top of the sheet, got none", ""
    yield from _unfit("reviewer", signed, _LONGEST_NAME)
    yield from _unfit("note", item.note, _LONGEST_NOTE)
    if found := personal_data_fault(note, rules.personal_data):
        yield "note", f"expected no personal data, got a note that {found.detail}", "notes are kept for good: remove it"
    copies = copy_test(note, rules.max_copied_words + 1)
    if any(copies(value) for source in rules.sources for value in source.values()):
        problem = f"expected at most {rules.max_copied_words} words in a row of a training example, got more"
        yield "note", problem, "give the example's id instead"
    if text in ("", one_line(own.text)):
        if verdict == "edit":
            yield "text", "expected a new text with verdict edit, got the old one", "change it, or approve"
    elif verdict in ("approve", "reject"):
        yield "text", f"expected the old text with verdict {verdict}, got a new one", "use the verdict edit"
    else:
        yield from _unfit("text", item.text, None)
        edit, longest = Revise(id=own.id, text=text, reason=""), max(rules.max_words, len(own.text.split()))
        limits = longest, rules.max_copied_words, rules.personal_data
        if not _hidden(item.text) and (fault := fault_of(edit, instructions, rules.task, rules.sources, *limits)):
            problem = f"expected an instruction that passes the checks of the loop's edits, got {fault.reason}"
            yield "text", f"{problem}: {fault.detail}", "reword it"


def _unfit(field: str, text: str, limit: int | None) -> Iterator[tuple[str, str, str]]:
    """What keeps `text` out of a log, a terminal and a page: characters that nobody sees there, or its length."""
    if token := _hidden(text):
        yield field, f"expected no control token and no hidden or control character, got {token[:20]!r}", "remove it"
    if limit is not None and len(text) > limit:
        yield field, f"expected at most {limit:,} characters, got {len(text):,}", ""


def _hidden(text: str) -> str | None:
    return control_token(text) or next((char for char in text if unicodedata.category(char) == "Cs"), None)


def _list_faults(
    decisions: Sequence[Decision], instructions: Sequence[Instruction], rules: SheetRules
) -> list[SheetFault]:
    """Faults of the whole list, where each decision is fine alone."""
    made = apply_decisions(instructions, decisions)
    if not made:
        return [SheetFault(0, "verdict", "expected at least one instruction that stays, got all of them rejected")]
    faults = []
    for text in [text for text, count in Counter(own.text for own in made).items() if count > 1]:
        kept = {own.instruction_id for own in decisions if own.verdict == "approve" and own.text_sha256 == sha256(text)}
        same = [own.instruction_id for own in decisions if own.text == text or own.instruction_id in kept]
        faults.append(SheetFault(0, "text", f"expected different texts, got the same for {' and '.join(same)}"))
    lost = lost_labels(instructions, made)
    if lost and not rules.allow_missing_label:
        problem = f"expected an instruction for each label that has one now, got none left for {', '.join(lost)}"
        faults.append(SheetFault(0, "verdict", problem, "keep one, or import with --allow-missing-label"))
    return faults
