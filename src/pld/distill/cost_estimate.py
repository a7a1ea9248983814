"""What the Teacher's calls will cost, before any is made: calls, tokens and dollars, against the budget.

Exact for `extract`, whose requests are known and looked up in the answer store; bounds from the settings for later
stages, whose requests depend on answers that are not there yet.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path

from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore
from pld.adapters.teachers.offline import OFFLINE, OfflineTeacher
from pld.adapters.teachers.paid_teacher import PaidTeacher
from pld.adapters.teachers.recorded import RecordedTeacher
from pld.artifacts import read_jsonl
from pld.config.assets import cache_folder
from pld.distill import extract
from pld.distill.checklist import FRAME
from pld.distill.render import render_input
from pld.errors import ArtifactError, TeacherError
from pld.params import Config, SearchedSection, TeacherConsolidator, TeacherResolver
from pld.ports import CONSOLIDATE, ONE_AT_A_TIME, Teacher, TeacherRequest
from pld.pricing import BATCHES, dollars, millions, price_of, usd_of
from pld.records import Example, Record, canonical_json
from pld.reports import TEACHER_STAGES

CHARACTERS_PER_TOKEN = 3.5
"""Assumed where the provider does not count: a little under that of English prose, so that it errs upwards."""
ASSUMED_OUTPUT = {"extract": 500, "consolidate": 400, "resolve": 3000, "optimise": 1500}
"""Tokens of an answer with some thinking, until the store has answers of the model in the role."""
RECORDED = "recorded"
"""The way of a Teacher that plays back recorded answers."""
_CLUSTERING: tuple[SearchedSection, ...] = (
    "clusterer",
    "clustering",
    "consolidator",
)  # sections on which clusters of rules depend
_QUESTIONS: tuple[SearchedSection, ...] = (
    "clustering",
    "consolidator",
)  # sections on which questions about labels depend
_SAMPLE = 20  # requests that the provider counts
_WORD = 6.5  # characters of an English word with its space
_QUESTION = 3000  # characters of a question without what it shows
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
    def free(self) -> bool:
        """Recorded answers are played back, or questions wait for answers from elsewhere."""
        return self.way in (RECORDED, OFFLINE)

    def total(self, way: str) -> float | None:
        """Dollars of all stages; None where a price is unknown."""
        parts = [stage.usd[way] for stage in self.stages]
        return None if None in parts else sum(part for part in parts if part is not None)


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
    path, task = folder / "splits/train.jsonl", config.task
    train = read_jsonl(path, Example)
    for example in train:
        if example.label not in task.labels or set(example.inputs) != set(task.fields):
            raise ArtifactError(f"expected examples of task {task.name}, got others ({path}); run `dvc repro prepare`")
    store = AnswerStore(cache_folder() / FILE_NAME)
    spent = store.spent(task.name)
    found = _Stages(config, teacher, store, train, count_tokens)
    return Estimate(
        task=task.name,
        teacher=teacher.name,
        way=found.way,
        prices_as_of=config.prices.as_of,
        prices_source=config.prices.source,
        budget_usd=config.budget.usd,
        budget_calls=config.budget.calls,
        spent_usd=spent.all_usd,
        spent_calls=spent.all_calls,
        stages=tuple(stage for stage in found.estimates() if stage.stage in stages and stage.calls),
    )


class _Stages:
    def __init__(
        self, config: Config, teacher: Teacher, store: AnswerStore, train: Sequence[Example], count_tokens: bool
    ) -> None:
        self.config = config
        self.teacher = teacher
        self.store = store
        self.train = train
        self.count_tokens = count_tokens
        self.paid = teacher if isinstance(teacher, PaidTeacher) else None
        self.offline = teacher if isinstance(teacher, OfflineTeacher) else None
        self.way = self.paid.way_of(extract.ROLE) if self.paid else OFFLINE if self.offline else RECORDED

    def estimates(self) -> Iterator[StageEstimate]:
        config, task = self.config, self.config.task
        asked = extract.asked_about(task, self.train, config.extraction)
        requests = extract.extraction_requests(task, asked, config.extraction)
        left = self._without_answer(requests)
        of = f" of {len(self.train):,}" if len(asked) < len(self.train) else ""
        draws = f" x {config.extraction.draws} draws" if config.extraction.draws > 1 else ""
        size = sum(map(_characters, left)) / max(len(left), 1)
        basis = f"{len(asked):,}{of} training examples{draws}"
        yield self._stage("extract", extract.ROLE, len(requests), size, basis, len(requests) - len(left), left)

        total = len(requests)
        for calls, size, basis in self._consolidation(len(requests)):
            yield self._stage("sweep", CONSOLIDATE, calls, size, basis)
            total += calls
        if isinstance(config.resolver, TeacherResolver):
            rounds = config.resolution.rounds
            size = _QUESTION + _INSTRUCTIONS + 2 * config.resolution.failures * self.input_characters
            yield self._stage("resolve", "resolve", rounds, size, f"at most resolution.rounds {rounds}")
            total += rounds
        if (gepa := config.baselines.gepa) is not None:
            size = _QUESTION + _INSTRUCTIONS + _GEPA_EXAMPLES * self.input_characters
            if gepa.max_teacher_calls is None:
                yield self._stage("evaluate", "optimise", total, size, "at most as many as the distillation makes")
            else:
                basis = "at most baselines.gepa.max_teacher_calls"
                yield self._stage("evaluate", "optimise", gepa.max_teacher_calls, size, basis)

    def _consolidation(self, rules: int) -> Iterator[tuple[int, float, str]]:
        """Calls, characters of each, and the basis: of merges per cluster, of questions about labels, of checklists."""
        config, params = self.config, self.config.consolidator
        if not isinstance(params, TeacherConsolidator):
            return
        labels, rule = len(config.task.labels), config.extraction.max_words * _WORD
        by_label = params.scope == "label"
        if not by_label or rules > labels * params.max_rules:
            groups, clusterings = min(params.max_calls, max(rules // 2, 1)), _points(config, _CLUSTERING)
            basis = f"at most {groups:,} groups of several rules in each of {clusterings:,} clusterings"
            yield groups * clusterings, _QUESTION + min(rules / groups, params.max_rules) * rule, basis
        points = _points(config, _QUESTIONS)
        if by_label:
            shown = min(rules, params.max_rules) * rule + rules / labels * self.input_characters
            basis = f"{labels:,} labels at each of {points:,} settings of consolidation"
            yield labels * points, _QUESTION + min(shown, params.max_characters), basis
        if FRAME in (config.rendering.frame, *config.sweep.space.get("rendering", {}).get("frame", ())):
            each = params.instructions * labels * params.max_words * _WORD
            yield points, _QUESTION + each, f"a checklist at each of {points:,} settings of consolidation"

    def _stage(
        self,
        stage: str,
        role: str,
        calls: int,
        characters: float,
        basis: str,
        stored: int = 0,
        requests: Sequence[TeacherRequest] = (),
    ) -> StageEstimate:
        """`characters`: of a request; `requests`: those to ask, where they are known."""
        to_ask = calls - stored
        model = self.paid.model_of(role) if self.paid else self.teacher.name
        counted = self._tokens_per_character(requests)
        past = self.store.mean_output_tokens(role, model)
        each = {
            "input_tokens": round((counted or 1 / CHARACTERS_PER_TOKEN) * characters),
            "output_tokens": round(past[1] if past else ASSUMED_OUTPUT[role]),
        }
        usd: dict[str, float | None] = {}
        for way in ways_of(self.way):  # questions that wait for each other go by messages
            paid_as = "messages" if way == BATCHES and role in ONE_AT_A_TIME else way
            one = usd_of(each, price_of(self.config.prices, model), paid_as)
            usd[way] = 0.0 if not to_ask else None if one is None else to_ask * one
        if to_ask and self.paid:
            tokens = "the provider's count of a few requests" if counted else f"characters / {CHARACTERS_PER_TOKEN}"
            basis += f"; tokens in: {tokens}, out: {f'the mean of {past[0]:,} past answers' if past else 'assumed'}"
        return StageEstimate(
            stage=stage,
            role=role,
            model=model,
            calls=calls,
            at_most=stage != "extract",
            stored=stored,
            to_ask=to_ask,
            input_tokens=to_ask * each["input_tokens"],
            output_tokens=to_ask * each["output_tokens"],
            usd=usd,
            basis=basis,
        )

    @cached_property
    def input_characters(self) -> float:
        """Of a rendered example, on average."""
        lengths = [len(render_input(self.config.task, example.inputs)) for example in self.train]
        return sum(lengths) / max(len(lengths), 1)

    def _without_answer(self, requests: Sequence[TeacherRequest]) -> Sequence[TeacherRequest]:
        if isinstance(self.teacher, RecordedTeacher):
            return [request for request in requests if not self.teacher.has(request)]
        if self.offline:
            return self.offline.without_answer(self.store, requests)
        return requests if self.paid is None else self.paid.without_answer(self.store, requests)

    def _tokens_per_character(self, requests: Sequence[TeacherRequest]) -> float | None:
        """By the provider's count of a few of `requests`; None: it does not count."""
        if self.paid is None or not self.count_tokens or not requests:
            return None
        sample = requests[:: max(len(requests) // _SAMPLE, 1)][:_SAMPLE]
        try:
            counts = self.paid.count_tokens(sample)
        except TeacherError:
            return None
        return None if counts is None else sum(counts) / sum(map(_characters, sample))


def ways_of(way: str) -> tuple[str, ...]:
    """The ways to ask the provider behind `way`; none where nothing is paid for."""
    return () if way in (RECORDED, OFFLINE) else ("messages", BATCHES) if way in ("messages", BATCHES) else (way,)


def verdicts(found: Estimate) -> Iterator[str]:
    """What the prices and the budget say about it, a sentence each."""
    if found.free:
        yield _free(found)
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
        yield _verdict("budget.usd", left, f"about {dollars(abs(left))}", f" by {found.way}")
    if found.budget_calls is not None:
        left = found.budget_calls - found.spent_calls - sum(stage.to_ask for stage in found.stages)
        yield _verdict("budget.calls", left, f"{abs(left):,}")


def _verdict(limit: str, left: float, amount: str, how: str = "") -> str:
    if left >= 0:
        return f"fits{how}: {amount} of {limit} would be left"
    return f"over {limit} by {amount}{how}: the run would stop there, cleanly"


def one_line(found: Estimate) -> str:
    """For the start of a stage."""
    if found.free:
        return _free(found)
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


def _free(found: Estimate) -> str:
    if found.way == RECORDED:
        return "recorded answers are played back: nothing to pay"
    return "what has no answer in the store waits for one (pld teacher questions): nothing to pay here"


def _spent(found: Estimate) -> str:
    cap = "no cap" if found.budget_usd is None else f"of budget.usd {dollars(found.budget_usd)}"
    calls = "" if found.budget_calls is None else f" of budget.calls {found.budget_calls:,}"
    return f"spent so far: {dollars(found.spent_usd)} ({cap}), {found.spent_calls:,} calls{calls}"


def _characters(request: TeacherRequest) -> int:
    return len(request.system) + len(request.prompt) + len(canonical_json(dict(request.schema)))


def _points(config: Config, sections: Sequence[SearchedSection]) -> int:
    """How many points of the sweep differ in `sections`."""
    space = config.sweep.space
    points = math.prod(len(values) for name in sections for values in space.get(name, {}).values())
    trials = config.sweep.trials if config.sweep.sampler == "tpe" else None
    return points if trials is None else min(points, trials)
