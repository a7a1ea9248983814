"""Consolidation by the Teacher: one structured call merges the rules of a group into one instruction.

Step 2 of Prompt-Level Distillation (arXiv 2602.21103). What can't be merged falls back to the group's medoid.
"""

from collections.abc import Mapping, Sequence

from pydantic import Field, ValidationError

from pld import prompts
from pld.method import wording
from pld.method.consolidation import RuleGroup, make_instruction, merge_alike
from pld.method.extraction import answer_schema
from pld.params import TeacherConsolidator
from pld.ports import OnProgress, Teacher, TeacherAnswer, TeacherRequest
from pld.records import Instruction, Record, Task, content_id

ROLE = "consolidate"
MERGED, MEDOID = "merged", "medoid"


class MergeAnswer(Record):
    """What the Teacher is asked for."""

    instruction: str = Field(description="One self-contained conditional instruction that names its label.")
    label: str = Field(description="The label that the instruction leads to.")


def merge(
    task: Task,
    groups: Sequence[RuleGroup],
    params: TeacherConsolidator,
    teacher: Teacher,
    on_progress: OnProgress | None = None,
) -> list[Instruction]:
    """One instruction per group, in the order of `groups` (groups that come to the same text and label are one).

    A group of one rule is taken as it stands. With more groups than `max_calls` the largest are merged. A group that
    is not merged, or whose answer is refused, gives its medoid, and the instruction's `origin` says why.
    `on_progress` counts groups. Raises TeacherError when the Teacher can't be used at all.
    """
    several = [group for group in groups if len(group.rules) > 1]
    asked = sorted(several, key=lambda group: (-len(group.rules), group.cluster_id, group.label))[: params.max_calls]
    requests = {request.key: request for request in (merge_request(task, group, params) for group in asked)}
    if on_progress:
        on_progress(len(groups) - len(requests))
    answers: dict[str, TeacherAnswer] = {}
    for answer in teacher.ask(list(requests.values())) if requests else ():
        answers[answer.key] = answer
        if on_progress:
            on_progress(1)
    return merge_alike([_instruction(task, group, params, requests, answers) for group in groups])


def merge_request(task: Task, group: RuleGroup, params: TeacherConsolidator) -> TeacherRequest:
    """The question about one group; its key depends on the label and on the rules shown alone, so that two trials
    that cluster alike ask the same."""
    shown = [{"rule": rule.text, "doubtful": rule.doubtful} for rule in group.rules[: params.max_rules]]
    return TeacherRequest(
        key=_key(group, params),
        role=ROLE,
        system=prompts.render(
            "merge_system", base_instruction=task.base_instruction, labels=task.labels, max_words=params.max_words
        ),
        prompt=prompts.render("merge_user", rules=prompts.data_block("rules", shown), label=group.label),
        schema=answer_schema(MergeAnswer, task.labels),
    )


def _key(group: RuleGroup, params: TeacherConsolidator) -> str:
    return content_id({"label": group.label, "rules": [rule.id for rule in group.rules[: params.max_rules]]})


def _instruction(
    task: Task,
    group: RuleGroup,
    params: TeacherConsolidator,
    requests: Mapping[str, TeacherRequest],
    answers: Mapping[str, TeacherAnswer],
) -> Instruction:
    if len(group.rules) == 1:
        return make_instruction(group.rules[0].text, group, MEDOID)
    key = _key(group, params)
    if key not in answers:
        why = "no answer" if key in requests else f"over max_calls {params.max_calls}"
        return make_instruction(group.rules[0].text, group, f"{MEDOID} (not merged: {why})")
    text, refusal = _read(task, group, params, answers[key])
    if refusal:
        return make_instruction(group.rules[0].text, group, f"{MEDOID} (merge refused: {refusal})")
    return make_instruction(text, group, MERGED)


def _read(task: Task, group: RuleGroup, params: TeacherConsolidator, answer: TeacherAnswer) -> tuple[str, str | None]:
    """The merged text, and the code of what speaks against it."""
    if answer.content is None:
        return "", (answer.error or "invalid").partition(":")[0].strip()
    try:
        given = MergeAnswer.model_validate(dict(answer.content))
    except ValidationError:
        return "", "invalid"
    if given.label != group.label:
        return "", "other_label"
    problem = wording.fault(given.instruction, group.label, task.labels, params.max_words)
    return wording.one_line(given.instruction), problem.reason if problem else None
