"""Have the Teacher turn the instructions of all labels into an ordered checklist, whose first fitting step decides."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from pld import prompts
from pld.distill import structured_requests, text_checks
from pld.distill.consolidate import Weigh, merge_alike
from pld.distill.label_consolidation import Checks, invalid, list_schema, origin_of, sifted
from pld.distill.teacher_consolidation import NO_ANSWER
from pld.distill.text_checks import Fault
from pld.ports import CONSOLIDATE, Teacher, TeacherRequest
from pld.records import Example, Instruction, Record, Rule, content_id

FRAME = "checklist"
STEP = "step"


class Step(Record):
    """One step of an answer."""

    instructions: tuple[int, ...] = Field(description="The numbers of the instructions that it rests on.")
    text: str = Field(description="One question about the input, then the label that follows.")
    label: str = Field(description="The label that the step leads to.")


class ChecklistAnswer(Record):
    """The Teacher's answer."""

    steps: tuple[Step, ...] = Field(description="In the order in which the model goes through them.")


def checklist(
    checks: Checks,
    instructions: Sequence[Instruction],
    rules: Mapping[str, Rule],
    train: Mapping[str, Example],
    max_steps: int,
    teacher: Teacher,
    attempts: int,
    weigh: Weigh = len,
) -> list[Instruction] | None:
    """At most `max_steps` steps in order; each rests on the rules of the instructions that it cites.

    None where there is no usable answer (some label that has instructions has no good step), and where an instruction
    is missing in the first place: what stands in for it may differ between machines.
    """
    if any(NO_ANSWER in instruction.origin for instruction in instructions):
        return None
    request = checklist_request(checks, instructions, max_steps)
    good: list[Step] = []

    def check(_: str, content: Mapping[str, Any]) -> list[Step] | Fault:
        nonlocal good
        found, problem = _read(checks, instructions, rules, train, max_steps, content)
        if problem is None or len(found) >= len(good):
            good = found
        return problem or found

    settled = structured_requests.ask(teacher, [request], check, attempts).get(request.key)
    if settled is None or _without_step(instructions, good) or len(good) > max_steps:
        return None
    origin = origin_of(STEP, settled)
    return merge_alike([_instruction(step, instructions, origin, weigh) for step in good], weigh)


def checklist_request(checks: Checks, instructions: Sequence[Instruction], max_steps: int) -> TeacherRequest:
    shown = [
        {"number": number, "label": instruction.label, "text": instruction.text}
        for number, instruction in enumerate(instructions, 1)
    ]
    return TeacherRequest(
        key=content_id([FRAME, max_steps, *(instruction.id for instruction in instructions)]),
        role=CONSOLIDATE,
        system=prompts.render(
            "checklist_system",
            base_instruction=checks.task.base_instruction,
            labels=checks.task.labels,
            max_steps=max_steps,
            max_words=checks.max_words,
        ),
        prompt=prompts.render("checklist_user", instructions=prompts.data_block("instructions", shown)),
        schema=list_schema(ChecklistAnswer, checks.task.labels),
    )


def _read(
    checks: Checks,
    instructions: Sequence[Instruction],
    rules: Mapping[str, Rule],
    train: Mapping[str, Example],
    max_steps: int,
    content: Mapping[str, Any],
) -> tuple[list[Step], Fault | None]:
    """The good steps of an answer, and what is wrong with the others or with the whole."""
    try:
        given = ChecklistAnswer.model_validate(dict(content)).steps
    except ValidationError as error:
        return [], invalid(error)

    def problem_of(step: Step) -> Fault | None:
        if unknown := [number for number in step.instructions if not 0 < number <= len(instructions)]:
            return Fault("unknown_instruction", f"cites {unknown[0]}, got instructions 1 to {len(instructions)}")
        own = [instructions[number - 1] for number in step.instructions]
        if not own:
            return Fault("no_instruction", "cites no instruction")
        if others := sorted({instruction.label for instruction in own} - {step.label}):
            return Fault("other_label", f"leads to {step.label}, and cites an instruction for {others[0]}")
        examples = [
            value
            for instruction in own
            for rule_id in instruction.rule_ids
            for value in train[rules[rule_id].example_id].inputs.values()
        ]
        return checks.fault(step.text, step.label, examples)

    good, problem = sifted(given, STEP, problem_of)
    if problem is None and len(given) > max_steps:
        problem = Fault("too_many", f"{len(given)} steps, more than {max_steps}")
    if problem is None and (lacking := _without_step(instructions, good)):
        problem = Fault("no_step", f"no step leads to {', '.join(lacking)}")
    return good, problem


def _without_step(instructions: Sequence[Instruction], steps: Sequence[Step]) -> list[str]:
    return sorted({instruction.label for instruction in instructions} - {step.label for step in steps})


def _instruction(step: Step, instructions: Sequence[Instruction], origin: str, weigh: Weigh) -> Instruction:
    text = text_checks.one_line(step.text)
    cited = [instructions[number - 1].rule_ids for number in step.instructions]
    rule_ids = tuple(dict.fromkeys(rule_id for own in cited for rule_id in own))
    return Instruction(
        id=content_id({"label": step.label, "text": text}, 12),
        text=text,
        label=step.label,
        rule_ids=rule_ids,
        support=weigh(rule_ids),
        origin=origin,
    )
