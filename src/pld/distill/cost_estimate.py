"""What the Teacher's calls will cost, before any is made: calls, tokens and dollars, against the budget.

Exact for `extract`, whose requests are known and looked up in the answer store; bounds from the settings for later
stages, whose requests depend on answers that are not there yet.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pld import prompts
from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore
from pld.adapters.teachers.paid_teacher import LOOKED_UP_AT_ONCE, PaidTeacher
from pld.adapters.teachers.recorded import RecordedTeacher
from pld.artifacts import read_jsonl
from pld.config.assets import cache_folder
from pld.distill import extract, teacher_consolidation
from pld.distill.render import render_input
from pld.errors import ArtifactError, TeacherError
from pld.params import Config, TeacherConsolidator, TeacherResolver
from pld.ports import ONE_AT_A_TIME, Teacher, TeacherRequest
from pld.pricing import BATCHES, dollars, millions, price_of, usd_of
from pld.records import TEACHER_STAGES, Example, Record, canonical_json

CHARACTERS_PER_TOKEN = 3.5
"""Assumed where the provider does not count: a little under that of English prose, so that it errs upwards."""
ASSUMED_OUTPUT = {"extract": 500, "consolidate": 400, "resolve": 3000, "optimise": 1500}
"""Tokens of an answer with some thinking, until the store has answers of the model in the role."""
RECORDED = "recorded"
"""The way of a Teacher that plays back recorded answers."""
_SAMPLE = 20  # requests that the provider counts
_WORD = 6.5  # characters of an English word with its space
_INSTRUCTIONS = 20_000  # characters of a long prompt, which `resolve` and GEPA repeat
_GEPA_EXAMPLES = 3  # that a question of GEPA shows


class StageEstimate(Record):
    """Tokens and dollars are of the calls `to_ask`; `usd` by way, None where the price is unknown; `at_most`: `calls`
    is a bound."""

    stage: str
    role: str
    model: str
    calls: int
    at_most: bool
    stored: int
    to_ask: int
    input_tokens: int
    output_tokens: int
    usd: dict[str, float | None]
    basis: str


class Estimate(Record):
    """`way` is the configured one; `spent` is what the task cost so far, calls in flight and lost ones included."""

    task: str
    teacher: str
    way: str
    prices_as_of: date
    prices_source: str
    budget_usd: float | None
    budget_calls: int | None
    spent_usd: float
    spent_calls: int
    stages: tuple[StageEstimate, ...]

    @property
    def recorded(self) -> bool:
        """Recorded answers are played back, which costs nothing."""
        return self.way == RECORDED

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways to ask the provider; none for recorded answers."""
        return () if self.recorded else ("messages", BATCHES) if self.way in ("messages", BATCHES) else (self.way,)

    def total(self, way: str) -> float | None:
        """Dollars of all stages; None where a price is unknown."""
        parts = [stage.usd[way] for stage in self.stages]
        return None if None in parts else sum(part for part in parts if part is not None)


@dataclass(frozen=True)
class _Calls:
    """What a stage asks in one role; `characters`: of a request."""

    stage: str
    role: str
    count: int
    characters: float
    basis: str
    stored: int = 0
    requests: Sequence[TeacherRequest] = ()  # those to ask, where they are known


def estimate(
    config: Config,
    teacher: Teacher,
    folder: Path = Path("artifacts"),
    stages: Sequence[str] = TEACHER_STAGES,
    *,
    count_tokens: bool = True,
) -> Estimate:
    """What each of `stages` will ask `teacher` (that of `config`), by the files in `folder`.

    `count_tokens`: have the provider count the tokens of a few requests, free of charge. Asks nothing. Raises
    ArtifactError without a train split, and TeacherError where the answer store or a recording can't be read.
    """
    store = AnswerStore(cache_folder() / FILE_NAME)
    spent = store.spent(config.task.name)
    way = teacher.way_of(extract.ROLE) if isinstance(teacher, PaidTeacher) else RECORDED
    empty = Estimate(
        task=config.task.name,
        teacher=teacher.name,
        way=way,
        prices_as_of=config.prices.as_of,
        prices_source=config.prices.source,
        budget_usd=config.budget.usd,
        budget_calls=config.budget.calls,
        spent_usd=spent.all_usd,
        spent_calls=spent.all_calls,
        stages=(),
    )
    calls = [one for one in _calls(config, teacher, store, _train(config, folder)) if one.stage in stages and one.count]
    found = tuple(_stage(one, config, teacher, store, empty.ways, count_tokens=count_tokens) for one in calls)
    return empty.model_copy(update={"stages": found})


def _calls(config: Config, teacher: Teacher, store: AnswerStore, train: Sequence[Example]) -> Iterator[_Calls]:
    task, draws = config.task, config.extraction.draws
    asked = extract.asked_about(task, train, config.extraction)
    requests = extract.extraction_requests(task, asked, config.extraction)
    left = _without_answer(teacher, store, requests)
    of = f" of {len(train):,}" if len(asked) < len(train) else ""
    size = sum(map(_characters, left)) / max(len(left), 1)
    basis = f"{len(asked):,}{of} training examples{f' x {draws} draws' * (draws > 1)}"
    total = len(requests)
    yield _Calls("extract", extract.ROLE, total, size, basis, total - len(left), left)

    inputs = sum(len(render_input(task, example.inputs)) for example in train) / max(len(train), 1)
    if isinstance(config.consolidator, TeacherConsolidator):
        merge = config.consolidator
        groups, clusterings = min(merge.max_calls, max(len(requests) // 2, 1)), _clusterings(config)
        rules = min(len(requests) / groups, merge.max_rules)
        size = rules * config.extraction.max_words * _WORD + len(
            prompts.render(
                "merge_system",
                base_instruction=task.base_instruction,
                labels=task.labels,
                max_words=merge.max_words,
            )
        )
        total += groups * clusterings
        basis = f"at most {groups:,} groups of several rules in each of {clusterings:,} clusterings"
        yield _Calls("sweep", teacher_consolidation.ROLE, groups * clusterings, size, basis)
    if isinstance(config.resolver, TeacherResolver):
        rounds = config.resolution.rounds
        size = _INSTRUCTIONS + 2 * config.resolution.failures * inputs
        total += rounds
        yield _Calls("resolve", "resolve", rounds, size, f"at most resolution.rounds {rounds}")
    if (gepa := config.baselines.gepa) is not None:
        most = total if gepa.max_teacher_calls is None else gepa.max_teacher_calls
        basis = (
            "at most as many as the distillation makes"
            if gepa.max_teacher_calls is None
            else "at most baselines.gepa.max_teacher_calls"
        )
        yield _Calls("evaluate", "optimise", most, _INSTRUCTIONS + _GEPA_EXAMPLES * inputs, basis)


def _stage(
    calls: _Calls, config: Config, teacher: Teacher, store: AnswerStore, ways: Sequence[str], *, count_tokens: bool
) -> StageEstimate:
    to_ask = calls.count - calls.stored
    paid = teacher if isinstance(teacher, PaidTeacher) else None
    model = paid.model_of(calls.role) if paid else teacher.name
    counted = _counted(paid, calls.requests) if paid and count_tokens else None
    past = store.mean_output_tokens(calls.role, model)
    each = {
        "input_tokens": round((counted or 1 / CHARACTERS_PER_TOKEN) * calls.characters),
        "output_tokens": round(past[1] if past else ASSUMED_OUTPUT[calls.role]),
    }
    price = price_of(config.prices, model)
    usd: dict[str, float | None] = {}
    for way in ways:  # questions that wait for each other go by messages
        one = usd_of(each, price, "messages" if way == BATCHES and calls.role in ONE_AT_A_TIME else way)
        usd[way] = 0.0 if not to_ask else None if one is None else to_ask * one
    basis = calls.basis
    if to_ask and ways:
        tokens = "the provider's count of a few requests" if counted else f"characters / {CHARACTERS_PER_TOKEN}"
        basis += f"; tokens in: {tokens}, out: {f'the mean of {past[0]:,} past answers' if past else 'assumed'}"
    return StageEstimate(
        stage=calls.stage,
        role=calls.role,
        model=model,
        calls=calls.count,
        at_most=calls.stage != "extract",
        stored=calls.stored,
        to_ask=to_ask,
        input_tokens=to_ask * each["input_tokens"],
        output_tokens=to_ask * each["output_tokens"],
        usd=usd,
        basis=basis,
    )


def verdicts(found: Estimate) -> Iterator[str]:
    """What the prices and the budget say about it, a sentence each."""
    if found.recorded:
        yield "recorded answers are played back: they cost nothing"
        return
    yield f"prices as of {found.prices_as_of} ({found.prices_source}): conf/prices.yaml; without prompt caching"
    yield "a refused answer is asked for again, up to asking.attempts times: not counted here"
    for model in sorted({stage.model for stage in found.stages if None in stage.usd.values()}):
        stops = "with budget.usd set the run stops before its first call; " if found.budget_usd is not None else ""
        yield (
            f"no price for {model} (or for requests as long as these): {stops}add under models of conf/prices.yaml "
            f"`{model}: {{input: ..., output: ..., cache_write_5m: ..., cache_write_1h: ..., cache_read: ..., "
            "batch: ..., cacheable_tokens: ..., up_to: null}` in dollars per million tokens"
        )
    yield f"task {found.task}: {_spent(found)}"
    usd = found.total(found.way)
    if found.budget_usd is not None and usd is not None:
        left = found.budget_usd - found.spent_usd - usd
        if left >= 0:
            yield f"fits by {found.way}: about {dollars(left)} of budget.usd would be left"
        else:
            yield f"over budget.usd by about {dollars(-left)} by {found.way}: the run would stop there, cleanly"
    if found.budget_calls is not None:
        left_calls = found.budget_calls - found.spent_calls - sum(stage.to_ask for stage in found.stages)
        if left_calls >= 0:
            yield f"fits: {left_calls:,} of budget.calls would be left"
        else:
            yield f"over budget.calls by {-left_calls:,}: the run would stop there, cleanly"


def one_line(found: Estimate) -> str:
    """For the start of a stage."""
    if found.recorded:
        return "recorded answers are played back: nothing to pay"
    calls, to_ask = sum(stage.calls for stage in found.stages), sum(stage.to_ask for stage in found.stages)
    if not to_ask:
        return f"all {calls:,} answers are stored: nothing to pay"
    tokens_in = millions(sum(stage.input_tokens for stage in found.stages))
    tokens_out = millions(sum(stage.output_tokens for stage in found.stages))
    usd = found.total(found.way)
    cost = "price unknown (conf/prices.yaml)" if usd is None else f"about {dollars(usd)} by {found.way}"
    return (
        f"{calls:,} calls of {found.teacher}, {calls - to_ask:,} answered already: {to_ask:,} to ask; about "
        f"{tokens_in} tokens in and {tokens_out} out, {cost}; {_spent(found)}"
    )


def _spent(found: Estimate) -> str:
    cap = "no cap" if found.budget_usd is None else f"of budget.usd {dollars(found.budget_usd)}"
    calls = "" if found.budget_calls is None else f" of budget.calls {found.budget_calls:,}"
    return f"spent so far: {dollars(found.spent_usd)} ({cap}), {found.spent_calls:,} calls{calls}"


def _without_answer(
    teacher: Teacher, store: AnswerStore, requests: Sequence[TeacherRequest]
) -> Sequence[TeacherRequest]:
    if isinstance(teacher, RecordedTeacher):
        return [request for request in requests if not teacher.has(request)]
    if not isinstance(teacher, PaidTeacher):
        return requests
    left: list[TeacherRequest] = []
    for at in range(0, len(requests), LOOKED_UP_AT_ONCE):
        keys = {teacher.key_of(request): request for request in requests[at : at + LOOKED_UP_AT_ONCE]}
        stored = store.get_many(keys)
        left += [request for key, request in keys.items() if key not in stored]
    return left


def _counted(teacher: PaidTeacher, requests: Sequence[TeacherRequest]) -> float | None:
    """Tokens per character by the provider's count of a few of `requests`, evenly spaced; None: it does not count."""
    sample = [requests[at] for at in range(0, len(requests), max(len(requests) // _SAMPLE, 1))][:_SAMPLE]
    try:
        counts = teacher.count_tokens(sample) if sample else None
    except TeacherError:
        return None
    return None if counts is None else sum(counts) / sum(map(_characters, sample))


def _characters(request: TeacherRequest) -> int:
    return len(request.system) + len(request.prompt) + len(canonical_json(dict(request.schema)))


def _clusterings(config: Config) -> int:
    """How many points of the sweep can differ in their groups of rules."""
    space = config.sweep.space
    sections = [space[name] for name in ("clusterer", "clustering", "consolidator") if name in space]
    points = math.prod(len(values) for section in sections for values in section.values())
    trials = config.sweep.trials if config.sweep.sampler == "tpe" else None
    return points if trials is None else min(points, trials)


def _train(config: Config, folder: Path) -> list[Example]:
    path, task = folder / "splits/train.jsonl", config.task
    if not path.exists():
        raise ArtifactError(f"expected the training examples, got no such file ({path}); run `dvc repro prepare`")
    examples = read_jsonl(path, Example)
    for example in examples:
        if example.label not in task.labels or set(example.inputs) != set(task.fields):
            raise ArtifactError(
                f"expected examples of task {task.name}, got {example.id} with label {example.label!r} and fields "
                f"{list(example.inputs)} ({path}); run `dvc repro prepare`"
            )
    return examples
