"""Extract one rule per labelled example: the Teacher explains why the gold label is right and abstracts a rule.

Step 1 of Prompt-Level Distillation (arXiv 2602.21103). Rules that fail the text checks are refused.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from pydantic import Field, ValidationError

from pld import prompts
from pld.distill import structured_requests, text_checks
from pld.distill.structured_requests import Settled
from pld.distill.text_checks import Fault, FindPersonalData
from pld.errors import ConfigError, ExtractionError
from pld.params import ExtractionParams
from pld.ports import OnProgress, Teacher, TeacherRequest
from pld.records import Example, Record, Rejection, Rule, Task, content_id, sha256

ROLE = "extract"
_DOUBTFUL = "doubtful:"


class ExtractionAnswer(Record):
    """The Teacher's answer; the order of fields makes it explain before it abstracts."""

    rationale: str = Field(description="Why the gold label is right; begins with `Doubtful:` if it is hard to defend.")
    rule: str = Field(description="One self-contained conditional instruction that names the label it leads to.")
    label: str = Field(description="The label that the rule leads to.")


class DrawSummary(Record):
    """Counts of one draw, where there are several."""

    draw: int
    answered: int
    rules: int
    rejected: int
    doubtful: int


class ExtractionSummary(Record):
    """artifacts/rules/summary.json. The Teacher was asked about `examples`, of which `answered` have an answer in some
    draw; `usage` sums the tokens of all answers. `retries` (repeated questions), `draws` and `not_asked` (training
    examples that were left out by `extraction.examples`) appear only where there are any."""

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
    retries: int = Field(default=0, exclude_if=lambda retries: retries == 0)
    draws: tuple[DrawSummary, ...] = Field(default=(), exclude_if=lambda draws: not draws)
    not_asked: int = Field(default=0, exclude_if=lambda not_asked: not_asked == 0)

    @property
    def answers(self) -> int:
        """Answers that were checked: one per example and draw."""
        return sum(item.answered for item in self.draws) if self.draws else self.answered

    @property
    def calls(self) -> int:
        """All answers that the Teacher gave, repeated questions included."""
        return self.answers + self.retries


def asked_about(task: Task, examples: Sequence[Example], params: ExtractionParams) -> list[Example]:
    """The training `examples` to explain, in their order: all, or `params.examples` of them, balanced by label (labels
    declared first get the remainder, and what one label lacks goes to the others).

    They are drawn by the hash of their ids: a larger number keeps those already drawn, the order of the file doesn't
    matter, and an added example replaces at most one other.
    """
    if params.examples is None or len(examples) <= params.examples:
        return list(examples)
    of_label: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for example in examples:
        of_label[example.label].append((sha256(f"{ROLE}:{example.id}"), example.id))
    in_turn = sorted(
        (turn, task.labels.index(label), identity)
        for label, own in of_label.items()
        for turn, (_, identity) in enumerate(sorted(own))
    )
    drawn = {identity for _, _, identity in in_turn[: params.examples]}
    return [example for example in examples if example.id in drawn]


def extraction_requests(task: Task, examples: Sequence[Example], params: ExtractionParams) -> list[TeacherRequest]:
    """One request per example and draw, in this order. The example is a data block that its text can't close. The key
    is the example's id, followed by `/draw1` and so on from the second draw."""
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
            key=_key(example, draw),
            role=ROLE,
            system=system,
            prompt=prompts.render(
                "extraction_user", example=prompts.data_block("example", example.inputs), label=example.label
            ),
            schema=schema,
            draw=draw,
        )
        for example, draw in product(asked_about(task, examples, params), range(params.draws))
    ]


def answer_schema(answer: type[Record], labels: Sequence[str]) -> dict[str, Any]:
    """The JSON schema of `answer`, with its `label` restricted to `labels`."""
    schema = answer.model_json_schema()
    schema.pop("description", None)  # the class's docstring is for readers of the code
    schema["properties"]["label"]["enum"] = list(labels)
    return schema


def extract(
    task: Task,
    examples: Sequence[Example],
    params: ExtractionParams,
    teacher: Teacher,
    attempts: int,
    on_progress: OnProgress | None = None,
    personal_data: FindPersonalData | None = None,
) -> tuple[list[Rule], list[Rejection], ExtractionSummary]:
    """Ask `teacher` to explain the training `examples` (all, or as many as `params` says), once per draw and with at
    most `attempts` tries; returns rules and rejections in the order of `examples`, then of draws.

    Examples without an answer (a recording covers only some) are in neither list; the summary counts them.
    `on_progress` counts examples × draws. A rule with personal data, as `personal_data` finds it, is refused; such a
    rationale is withheld.
    """
    chosen = asked_about(task, examples, params)
    asked = {_key(example, draw): (example, draw) for example, draw in product(chosen, range(params.draws))}

    def check(key: str, content: Mapping[str, Any]) -> Rule | Fault:
        return _rule_or_fault(task, *asked[key], content, params, teacher.name, personal_data)

    requests = extraction_requests(task, chosen, params)
    settled = structured_requests.ask(teacher, requests, check, attempts, on_progress)
    rules: list[Rule] = []
    rejections: list[Rejection] = []
    for key, (example, draw) in asked.items():
        if key not in settled:
            continue
        outcome = settled[key].outcome
        if isinstance(outcome, Rule):
            rules.append(outcome)
        else:
            detail = outcome.detail + structured_requests.after(settled[key].attempts)
            rejections.append(Rejection(example_id=example.id, reason=outcome.reason, detail=detail, draw=draw))
    summary = _summary(task, chosen, params.draws, settled, rules, rejections, teacher.name)
    return rules, rejections, summary.model_copy(update={"not_asked": len(examples) - len(chosen)})


def check_answers(summary: ExtractionSummary, rejections: Sequence[Rejection], params: ExtractionParams) -> None:
    """Raises ExtractionError when more than `max_rejected_fraction` of the answers were refused or no rule is left, and
    ConfigError when a draw has no answer at all."""
    if not summary.answered:
        raise ExtractionError(
            f"expected answers of {summary.teacher} for {summary.examples:,} training examples, got none "
            f"(conf/teacher/{', extraction.examples' * (summary.not_asked > 0)}); choose a Teacher that answers new "
            "questions, or a recording of this data set"
        )
    if silent := [str(item.draw) for item in summary.draws if not item.answered]:
        raise ConfigError(
            f"expected answers of {summary.teacher} in {len(summary.draws)} draws, got none for draw "
            f"{', '.join(silent)} (extraction.draws); a recording holds only the draws that it was made of: choose "
            "a Teacher that answers new questions (conf/teacher/), or set extraction.draws=1"
        )
    share = summary.rejected / summary.answers
    if summary.rules and share <= params.max_rejected_fraction:
        return
    counts = ", ".join(f"{reason} {count}" for reason, count in summary.rejected_by_reason.items())
    samples = "; ".join(f"{item.example_id}: {item.reason} ({item.detail})" for item in rejections[:3])
    raise ExtractionError(
        f"extraction: {summary.rejected:,} of {summary.answers:,} answers of {summary.teacher} were refused "
        f"({share:.0%}, extraction.max_rejected_fraction is {params.max_rejected_fraction:.0%}): {counts}; "
        f"for example {samples}; see artifacts/rules/rejected.jsonl"
    )


def coverage(summary: ExtractionSummary) -> str:
    """One line: how many training examples the Teacher was asked about, and how many of them have an answer."""
    kind = "a recorded answer" if summary.recorded else "an answer"
    line = f"{summary.answered:,} of {summary.examples:,} training examples have {kind}"
    if summary.not_asked:
        line = (
            f"asked about {summary.examples:,} of {summary.examples + summary.not_asked:,} training examples "
            f"(extraction.examples), of which {summary.answered:,} {'has' if summary.answered == 1 else 'have'} {kind}"
        )
    left = summary.examples - summary.answered
    return f"{line}; the other {left:,} {'is' if left == 1 else 'are'} left out" if left else line


def _key(example: Example, draw: int) -> str:
    return f"{example.id}/draw{draw}" if draw else example.id


def _rule_or_fault(
    task: Task,
    example: Example,
    draw: int,
    content: Mapping[str, Any],
    params: ExtractionParams,
    teacher: str,
    personal_data: FindPersonalData | None,
) -> Rule | Fault:
    try:
        given = ExtractionAnswer.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        return Fault("invalid", f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    if given.label != example.label:
        return Fault("other_label", f"labelled {given.label}, the example is {example.label}")
    problem = text_checks.personal_data_fault(given.rule, personal_data)
    if problem is None:
        problem = text_checks.fault(given.rule, example.label, task.labels, params.max_words)
    if problem is None:
        problem = _copied(given.rule, example.inputs, params.max_copied_words)
    if problem is not None:
        return problem
    text = text_checks.one_line(given.rule)
    rationale = text_checks.one_line(given.rationale)
    withheld = text_checks.personal_data_fault(rationale, personal_data)
    identity = {"example_id": example.id, "label": example.label, "text": text}
    return Rule(
        id=content_id(identity | {"draw": draw} if draw else identity),
        example_id=example.id,
        label=example.label,
        # only the rationale is withheld: it speaks of its example, while the rule may be fine
        rationale=f"(withheld: {withheld.detail})" if withheld else rationale,
        text=text,
        teacher=teacher,
        doubtful=rationale.casefold().startswith(_DOUBTFUL),
        draw=draw,
    )


def _copied(text: str, inputs: Mapping[str, str], max_copied_words: int) -> Fault | None:
    for name, value in inputs.items():
        if run := text_checks.copied_words(text, value, max_copied_words + 1):
            # not the copied words: the record may be shared where the data may not
            return Fault("copied", f"repeats {len(run.split())} or more consecutive words of {name}")
    return None


def _summary(
    task: Task,
    examples: Sequence[Example],
    draws: int,
    settled: Mapping[str, Settled[Rule]],
    rules: Sequence[Rule],
    rejections: Sequence[Rejection],
    teacher: str,
) -> ExtractionSummary:
    per_label = Counter(rule.label for rule in rules)
    return ExtractionSummary(
        teacher=teacher,
        examples=len(examples),
        answered=len({rule.example_id for rule in rules} | {item.example_id for item in rejections}),
        recorded=any(item.recorded for item in settled.values()),
        rules=len(rules),
        rejected=len(rejections),
        doubtful=sum(rule.doubtful for rule in rules),
        rules_per_label={label: per_label[label] for label in task.labels},
        rejected_by_reason=dict(sorted(Counter(item.reason for item in rejections).items())),
        usage=structured_requests.total(settled),
        retries=sum(item.attempts - 1 for item in settled.values()),
        draws=tuple(_of_draw(draw, rules, rejections) for draw in range(draws)) if draws > 1 else (),
    )


def _of_draw(draw: int, rules: Sequence[Rule], rejections: Sequence[Rejection]) -> DrawSummary:
    own = [rule for rule in rules if rule.draw == draw]
    refused = sum(item.draw == draw for item in rejections)
    return DrawSummary(
        draw=draw,
        answered=len(own) + refused,
        rules=len(own),
        rejected=refused,
        doubtful=sum(rule.doubtful for rule in own),
    )
