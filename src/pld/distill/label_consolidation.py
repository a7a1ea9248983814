"""Consolidate by the Teacher with a whole label in view: one structured question per label, with all of its rules, the
examples behind them, and what the other labels' rules claim.

What is asked depends on rules and texts alone, never on vectors or clusters, so that a recorded answer is found on
every machine. Only a label whose rules don't fit into a question is merged per cluster first (map, reduce).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from pld import prompts
from pld.distill import structured_requests, text_checks
from pld.distill.consolidate import RuleGroup, Weigh, make_instruction, merge_alike, nearest_first
from pld.distill.render import render_input
from pld.distill.structured_requests import Settled
from pld.distill.teacher_consolidation import MEDOID, NO_ANSWER, merge
from pld.distill.text_checks import Fault, FindPersonalData
from pld.params import TeacherConsolidator
from pld.ports import CONSOLIDATE, Teacher, TeacherRequest, Vectors
from pld.records import Example, Instruction, Record, Rule, Task, content_id, sha256

CONSOLIDATED = "consolidated"
_MARKUP = 40  # characters of JSON around a rule

T = TypeVar("T")


class LabelInstruction(Record):
    """One instruction of an answer."""

    rules: tuple[str, ...] = Field(description="The ids of all rules that it rests on, the most typical first.")
    text: str = Field(description="One self-contained conditional instruction that names its label.")


class LabelAnswer(Record):
    """The Teacher's answer."""

    instructions: tuple[LabelInstruction, ...] = Field(description="The one that decides most examples first.")


@dataclass(frozen=True)
class Source:
    """What an instruction can rest on: a rule with its rendered example, or several rules merged (without one)."""

    text: str
    rule_ids: tuple[str, ...]
    doubtful: bool = False
    example: str = ""

    @property
    def characters(self) -> int:
        return len(self.text) + _MARKUP


@dataclass(frozen=True)
class Checks:
    """What every text of an answer is held against."""

    task: Task
    max_words: int
    max_copied_words: int
    personal_data: FindPersonalData | None = None

    def fault(self, text: str, label: str, examples: Sequence[str]) -> Fault | None:
        """The first reason to refuse `text`, or None; `examples`: those that it must not copy."""
        problem = text_checks.personal_data_fault(text, self.personal_data)
        problem = problem or text_checks.fault(text, label, self.task.labels, self.max_words)
        copies = text_checks.copy_test(text, self.max_copied_words + 1)
        if problem is None and any(copies(example) for example in examples):
            problem = Fault("copied", f"repeats {self.max_copied_words + 1} or more consecutive words of an example")
        return problem


def consolidate(
    checks: Checks,
    rules: Sequence[Rule],
    vectors: Vectors,
    groups: Sequence[RuleGroup],
    train: Mapping[str, Example],
    params: TeacherConsolidator,
    teacher: Teacher,
    attempts: int,
    weigh: Weigh = len,
) -> list[Instruction]:
    """Up to `params.instructions` per label, in the order of labels; each rests on the rules that the Teacher cites,
    the most typical first.

    `vectors` [n, d] belong to `rules` [n]. Bad instructions of an answer are asked for again, up to `attempts` times;
    then the good ones stay. A label with none falls back to the medoids of its `groups` (per cluster), and `origin`
    says why. Raises TeacherError when the Teacher can't be used at all.
    """
    task = checks.task
    sources = _sources(task, rules, groups, train, params, teacher, attempts, weigh)
    asked = {label: own for label, own in sources.items() if len(own) > 1}
    requests = {label: label_request(checks, label, own, rules, params) for label, own in asked.items()}
    labels = {request.key: label for label, request in requests.items()}
    kept: dict[str, list[Instruction]] = {}

    def check(key: str, content: Mapping[str, Any]) -> list[Instruction] | Fault:
        label = labels[key]
        found, problem = _read(checks, label, asked[label], content, params.instructions, weigh)
        if problem is None or len(found) >= len(kept.get(key, ())):
            kept[key] = found
        return problem or found

    settled = structured_requests.ask(teacher, list(requests.values()), check, attempts)
    instructions: list[Instruction] = []
    for label, own in sources.items():
        if label not in requests:
            instructions += [_instruction(own[0].text, label, own[0].rule_ids, MEDOID, weigh)]
            continue
        key = requests[label].key
        if found := kept.get(key):
            origin = origin_of(CONSOLIDATED, settled[key])
            instructions += [item.model_copy(update={"origin": origin}) for item in found]
        else:
            instructions += _medoids(label, rules, vectors, groups, params, _why(settled.get(key)), weigh)
    return merge_alike(instructions, weigh)


def label_request(
    checks: Checks, label: str, own: Sequence[Source], rules: Sequence[Rule], params: TeacherConsolidator
) -> TeacherRequest:
    """The question about `label`; what its questions share comes first, so that a provider can cache it."""
    task, limit = checks.task, params.max_characters
    used = sum(source.characters for source in own)
    pictured: set[int] = set()
    for at in sorted(range(len(own)), key=lambda at: sha256(f"{CONSOLIDATE}:{own[at].rule_ids[0]}")):
        if used + len(own[at].example) <= limit * 3 // 4:  # the rest is for the other labels
            used += len(own[at].example)
            pictured.add(at)
    shown = [
        {"id": alias, "rule": source.text}
        | ({"example": source.example} if source.example and at in pictured else {})
        | ({"doubtful": True} if source.doubtful else {})
        for at, (alias, source) in enumerate(_aliases(own).items())
    ]
    others = _others(task, label, rules, params.max_rules - len(own), limit - used)
    return TeacherRequest(
        key=content_id([label, params.instructions, *(source.rule_ids for source in own)]),
        role=CONSOLIDATE,
        system=prompts.render(
            "consolidate_system",
            base_instruction=task.base_instruction,
            labels=task.labels,
            max_words=checks.max_words,
            max_copied_words=checks.max_copied_words,
        ),
        prompt=prompts.render(
            "consolidate_user",
            rules=prompts.data_block("rules", shown),
            other_labels=prompts.data_block("other_labels", others),
            label=label,
            instructions=params.instructions,
        ),
        schema=list_schema(LabelAnswer),
    )


def list_schema(answer: type[Record], labels: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON schema of an answer that is a list, without the docstrings; `labels` restricts an item's `label`.
    References are plain strings or numbers on purpose: a wrong one must refuse one item, not the whole answer."""
    schema = answer.model_json_schema()
    schema.pop("description", None)
    for item in schema["$defs"].values():
        item.pop("description", None)
        if labels:
            item["properties"]["label"]["enum"] = list(labels)
    return schema


def sifted(items: Sequence[T], name: str, problem_of: Callable[[T], Fault | None]) -> tuple[list[T], Fault | None]:
    """The good ones of an answer's `items`, and what is wrong with the others (None: nothing)."""
    problems = [(number, problem_of(item)) for number, item in enumerate(items, 1)]
    good = [items[number - 1] for number, problem in problems if problem is None]
    bad = [(number, problem) for number, problem in problems if problem is not None]
    if not items:
        return good, Fault("empty", f"no {name}")
    if not bad:
        return good, None
    detail = "; ".join(f"{name} {number}: {problem.reason}: {problem.detail}" for number, problem in bad)
    return good, Fault(bad[0][1].reason, detail)


def invalid(error: ValidationError) -> Fault:
    """The fault of an answer that is not of its kind."""
    first = error.errors()[0]
    return Fault("invalid", f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")


def origin_of(how: str, settled: Settled[Any]) -> str:
    """`how` an instruction was made, with whose recorded answer it is and what was refused beside it."""
    notes = [settled.source] if settled.source else []
    if isinstance(settled.outcome, Fault):
        notes.append(f"others refused: {settled.outcome.reason}")
    return f"{how} ({'; '.join(notes)})" if notes else how


def _sources(
    task: Task,
    rules: Sequence[Rule],
    groups: Sequence[RuleGroup],
    train: Mapping[str, Example],
    params: TeacherConsolidator,
    teacher: Teacher,
    attempts: int,
    weigh: Weigh,
) -> dict[str, list[Source]]:
    """By label, in an order that depends on ids alone. Where a label's rules don't fit into a question, they are merged
    per cluster; what still doesn't fit is left out, the least supported first."""
    sources = {label: [_source(task, rule, train) for rule in _of(label, rules)] for label in task.labels}
    large = {label for label, own in sources.items() if len(_fitting(own, params)) < len(own)}
    merged = merge(task, [group for group in groups if group.label in large], params, teacher, attempts, weigh=weigh)
    for label in large:
        own = sorted((item for item in merged if item.label == label), key=lambda item: (-item.support, item.id))
        # no cluster gave the label its share: as many of its rules as fit
        fitting = _fitting([Source(item.text, item.rule_ids) for item in own], params) or _fitting(
            sources[label], params
        )
        sources[label] = sorted(fitting, key=lambda source: source.rule_ids)
    return {label: own for label, own in sources.items() if own}


def _source(task: Task, rule: Rule, train: Mapping[str, Example]) -> Source:
    return Source(rule.text, (rule.id,), rule.doubtful, render_input(task, train[rule.example_id].inputs))


def _of(label: str, rules: Sequence[Rule]) -> list[Rule]:
    return sorted((rule for rule in rules if rule.label == label), key=lambda rule: rule.id)


def _fitting(own: Sequence[Source], params: TeacherConsolidator) -> list[Source]:
    """The first of `own` that fit into half of a question."""
    fitting, used = list[Source](), 0
    for source in own[: params.max_rules]:
        used += source.characters
        if used > params.max_characters // 2:
            break
        fitting.append(source)
    return fitting


def _aliases(own: Sequence[Source]) -> dict[str, Source]:
    """Short names, by which an answer cites rules."""
    return {f"r{number:03}": source for number, source in enumerate(own, 1)}


def _others(task: Task, label: str, rules: Sequence[Rule], most: int, characters: int) -> dict[str, list[str]]:
    """By label, the texts of its rules: all, or as many as fit, balanced over labels and drawn by the hash of ids."""
    in_turn = sorted(
        (turn, place, rule.id, rule.text)
        for place, other in enumerate(task.labels)
        if other != label
        for turn, rule in enumerate(sorted(_of(other, rules), key=lambda rule: sha256(f"{CONSOLIDATE}:{rule.id}")))
    )
    drawn: list[tuple[int, str, str]] = []
    for _, place, identity, text in in_turn[: max(most, 0)]:
        characters -= len(text) + _MARKUP
        if characters < 0:
            break
        drawn.append((place, identity, text))
    found: dict[str, list[str]] = {other: [] for other in task.labels if other != label}
    for place, _, text in sorted(drawn):
        found[task.labels[place]].append(text)
    return found


def _read(
    checks: Checks, label: str, own: Sequence[Source], content: Mapping[str, Any], most: int, weigh: Weigh
) -> tuple[list[Instruction], Fault | None]:
    """The good instructions of an answer, and what is wrong with the others."""
    try:
        given = LabelAnswer.model_validate(dict(content)).instructions
    except ValidationError as error:
        return [], invalid(error)
    aliases, examples = _aliases(own), [source.example for source in own]

    def problem_of(item: LabelInstruction) -> Fault | None:
        if unknown := [alias for alias in item.rules if alias not in aliases]:
            return Fault("unknown_rule", f"cites {unknown[0][:20]!r}, which is none of the rules of {label}")
        if not item.rules:
            return Fault("no_rule", "cites no rule")
        return checks.fault(item.text, label, examples)

    good, problem = sifted(given, "instruction", problem_of)
    if problem is None and len(given) > most:
        problem = Fault("too_many", f"{len(given)} instructions, more than {most}")
    found = []
    for item in good[:most]:
        rule_ids = dict.fromkeys(rule_id for alias in item.rules for rule_id in aliases[alias].rule_ids)
        found.append(_instruction(text_checks.one_line(item.text), label, tuple(rule_ids), CONSOLIDATED, weigh))
    return found, problem


def _instruction(text: str, label: str, rule_ids: tuple[str, ...], origin: str, weigh: Weigh) -> Instruction:
    identity = content_id({"label": label, "text": text}, 12)
    return Instruction(id=identity, text=text, label=label, rule_ids=rule_ids, support=weigh(rule_ids), origin=origin)


def _why(settled: Settled[Any] | None) -> str:
    if settled is None:
        return f"not consolidated: {NO_ANSWER}"
    assert isinstance(settled.outcome, Fault)
    return f"consolidation refused: {settled.outcome.reason}"


def _medoids(
    label: str,
    rules: Sequence[Rule],
    vectors: Vectors,
    groups: Sequence[RuleGroup],
    params: TeacherConsolidator,
    why: str,
    weigh: Weigh,
) -> list[Instruction]:
    """Those of the label's largest groups; of all its rules where no cluster has a group of it."""
    own = sorted((group for group in groups if group.label == label), key=lambda group: -len(group.rules))
    if not own:
        members = [at for at, rule in enumerate(rules) if rule.label == label]
        own = [RuleGroup(-1, label, nearest_first(members, rules, vectors, weigh))]
    origin = f"{MEDOID} ({why})"
    return [make_instruction(group.rules[0].text, group, origin, weigh) for group in own[: params.instructions]]
