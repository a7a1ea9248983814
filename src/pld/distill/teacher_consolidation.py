"""Consolidation by the Teacher: one structured call merges the rules of a group into one instruction.

Step 2 of Prompt-Level Distillation (arXiv 2602.21103). What can't be merged falls back to the group's medoid.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from pld import prompts
from pld.distill import structured_requests as asking
from pld.distill import text_checks as wording
from pld.distill.consolidate import RuleGroup, Weigh, make_instruction, merge_alike
from pld.distill.extract import answer_schema
from pld.distill.structured_requests import Settled
from pld.distill.text_checks import Fault
from pld.params import TeacherConsolidator
from pld.ports import OnProgress, Teacher, TeacherRequest
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
    attempts: int,
    on_progress: OnProgress | None = None,
    weigh: Weigh = len,
) -> list[Instruction]:
    """One instruction per group, in the order of `groups` (groups that come to the same text and label are one).

    A group of one rule is taken as it stands. With more groups than `max_calls` the largest are merged; what is left of
    `max_calls` is for refused answers, which are asked for again, `attempts` times in all. A group that is not merged,
    or whose last answer is refused, gives its medoid, and the instruction's `origin` says why.
    `on_progress` counts groups. Raises TeacherError when the Teacher can't be used at all.
    """
    several = [group for group in groups if len(group.rules) > 1]
    asked = sorted(several, key=lambda group: (-len(group.rules), group.cluster_id, group.label))[: params.max_calls]
    labels = {_key(group, params): group.label for group in asked}
    requests = {request.key: request for request in (merge_request(task, group, params) for group in asked)}
    if on_progress:
        on_progress(len(groups) - len(requests))

    def judge(key: str, content: Mapping[str, Any]) -> str | Fault:
        return _judge(task, labels[key], content, params)

    settled = asking.ask(teacher, list(requests.values()), judge, attempts, on_progress, max_calls=params.max_calls)
    return merge_alike([_instruction(group, params, requests, settled, weigh) for group in groups], weigh)


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
    group: RuleGroup,
    params: TeacherConsolidator,
    requests: Mapping[str, TeacherRequest],
    settled: Mapping[str, Settled[str]],
    weigh: Weigh,
) -> Instruction:
    if len(group.rules) == 1:
        return make_instruction(group.rules[0].text, group, MEDOID, weigh)
    key = _key(group, params)
    if key not in settled:
        why = "no answer" if key in requests else f"over max_calls {params.max_calls}"
        return make_instruction(group.rules[0].text, group, f"{MEDOID} (not merged: {why})", weigh)
    merged = settled[key].outcome
    if isinstance(merged, Fault):
        return make_instruction(group.rules[0].text, group, f"{MEDOID} (merge refused: {merged.reason})", weigh)
    return make_instruction(merged, group, MERGED, weigh)


def _judge(task: Task, label: str, content: Mapping[str, Any], params: TeacherConsolidator) -> str | Fault:
    """The merged text, or what speaks against it."""
    try:
        given = MergeAnswer.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        return Fault("invalid", f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    if given.label != label:
        return Fault("other_label", f"labelled {given.label}, the rules lead to {label}")
    problem = wording.fault(given.instruction, label, task.labels, params.max_words)
    return problem or wording.one_line(given.instruction)
