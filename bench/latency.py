"""One request at a time, interleaved: zero-shot, long prompts with and without their cache, and a chain of thought."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from engines import Ours
from measure import Settings, say
from worker import Worker
from workload import Builder, Job, sentences

ZERO_SHOT = "zero-shot, cached"
# a short instruction, as a zero-shot system prompt has
_SHORT = 48


@dataclass
class Requests:
    """Milliseconds of single requests in blocks, one block a round; `tokens`: what a chain of thought wrote."""

    system: str
    prompt_tokens: int
    blocks: list[list[float]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


def measure_requests(
    held: Worker,
    settings: Settings,
    builder: Builder,
    dtype: str,
    prompt_tokens: Sequence[int],
    rounds: int,
    per_round: int,
    thoughts: int,
) -> list[Requests]:
    """In each round `per_round` requests of each cached system, one of each uncached one and one chain of thought.

    `held` is a worker with our Student; what drops the cache runs in another one, so that the others' stay held.
    """
    kind = "4 of one token"
    short = builder.job(kind, _SHORT, settings.seed)
    jobs = {f"{len(job.prefix)} tokens": job for job in (builder.job(kind, n, settings.seed) for n in prompt_tokens)}
    cached = {ZERO_SHOT: short} | {f"{name}, cached": job for name, job in jobs.items()}
    uncached = {f"{name}, not cached": job for name, job in jobs.items()}
    chain = f"chain of thought, up to {thoughts} tokens"
    found = {name: Requests(name, len(job.prefix)) for name, job in (cached | uncached | {chain: short}).items()}
    texts = sentences(settings.seed + 2)
    with Worker(Ours, settings.student, dtype, settings.device, as_shipped=True) as dropping:
        _warm(held, dropping, cached, uncached, next(texts))
        for number in range(1, rounds + 1):
            say(f"{dtype}, latency, round {number}/{rounds}")
            for name, job in cached.items():
                found[name].blocks.append(held.call("request", job, [next(texts) for _ in range(per_round)]))
            for name, job in uncached.items():
                found[name].blocks.append([dropping.call("request_uncached", job, next(texts))])
            taken, tokens = held.call("request_with_thoughts", short, next(texts), thoughts)
            found[chain].blocks.append([taken])
            found[chain].tokens.append(tokens)
    return list(found.values())


def _warm(held: Worker, dropping: Worker, cached: Mapping[str, Job], uncached: Mapping[str, Job], text: str) -> None:
    for job in cached.values():
        held.call("request", job, [text])
    for job in uncached.values():
        dropping.call("request_uncached", job, text)
    held.call("request_with_thoughts", cached[ZERO_SHOT], text, 8)
