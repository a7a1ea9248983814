"""Applies Edits to a list of instructions, finds reasons to refuse one, and restores labels without an instruction."""

from collections.abc import Collection, Mapping, Sequence

from pld.distill import text_checks
from pld.distill.consolidate import RuleGroup, Weigh, make_instruction, merge_alike, nearest_first
from pld.distill.text_checks import Fault, FindPersonalData, one_line, personal_data_fault
from pld.ports import Vectors
from pld.records import Instruction, Rule, Task, content_id
from pld.resolve.records import Add, Edit, Move, Remove, Revise, Split

_WITHHELD = "(withheld: it repeats a training example or holds personal data)"


def apply(
    instructions: Sequence[Instruction], edit: Edit, round: int, rule_ids: tuple[str, ...] = (), weigh: Weigh = len
) -> list[Instruction]:
    """The list after `edit`, which is not checked (see `fault_of`); unchanged if its id is not in the list, so that
    Edits apply in any order.

    A new text gets a new id; if the list holds it already, the two merge at the first one's place. `rule_ids` support
    the new text; without any, those of the edited instruction do. Positions beyond an end are clipped.
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

    `copied` (from `sources`, the inputs of all training examples) and `personal_data` are checked first, since such an
    Edit may only be stored `withheld`; then `unknown_id`, `unknown_label`, `no_change`, `duplicate`, `split` (fewer
    than two texts) and the reasons of `text_checks.fault`.
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
        return Fault("split", f"expected two or more different texts, got {len(set(texts))}")
    return None


def withheld(edit: Edit) -> Edit:
    """`edit` without its text and reason, to store one refused as `copied` or `personal_data`: records may be shared
    where the data may not."""
    if isinstance(edit, Revise | Add):
        return edit.model_copy(update={"text": _WITHHELD, "reason": _WITHHELD})
    if isinstance(edit, Split):
        return edit.model_copy(update={"texts": (_WITHHELD,) * len(edit.texts), "reason": _WITHHELD})
    return edit


def lost_labels(before: Sequence[Instruction], after: Sequence[Instruction]) -> tuple[str, ...]:
    """Labels whose last instruction is gone, in the order of `before`."""
    left = {instruction.label for instruction in after}
    return tuple(dict.fromkeys(item.label for item in before if item.label not in left))


def restored(
    label: str,
    rules: Sequence[Rule],
    vectors: Vectors,
    noise: Collection[str],
    dropped: Collection[str],
    origin: str,
    weigh: Weigh = len,
) -> Instruction | None:
    """An instruction for a `label` that has none: the text of its most typical rule that was dropped as `noise` (ids),
    or of its most typical rule if none was. Rules with a text in `dropped` are left out; None if no rule is left.
    `vectors` [n, d] belong to `rules` [n]."""
    own = [at for at, rule in enumerate(rules) if rule.label == label and rule.text not in dropped]
    members = [at for at in own if rules[at].id in noise] or own
    if not members:
        return None
    group = RuleGroup(-1, label, nearest_first(members, rules, vectors, weigh))
    return make_instruction(group.rules[0].text, group, origin, weigh)


def _text_fault(
    texts: Sequence[str], label: str, others: Sequence[Instruction], task: Task, max_words: int
) -> Fault | None:
    for text in texts:
        if problem := text_checks.fault(text, label, task.labels, max_words):
            return problem
        # under another label too: the prompt shows the text alone
        if same := next((other for other in others if other.text == text), None):
            return Fault("duplicate", f"the text of {same.id}")
    return None


def _copied(text: str, sources: Sequence[Mapping[str, str]], max_copied_words: int) -> Fault | None:
    copies = text_checks.copy_test(text, max_copied_words + 1)
    for source in sources:
        for name, value in source.items():
            if copies(value):
                # must not quote the words: the fault is stored
                return Fault("copied", f"repeats {max_copied_words + 1} or more consecutive words of {name}")
    return None


def _new_texts(edit: Edit) -> list[str]:
    if isinstance(edit, Revise | Add):
        return [one_line(edit.text)]
    return [one_line(text) for text in edit.texts] if isinstance(edit, Split) else []


def _place(instructions: Sequence[Instruction], instruction_id: str) -> int | None:
    return next((at for at, instruction in enumerate(instructions) if instruction.id == instruction_id), None)


def _inserted(others: Sequence[Instruction], one: Instruction, position: int) -> list[Instruction]:
    at = min(max(position, 0), len(others))
    return [*others[:at], one, *others[at:]]


def _instruction(text: str, label: str, rule_ids: tuple[str, ...], support: int | float, origin: str) -> Instruction:
    text = one_line(text)
    return Instruction(
        id=content_id({"label": label, "text": text}, 12),
        text=text,
        label=label,
        rule_ids=rule_ids,
        support=support,
        origin=origin,
    )
