"""From labelled examples to rules: ask the Teacher why each gold label is right, keep the rules that hold up.

Step 1 of Prompt-Level Distillation (arXiv 2602.21103): the Teacher is shown the gold label and abstracts one rule.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from pld import prompts
from pld.errors import ExtractionError
from pld.method import wording
from pld.method.wording import Fault
from pld.params import ExtractionParams
from pld.ports import OnProgress, Teacher, TeacherAnswer, TeacherRequest
from pld.records import Example, Record, Rejection, Rule, Task, content_id

ROLE = "extract"
_DOUBTFUL = "doubtful:"


class ExtractionAnswer(Record):
    """What the Teacher is asked for; the order of fields lets it explain before it abstracts."""

    rationale: str = Field(description="Why the gold label is right; begins with `Doubtful:` if it is hard to defend.")
    rule: str = Field(description="One self-contained conditional instruction that names the label it leads to.")
    label: str = Field(description="The label that the rule leads to.")


class ExtractionSummary(Record):
    """artifacts/rules/summary.json. `answered` of `examples` have an answer; `usage` sums what they cost in tokens."""

    teacher: str
    examples: int
    answered: int
    recorded: bool
    rules: int
    rejected: int
    doubtful: int
    rules_per_label: dict[str, int]
    rejected_by_reason: dict[str, int]
    usage: dict[str, int]


def extraction_requests(task: Task, examples: Sequence[Example], params: ExtractionParams) -> list[TeacherRequest]:
    """One request per example, its id as key, the example as data in a block that its text can't close."""
    schema = answer_schema(ExtractionAnswer, task.labels)
    system = prompts.render(
        "extraction_system",
        base_instruction=task.base_instruction,
        labels=task.labels,
        max_words=params.max_words,
        max_copied_words=params.max_copied_words,
    )
    return [
        TeacherRequest(
            key=example.id,
            role=ROLE,
            system=system,
            prompt=prompts.render(
                "extraction_user", example=prompts.data_block("example", example.inputs), label=example.label
            ),
            schema=schema,
        )
        for example in examples
    ]


def answer_schema(answer: type[Record], labels: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of an answer whose `label` is one of `labels`."""
    schema = answer.model_json_schema()
    schema.pop("description", None)  # the class's docstring is for readers of the code
    schema["properties"]["label"]["enum"] = list(labels)
    return schema


def extract(
    task: Task,
    examples: Sequence[Example],
    params: ExtractionParams,
    teacher: Teacher,
    on_progress: OnProgress | None = None,
) -> tuple[list[Rule], list[Rejection], ExtractionSummary]:
    """Ask `teacher` about every example; rules and rejections in the order of `examples`.

    Examples without an answer (a recording covers only some) are in neither list; the summary counts them.
    """
    answers: dict[str, TeacherAnswer] = {}
    for answer in teacher.ask(extraction_requests(task, examples, params)):
        answers[answer.key] = answer
        if on_progress:
            on_progress(1)
    rules: list[Rule] = []
    rejections: list[Rejection] = []
    for example in examples:
        if example.id not in answers:
            continue
        outcome = _judge(task, example, answers[example.id], params, teacher.name)
        if isinstance(outcome, Rule):
            rules.append(outcome)
        else:
            rejections.append(Rejection(example_id=example.id, reason=outcome.reason, detail=outcome.detail))
    return rules, rejections, _summary(task, examples, answers, rules, rejections, teacher.name)


def check_rejections(summary: ExtractionSummary, rejections: Sequence[Rejection], params: ExtractionParams) -> None:
    """Raises ExtractionError when more than `max_rejected_fraction` of the answers were refused, or no rule is left."""
    if not summary.answered:
        raise ExtractionError(
            f"extraction: wanted answers of {summary.teacher} for {summary.examples:,} training examples, found none; "
            "is it a recording of another data set? (conf/teacher/)"
        )
    share = summary.rejected / summary.answered
    if summary.rules and share <= params.max_rejected_fraction:
        return
    counts = ", ".join(f"{reason} {count}" for reason, count in summary.rejected_by_reason.items())
    samples = "; ".join(f"{item.example_id}: {item.reason} ({item.detail})" for item in rejections[:3])
    raise ExtractionError(
        f"extraction: {summary.rejected:,} of {summary.answered:,} answers of {summary.teacher} were refused "
        f"({share:.0%}, extraction.max_rejected_fraction is {params.max_rejected_fraction:.0%}): {counts}; "
        f"for example {samples}; see artifacts/rules/rejected.jsonl"
    )


def coverage(summary: ExtractionSummary) -> str:
    """One line for the user: how many training examples have an answer, and what became of the rest."""
    kind = "a recorded answer" if summary.recorded else "an answer"
    line = f"{summary.answered:,} of {summary.examples:,} training examples have {kind}"
    left = summary.examples - summary.answered
    return f"{line}; the other {left:,} {'is' if left == 1 else 'are'} left out" if left else line


def _judge(task: Task, example: Example, answer: TeacherAnswer, params: ExtractionParams, teacher: str) -> Rule | Fault:
    if answer.content is None:
        reason, _, detail = (answer.error or "invalid: no content").partition(":")
        return Fault(reason.strip(), detail.strip())
    try:
        given = ExtractionAnswer.model_validate(dict(answer.content))
    except ValidationError as error:
        first = error.errors()[0]
        return Fault("invalid", f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    if given.label != example.label:
        return Fault("other_label", f"labelled {given.label}, the example is {example.label}")
    problem = wording.fault(given.rule, example.label, task.labels, params.max_words)
    if problem is None:
        problem = _copied(given.rule, example.inputs, params.max_copied_words)
    if problem is not None:
        return problem
    text = wording.one_line(given.rule)
    rationale = wording.one_line(given.rationale)
    return Rule(
        id=content_id({"example_id": example.id, "label": example.label, "text": text}),
        example_id=example.id,
        label=example.label,
        rationale=rationale,
        text=text,
        teacher=teacher,
        doubtful=rationale.casefold().startswith(_DOUBTFUL),
    )


def _copied(text: str, inputs: Mapping[str, str], max_copied_words: int) -> Fault | None:
    for name, value in inputs.items():
        if run := wording.copied_words(text, value, max_copied_words + 1):
            # the words themselves stay out of the record: it may be shared where the data may not
            return Fault("copied", f"repeats {len(run.split())} or more consecutive words of {name}")
    return None


def _summary(
    task: Task,
    examples: Sequence[Example],
    answers: Mapping[str, TeacherAnswer],
    rules: Sequence[Rule],
    rejections: Sequence[Rejection],
    teacher: str,
) -> ExtractionSummary:
    per_label = Counter(rule.label for rule in rules)
    usage: Counter[str] = Counter()
    for answer in answers.values():
        usage.update(dict(answer.usage))
    return ExtractionSummary(
        teacher=teacher,
        examples=len(examples),
        answered=len(answers),
        recorded=any(answer.recorded for answer in answers.values()),
        rules=len(rules),
        rejected=len(rejections),
        doubtful=sum(rule.doubtful for rule in rules),
        rules_per_label={label: per_label[label] for label in task.labels},
        rejected_by_reason=dict(sorted(Counter(item.reason for item in rejections).items())),
        usage=dict(sorted(usage.items())),
    )
