"""Edits: what each makes of a list of instructions, and why one is refused."""

from collections.abc import Mapping, Sequence

from pld.distill import text_checks as wording
from pld.distill.consolidate import Weigh, merge_alike
from pld.distill.text_checks import Fault, FindPersonalData, personal_data_fault
from pld.records import Instruction, Task, content_id
from pld.resolve.records import Add, Edit, Move, Remove, Revise, Split

_WITHHELD = "(withheld: it repeats a training example or holds personal data)"


def apply(
    instructions: Sequence[Instruction], edit: Edit, round: int, rule_ids: tuple[str, ...] = (), weigh: Weigh = len
) -> list[Instruction]:
    """The list after `edit` (unchecked: see `fault_of`); unchanged where its id is not in the list, so that Edits come
    in any order.

    A new text makes a new id; where that is in the list already, the two merge at the first one's place, and no
    instruction that `edit` does not name is lost. `rule_ids` stand behind a new text; none: those of the instruction
    that it changes. A position beyond an end is that end.
    """
    if isinstance(edit, Add):
        new = _instruction(edit.text, edit.label, rule_ids, weigh(rule_ids), f"added in round {round}")
        return merge_alike(_inserted(instructions, new, edit.position), weigh)
    at = _place(instructions, edit.id)
    if at is None:
        return list(instructions)
    old = instructions[at]
    before, after = instructions[:at], instructions[at + 1 :]
    if isinstance(edit, Remove):
        return [*before, *after]
    if isinstance(edit, Move):
        return _inserted([*before, *after], old, edit.position)
    texts, how = ((edit.text,), "revised") if isinstance(edit, Revise) else (edit.texts, "split")
    behind = rule_ids or old.rule_ids
    support = weigh(behind) if behind else old.support
    new_ones = [_instruction(text, old.label, behind, support, f"{how} in round {round}") for text in texts]
    return merge_alike([*before, *new_ones, *after], weigh)


def fault_of(
    edit: Edit,
    instructions: Sequence[Instruction],
    task: Task,
    sources: Sequence[Mapping[str, str]],
    max_words: int,
    max_copied_words: int,
    personal_data: FindPersonalData | None = None,
) -> Fault | None:
    """The first reason to refuse `edit`, or None: then it changes the list.

    `sources`: the inputs of all training examples, none of which a new text may repeat (`copied`, looked for first and
    whatever else is wrong, like what `personal_data` finds: such an Edit is only kept `withheld`). The other reasons:
    `unknown_id`, `unknown_label`, `no_change`, `duplicate`, `split` (into fewer than two texts), and those of
    `wording.fault`.
    """
    texts = _new_texts(edit)
    for text in texts:
        if problem := _copied(text, sources, max_copied_words) or personal_data_fault(text, personal_data):
            return problem
    if isinstance(edit, Add):
        if edit.label not in task.labels:
            return Fault("unknown_label", f"{edit.label!r:.60} is none of the task's labels")
        return _text_fault(texts, edit.label, instructions, task, max_words)
    at = _place(instructions, edit.id)
    if at is None:
        return Fault("unknown_id", f"{edit.id!r:.60} is none of the instructions' ids")
    old = instructions[at]
    others = [*instructions[:at], *instructions[at + 1 :]]
    if isinstance(edit, Move) and min(max(edit.position, 0), len(others)) == at:
        return Fault("no_change", f"it stands at {at} already")
    if isinstance(edit, Revise) and texts == [old.text]:
        return Fault("no_change", "its text is the same")
    if problem := _text_fault(texts, old.label, others, task, max_words):
        return problem
    if isinstance(edit, Split) and len(set(texts)) < 2:
        return Fault("split", f"wanted two or more different texts, found {len(set(texts))}")
    return None


def withheld(edit: Edit) -> Edit:
    """`edit` without its words: what is kept of one that is refused as `copied` or `personal_data`,
    since a record may be shared where
    the data may not. Its reason goes too: it may repeat the same words."""
    if isinstance(edit, Revise | Add):
        return edit.model_copy(update={"text": _WITHHELD, "reason": _WITHHELD})
    if isinstance(edit, Split):
        return edit.model_copy(update={"texts": (_WITHHELD,) * len(edit.texts), "reason": _WITHHELD})
    return edit


def _text_fault(
    texts: Sequence[str], label: str, others: Sequence[Instruction], task: Task, max_words: int
) -> Fault | None:
    for text in texts:
        if problem := wording.fault(text, label, task.labels, max_words):
            return problem
        # under another label too: the prompt shows the text alone
        if same := next((other for other in others if other.text == text), None):
            return Fault("duplicate", f"the text of {same.id}")
    return None


def _copied(text: str, sources: Sequence[Mapping[str, str]], max_copied_words: int) -> Fault | None:
    copies = wording.copy_test(text, max_copied_words + 1)
    for source in sources:
        for name, value in source.items():
            if copies(value):
                # the words themselves stay out of the record
                return Fault("copied", f"repeats {max_copied_words + 1} or more consecutive words of {name}")
    return None


def _new_texts(edit: Edit) -> list[str]:
    """The texts that `edit` brings, as they would stand in the list."""
    if isinstance(edit, Revise | Add):
        return [wording.one_line(edit.text)]
    return [wording.one_line(text) for text in edit.texts] if isinstance(edit, Split) else []


def _place(instructions: Sequence[Instruction], instruction_id: str) -> int | None:
    return next((at for at, instruction in enumerate(instructions) if instruction.id == instruction_id), None)


def _inserted(others: Sequence[Instruction], one: Instruction, position: int) -> list[Instruction]:
    at = min(max(position, 0), len(others))
    return [*others[:at], one, *others[at:]]


def _instruction(text: str, label: str, rule_ids: tuple[str, ...], support: int | float, origin: str) -> Instruction:
    text = wording.one_line(text)
    return Instruction(
        id=content_id({"label": label, "text": text}, 12),
        text=text,
        label=label,
        rule_ids=rule_ids,
        support=support,
        origin=origin,
    )
