"""Proposes Edits by the Teacher: one structured call per round, which sees instructions, failures and successes.

Step 3 of Prompt-Level Distillation (arXiv 2602.21103), with five kinds of Edits instead of one, each tried alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, ValidationError

from pld import prompts
from pld.distill import structured_requests
from pld.distill.text_checks import Fault, FindPersonalData, personal_data_fault
from pld.params import TeacherResolver
from pld.ports import Teacher, TeacherRequest
from pld.records import Example, Record, content_id
from pld.resolve.blame import most_blamed, rise_of
from pld.resolve.proposer import Answered, Evidence, Proposal, Proposals
from pld.resolve.records import Add, Edit

ROLE = "resolve"
_OUTCOMES = {"refused": "refused as it stands", "dropped": "no better", "rejected": "no better"}
_LEAST_RISE = 0.01  # nats: a smaller rise is bfloat16 noise and blames no instruction


class ResolveAnswer(Record):
    """What the Teacher is asked for."""

    edits: tuple[Edit, ...] = Field(description="The most useful first; none if nothing is worth a try.")


class TeacherProposer:
    """Asks `teacher` once per round, up to `attempts` times if the answer can't be parsed; takes the first `max_edits`
    of its Edits, unchecked.

    Stops asking once the answers of all rounds used `max_tokens`. Stored answers count too, so that a restarted run
    takes the same course and pays nothing twice.
    """

    name = "teacher"

    def __init__(
        self,
        teacher: Teacher,
        params: TeacherResolver,
        attempts: int,
        personal_data: FindPersonalData | None = None,
    ) -> None:
        self._teacher = teacher
        self._personal_data = personal_data
        self._params = params
        self._attempts = attempts
        self._tokens = 0

    def propose(self, evidence: Evidence) -> Proposals:
        """An added instruction is credited to the failures with its gold label and their rules; any other Edit to the
        failures of the cells that its instruction is blamed for, or else those answered with its label.

        Raises TeacherError if the Teacher can't be asked.
        """
        limit = self._params.max_tokens
        if limit is not None and self._tokens >= limit:
            return Proposals((), f"max_tokens: {self._tokens:,} of resolver.max_tokens {limit:,} are used")
        request = resolve_request(evidence, self._params)
        left = None if limit is None else limit - self._tokens
        settled = structured_requests.ask(self._teacher, [request], _parse_answer, self._attempts, max_tokens=left).get(
            request.key
        )
        if settled is None:
            return Proposals((), f"no_answer: {self._teacher.name} left the request out", calls=1)
        self._tokens += structured_requests.tokens_of(settled.usage)
        found = settled.outcome
        if isinstance(found, Fault):
            why = f"{found.reason}: {found.detail}{structured_requests.after(settled.attempts)}"
            return Proposals((), why, settled.attempts, settled.usage)
        proposals = tuple(_proposal(self._fit(edit), evidence) for edit in found[: self._params.max_edits])
        none = None if proposals else "no_edits: the Teacher found nothing worth a try"
        return Proposals(proposals, none, settled.attempts, settled.usage)

    def _fit(self, edit: Edit) -> Edit:
        """`edit` with a reason that may be stored; its text is checked later like any other."""
        withheld = personal_data_fault(edit.reason, self._personal_data)
        return edit.model_copy(update={"reason": f"(withheld: {withheld.detail})"}) if withheld else edit


def resolve_request(evidence: Evidence, params: TeacherResolver) -> TeacherRequest:
    """The request of one round. Contains no measured figure: repeated after a kill, it must match byte for byte, or the
    answer is paid for twice."""
    shown = _shown(evidence)
    return TeacherRequest(
        key=content_id(shown),
        role=ROLE,
        system=prompts.render(
            "resolve_system",
            base_instruction=evidence.task.base_instruction,
            labels=evidence.task.labels,
            max_edits=params.max_edits,
            max_words=params.max_words,
        ),
        prompt=prompts.render("resolve_user", **{kind: prompts.data_block(kind, rows) for kind, rows in shown.items()}),
        schema=answer_schema(),
    )


def answer_schema() -> dict[str, Any]:
    """The JSON schema of a ResolveAnswer. Ids and labels are plain strings on purpose: an unknown label must refuse one
    Edit, not the whole answer."""
    schema = ResolveAnswer.model_json_schema()
    del schema["description"]  # the classes' docstrings are for readers of the code
    del schema["properties"]["edits"]["items"]["discriminator"]  # OpenAPI's; each `op` is a constant already
    for variant in schema["$defs"].values():
        del variant["description"], variant["properties"]["op"]["default"]
        variant["required"] = list(variant["properties"])  # `op` too, which tells them apart
    return schema


def _shown(evidence: Evidence) -> dict[str, list[dict[str, Any]]]:
    rules = {rule.example_id: rule for rule in reversed(evidence.rules)}
    blamed = _blamed(evidence)

    def failure(answered: Answered) -> dict[str, Any]:
        row: dict[str, Any] = _example(answered.example)
        row |= {"gold": answered.example.label, "answered": answered.predicted, "blamed": blamed[answered.cell]}
        if rule := rules.get(answered.example.id):
            row |= {"why": rule.rationale, "rule": rule.text}
        return row

    return {
        "instructions": [
            {"position": at, "id": instruction.id, "label": instruction.label, "text": instruction.text}
            for at, instruction in enumerate(evidence.instructions)
        ],
        "failures": [failure(answered) for answered in evidence.failures],
        "successes": [
            {**_example(answered.example), "gold": answered.example.label} for answered in evidence.successes
        ],
        "earlier": [
            {**verdict.edit.model_dump(mode="json", exclude={"reason"}), "outcome": _OUTCOMES[verdict.outcome]}
            for verdict in evidence.earlier
        ],
    }


def _example(example: Example) -> dict[str, Any]:
    return {"input": dict(example.inputs)}


def _blamed(evidence: Evidence) -> Mapping[str, str | None]:
    """Confusion cell of the failures → id of its most blamed instruction, if any."""
    found: dict[str, str | None] = {}
    by_id = {blame.instruction_id: blame for blame in evidence.blames}
    for cell in dict.fromkeys(failure.cell for failure in evidence.failures):
        first = next(iter(most_blamed(evidence.blames, cell)), None)
        found[cell] = first if first is not None and rise_of(by_id[first], cell) >= _LEAST_RISE else None
    return found


def _parse_answer(_: str, content: Mapping[str, Any]) -> Sequence[Edit] | Fault:
    """The unchecked Edits, or why the answer can't be parsed."""
    try:
        return ResolveAnswer.model_validate(dict(content)).edits
    except ValidationError as error:
        first = error.errors()[0]
        return Fault("invalid", f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")


def _proposal(edit: Edit, evidence: Evidence) -> Proposal:
    if isinstance(edit, Add):
        answers = [failure.example.id for failure in evidence.failures if failure.example.label == edit.label]
        behind = set(answers)
        rule_ids = tuple(rule.id for rule in evidence.rules if rule.example_id in behind)
        return Proposal(edit, rule_ids, tuple(answers))
    blamed = _blamed(evidence)
    own = [failure.example.id for failure in evidence.failures if blamed[failure.cell] == edit.id]
    if not own:
        labels = {instruction.label for instruction in evidence.instructions if instruction.id == edit.id}
        own = [failure.example.id for failure in evidence.failures if failure.predicted in labels]
    return Proposal(edit, example_ids=tuple(own))
