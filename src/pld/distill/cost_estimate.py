"""What the Teacher's calls will cost, before any is made: questions, tokens, and dollars by each way of asking."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pld.params import ModelPrice
from pld.ports import ONE_AT_A_TIME, TeacherRequest
from pld.pricing import BATCHES, usd_of
from pld.records import Record, canonical_json

STAGES = ("extract", "sweep", "resolve", "evaluate")
"""Those that may ask the Teacher."""
CHARACTERS_PER_TOKEN = 3.5
"""Assumed where the provider does not count: a little under what English prose has, so that it errs upwards."""
ASSUMED_OUTPUT = {"extract": 500, "consolidate": 400, "resolve": 3000, "optimise": 1500}
"""Tokens of an answer with some thinking, until there are past answers of the model in the role to go by."""
MESSAGES, CACHED = "messages", " with caching"
RECORDED = "recorded"
"""The way of a Teacher that plays back old answers."""


@dataclass(frozen=True)
class Ahead:
    """What a stage would ask in one role: `calls` questions, of which `stored` have an answer that can be used, and
    `earlier` of the others one under another wording or setting. A request has `characters` on average, of which
    `constant` are the same in all. `basis`: how this is known, in words; `at_most`: `calls` is a bound."""

    stage: str
    role: str
    calls: int
    stored: int
    earlier: int
    characters: float
    constant: int
    basis: str
    at_most: bool = False


@dataclass(frozen=True)
class Experience:
    """What is known of the model that a role has. `counted`: requests that the provider counted, their tokens and their
    characters; `past`: how many answers are stored, their mean tokens in and out; `refused`: the share of them that was
    no use; `attempts` at one question, at most."""

    model: str
    price: ModelPrice | None
    way: str
    attempts: int
    counted: tuple[int, int, int] | None = None
    past: tuple[int, float, float] | None = None
    refused: float = 0.0


class StageEstimate(Record):
    """`retries`: calls on top of `to_ask`, as many as past answers were refused; tokens are of all these calls;
    `constant_tokens`: what every request begins with; `cacheable`: it is long enough to be cached (None: unknown);
    `usd` by way, None where the price is not known."""

    stage: str
    role: str
    model: str
    calls: int
    at_most: bool
    stored: int
    to_ask: int
    answered_before: int
    retries: int
    input_tokens: int
    input_from: str
    output_tokens: int
    output_from: str
    constant_tokens: int
    cacheable: bool | None
    usd: dict[str, float | None]
    basis: str


class Estimate(Record):
    """`way` is the configured one; `spent` is what the task cost so far, calls under way and lost ones included."""

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
        """Old answers are played back, which costs nothing."""
        return self.way == RECORDED


def ways_of(way: str) -> tuple[str, ...]:
    """The ways that the provider behind `way` has, each without and with caching; none for recorded answers."""
    if way == RECORDED:
        return ()
    plain = (MESSAGES, BATCHES) if way in (MESSAGES, BATCHES) else (way,)
    return tuple(one + kind for one in plain for kind in ("", CACHED))


def ahead_of(
    stage: str, requests: Sequence[TeacherRequest], stored: Collection[str], earlier: int, basis: str
) -> Ahead:
    """Of `requests` that are known to the letter; `stored`: the keys of those that have an answer."""
    to_ask = [request for request in requests if request.key not in stored] or list(requests)
    return Ahead(
        stage=stage,
        role=requests[0].role,
        calls=len(requests),
        stored=len(stored),
        earlier=earlier,
        characters=sum(map(characters_of, to_ask)) / len(to_ask),
        constant=constant_of(requests[0]),
        basis=basis,
    )


def characters_of(request: TeacherRequest) -> int:
    return constant_of(request) + len(request.prompt)


def constant_of(request: TeacherRequest) -> int:
    """Characters of what all requests of a role share."""
    return len(request.system) + len(canonical_json(dict(request.schema)))


def sample(requests: Sequence[TeacherRequest], size: int) -> list[TeacherRequest]:
    """At most `size` of them, evenly spaced."""
    if len(requests) <= size:
        return list(requests)
    return [requests[at * len(requests) // size] for at in range(size)]


def estimate_stage(ahead: Ahead, known: Experience) -> StageEstimate:
    """Tokens and dollars of what `ahead` still has to ask."""
    to_ask = ahead.calls - ahead.stored
    retries = math.ceil(to_ask * sum(known.refused**attempt for attempt in range(1, known.attempts)) - 1e-9)
    calls = to_ask + retries
    each_in, input_from = _input(ahead, known)
    each_out, output_from = _output(ahead.role, known)
    constant = min(round(each_in * ahead.constant / ahead.characters), round(each_in)) if ahead.characters else 0
    cacheable = None if known.price is None else constant >= known.price.cacheable_tokens
    return StageEstimate(
        stage=ahead.stage,
        role=ahead.role,
        model=known.model,
        calls=ahead.calls,
        at_most=ahead.at_most,
        stored=ahead.stored,
        to_ask=to_ask,
        answered_before=ahead.earlier,
        retries=retries,
        input_tokens=round(calls * each_in),
        input_from=input_from,
        output_tokens=round(calls * each_out),
        output_from=output_from,
        constant_tokens=constant,
        cacheable=cacheable,
        usd={
            way: _usd(
                calls, each_in, each_out, constant if cacheable and way.endswith(CACHED) else 0, known.price, paid
            )
            for way, paid in ((way, _paid_as(way, ahead.role)) for way in ways_of(known.way))
        },
        basis=ahead.basis,
    )


def total(estimate: Estimate, way: str) -> float | None:
    """Dollars of all stages; None where a price is not known."""
    parts = [stage.usd[way] for stage in estimate.stages]
    return None if None in parts else sum(part for part in parts if part is not None)


def calls_to_make(estimate: Estimate) -> int:
    return sum(stage.to_ask + stage.retries for stage in estimate.stages)


def verdicts(estimate: Estimate) -> list[str]:
    """What the prices and the budget make of it, a sentence each."""
    if estimate.recorded:
        return ["recorded answers are played back: they cost nothing"]
    lines = [f"prices as of {estimate.prices_as_of} ({estimate.prices_source}): conf/prices.yaml"]
    unknown = sorted({stage.model for stage in estimate.stages if None in stage.usd.values()})
    lines += [_unknown_price(model, estimate.budget_usd is not None) for model in unknown]
    for stage in estimate.stages:
        if stage.to_ask and stage.cacheable is False:
            lines.append(
                f"caching does nothing for {stage.role}: what its requests share is about {stage.constant_tokens:,} "
                f"tokens, too few for {stage.model}"
            )
    if any(stage.to_ask and stage.cacheable for stage in estimate.stages):
        lines.append(
            "with caching: at best, where each request but the first finds the cache filled"
            + (" (in batches it often does not)" if BATCHES in ways_of(estimate.way) else "")
        )
    return lines + _budget(estimate)


def line(estimate: Estimate) -> str:
    """One line for the start of a stage."""
    if estimate.recorded:
        return "recorded answers are played back: nothing to pay"
    calls, to_ask = sum(stage.calls for stage in estimate.stages), sum(stage.to_ask for stage in estimate.stages)
    if not to_ask:
        return f"all {calls:,} answers are stored: nothing to pay"
    stored = calls - to_ask
    before = sum(stage.answered_before for stage in estimate.stages)
    again = f" ({before:,} of them answered before under another wording or setting)" if before else ""
    tokens_in = sum(stage.input_tokens for stage in estimate.stages)
    tokens_out = sum(stage.output_tokens for stage in estimate.stages)
    usd = total(estimate, estimate.way)
    cost = "price unknown (conf/prices.yaml)" if usd is None else f"about {dollars(usd)} by {estimate.way}"
    return (
        f"{calls:,} calls of {estimate.teacher}, {stored:,} answered already: {to_ask:,} to ask{again}; about "
        f"{millions(tokens_in)} tokens in and {millions(tokens_out)} out, {cost}; {_cap(estimate)}"
    )


def dollars(usd: float | None) -> str:
    """At least two digits that say something."""
    if usd is None:
        return "unknown"
    return f"${usd:,.2f}" if usd >= 0.1 or not usd else f"${usd:.4f}"


def millions(tokens: int) -> str:
    return f"{tokens / 1e6:.2f} M" if tokens >= 10_000 else f"{tokens:,}"


def _input(ahead: Ahead, known: Experience) -> tuple[float, str]:
    """Tokens of one request, and how they are known."""
    if known.counted is not None:
        requests, tokens, characters = known.counted
        return tokens / characters * ahead.characters, f"the provider's count of {requests:,} requests"
    if ahead.at_most and known.past is not None:
        return known.past[1], f"the mean of {known.past[0]:,} past answers"
    return ahead.characters / CHARACTERS_PER_TOKEN, f"characters / {CHARACTERS_PER_TOKEN} (not counted)"


def _output(role: str, known: Experience) -> tuple[float, str]:
    if known.past is not None:
        return known.past[2], f"the mean of {known.past[0]:,} past answers"
    return ASSUMED_OUTPUT[role], f"{ASSUMED_OUTPUT[role]:,} an answer, assumed: there is no past one"


def _paid_as(way: str, role: str) -> str:
    """What one pays by when asked for `way`: questions that wait for each other go by messages."""
    return way.replace(BATCHES, MESSAGES) if role in ONE_AT_A_TIME else way


def _usd(calls: int, each_in: float, each_out: float, cached: int, price: ModelPrice | None, way: str) -> float | None:
    """`calls` alike; the `cached` tokens of each are written by the first and read by the others."""
    if not calls:
        return 0.0
    plain = way.removesuffix(CACHED)
    rest = {"input_tokens": round(each_in) - cached, "output_tokens": round(each_out)}
    first: Mapping[str, int] = rest | {"cache_creation_input_tokens": cached}
    if plain not in (MESSAGES, BATCHES):  # such a server caches by itself, and writes for nothing
        first = rest | {"input_tokens": round(each_in)}
    once = usd_of(first, price, plain)
    each = usd_of(rest | {"cache_read_input_tokens": cached}, price, plain)
    return None if once is None or each is None else once + (calls - 1) * each


def _unknown_price(model: str, capped: bool) -> str:
    stops = "with budget.usd set the run stops before its first call; " if capped else ""
    return (
        f"no price for {model} (or for requests as long as these): {stops}add under models of conf/prices.yaml "
        f"`{model}: {{input: ..., output: ..., cache_write_5m: ..., cache_write_1h: ..., cache_read: ..., "
        "batch: ..., cacheable_tokens: ..., up_to: null}` in dollars per million tokens"
    )


def _cap(estimate: Estimate) -> str:
    cap = "no cap" if estimate.budget_usd is None else f"of budget.usd {dollars(estimate.budget_usd)}"
    calls = "" if estimate.budget_calls is None else f" of budget.calls {estimate.budget_calls:,}"
    return f"spent so far: {dollars(estimate.spent_usd)} ({cap}), {estimate.spent_calls:,} calls{calls}"


def _budget(estimate: Estimate) -> list[str]:
    lines = [f"task {estimate.task}: {_cap(estimate)}"]
    usd, calls = total(estimate, estimate.way), calls_to_make(estimate)
    if estimate.budget_usd is not None and usd is not None:
        left = estimate.budget_usd - estimate.spent_usd - usd
        lines.append(
            f"fits by {estimate.way}: about {dollars(left)} of budget.usd would be left"
            if left >= 0
            else f"over budget.usd by about {dollars(-left)} by {estimate.way}: the run would stop there, cleanly"
        )
    if estimate.budget_calls is not None:
        left_calls = estimate.budget_calls - estimate.spent_calls - calls
        lines.append(
            f"fits: {left_calls:,} of budget.calls would be left"
            if left_calls >= 0
            else f"over budget.calls by {-left_calls:,}: the run would stop there, cleanly"
        )
    return lines
