"""Consolidate by the Teacher, cluster by cluster: one structured call merges the rules of a group into one instruction.

Step 2 of Prompt-Level Distillation (arXiv 2602.21103). A group that can't be merged falls back to its medoid.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from pld import prompts
from pld.distill import structured_requests, text_checks
from pld.distill.consolidate import RuleGroup, Weigh, make_instruction, merge_alike
from pld.distill.extract import answer_schema
from pld.distill.structured_requests import Settled
from pld.distill.text_checks import Fault
from pld.params import TeacherConsolidator
from pld.ports import CONSOLIDATE, OnProgress, Teacher, TeacherRequest
from pld.records import Instruction, Record, Task, content_id

MERGED, MEDOID = "merged", "medoid"
NO_ANSWER = "no answer"
"""In the `origin` of an instruction that the Teacher was to write, but gave no answer."""


class MergeAnswer(Record):
    """The Teacher's answer."""

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
    """One instruction per group, in the order of `groups` (equal texts with the same label become one).

    A group of one rule is used unchanged. With more groups than `max_calls` the largest are merged; the rest of
    `max_calls` is left for repeating refused answers, up to `attempts` times in all. A group that is not merged, or
    whose last answer is refused, yields its medoid, and the instruction's `origin` says why. `on_progress` counts
    groups. Raises TeacherError when the Teacher can't be used at all.
    """
    several = [group for group in groups if len(group.rules) > 1]
    asked = sorted(several, key=lambda group: (-len(group.rules), group.cluster_id, group.label))[: params.max_calls]
    labels = {_key(group, params): group.label for group in asked}
    requests = {request.key: request for request in (merge_request(task, group, params) for group in asked)}
    if on_progress:
        on_progress(len(groups) - len(requests))

    def check(key: str, content: Mapping[str, Any]) -> str | Fault:
        return _text_or_fault(task, labels[key], content, params)

    settled = structured_requests.ask(
        teacher, list(requests.values()), check, attempts, on_progress, max_calls=params.max_calls
    )
    return merge_alike([_instruction(group, params, requests, settled, weigh) for group in groups], weigh)


def merge_request(task: Task, group: RuleGroup, params: TeacherConsolidator) -> TeacherRequest:
    """The question about one group. Its key depends only on the label and the rules shown, so that trials with the same
    cluster ask the same question."""
    shown = [{"rule": rule.text, "doubtful": rule.doubtful} for rule in group.rules[: params.max_rules]]
    return TeacherRequest(
        key=_key(group, params),
        role=CONSOLIDATE,
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
        why = NO_ANSWER if key in requests else f"over max_calls {params.max_calls}"
        return make_instruction(group.rules[0].text, group, f"{MEDOID} (not merged: {why})", weigh)
    merged = settled[key].outcome
    if isinstance(merged, Fault):
        return make_instruction(group.rules[0].text, group, f"{MEDOID} (merge refused: {merged.reason})", weigh)
    source = settled[key].source
    return make_instruction(merged, group, f"{MERGED} ({source})" if source else MERGED, weigh)


def _text_or_fault(task: Task, label: str, content: Mapping[str, Any], params: TeacherConsolidator) -> str | Fault:
    """The merged text, or what speaks against it."""
    try:
        given = MergeAnswer.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        return Fault("invalid", f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    if given.label != label:
        return Fault("other_label", f"labelled {given.label}, the rules lead to {label}")
    problem = text_checks.fault(given.instruction, label, task.labels, params.max_words)
    return problem or text_checks.one_line(given.instruction)
