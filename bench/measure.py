"""Time all methods in interleaved rounds, after checking that they compute the same scores."""

import itertools
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import llama
import numpy as np
from engines import Gemm, Ours, Transformers
from worker import BenchError, Worker
from workload import LABELS, Builder, Item, Job, Work, sentences

OURS = "ours"
# method → it gets one of so many examples of a round: slow methods get fewer
METHODS = {
    OURS: 1,
    "prefix cache, batched": 2,
    llama.MANY: 3,
    llama.ONE: 6,
    "generate, batched": 12,
    "full forward": 32,
    "generate": 32,
}
# these score all tokens of a label; `generate` costs the same for any labels
OF_SEVERAL = (OURS, "prefix cache, batched", llama.MANY, llama.ONE)
# tolerance in nats against plain forward passes in float32, for log-probabilities and for the lead of a choice that
# differs. llama.cpp rounds activations to 8 bits to multiply them with 4-bit weights
EXACT, QUANTISED = 1e-3, 1.5


@dataclass(frozen=True)
class Settings:
    student: str
    device: str
    methods: tuple[str, ...]
    examples: int
    rounds: int
    seed: int


@dataclass
class Row:
    """One method: milliseconds per example and per prefill in each round; peak memory of its process, with weights."""

    method: str
    examples: int
    per_example_ms: list[float] = field(default_factory=list)
    prefill_ms: list[float] = field(default_factory=list)
    peak_mib: float | None = None
    missing: str | None = None


@dataclass
class Table:
    """All methods for one prompt and kind of labels. `flops`, `tokens`: the least an example needs."""

    kind: str
    prompt_tokens: int
    input_tokens: float
    tokens: float
    flops: float
    rows: list[Row]


@dataclass
class Agreement:
    """One method against plain forward passes in float32: equal choices of `examples`, and the largest difference."""

    method: str
    kind: str
    examples: int
    equal: int
    largest: float | None


class Engines:
    """One worker per engine; the one of transformers is also the reference."""

    def __init__(self, stack: ExitStack, settings: Settings, dtype: str) -> None:
        option, device = settings.student, settings.device
        self.ours = stack.enter_context(Worker(Ours, option, dtype, device, as_shipped=True))
        self.transformers = stack.enter_context(Worker(Transformers, option, dtype, device))
        self._no_llama = "runs on CPU here" if device == "cuda" else llama.missing(option)
        if self._no_llama is None:
            self._llama = stack.enter_context(Worker(llama.LlamaCpp, option))
            try:
                self._llama.call("probe")
            except BenchError as error:
                self._no_llama = str(error).partition("got ")[2]

    def __getitem__(self, method: str) -> Worker:
        if method == OURS:
            return self.ours
        return self._llama if method in llama.METHODS else self.transformers

    def missing(self, method: str) -> str | None:
        """Why a method can't be measured here, or None."""
        return self._no_llama if method in llama.METHODS else None


@contextmanager
def engines(settings: Settings, dtype: str) -> Iterator[Engines]:
    with ExitStack() as stack:
        yield Engines(stack, settings, dtype)


def check(running: Engines, settings: Settings, builder: Builder, tokens: int, examples: int) -> list[Agreement]:
    """Compare every method with plain forward passes in float32. Raises BenchError where scores or choices differ."""
    found = []
    for kind in LABELS:
        job = builder.job(kind, tokens, settings.seed)
        items = builder.items(job, list(itertools.islice(sentences(settings.seed + 1), examples)))
        reference = running.transformers.call("reference", job, items)
        for method in _methods(settings, job):
            if running.missing(method):
                continue
            say(f"check, {kind}: {method}")
            running[method].call("prepare", method, job)
            found.append(_agreement(method, kind, running[method].call("run", method, job, items), reference))
    return found


def measure(
    running: Engines, settings: Settings, builder: Builder, dtype: str, prompt_tokens: Sequence[int]
) -> tuple[list[Table], float]:
    """A table per prompt and kind of labels; the machine's peak in floating-point operations a second."""
    tables, peak = [], 0.0
    with Worker(Gemm, dtype, settings.device) as gemm:
        for tokens in prompt_tokens:
            for kind in LABELS:
                job = builder.job(kind, tokens, settings.seed)
                texts = sentences(settings.seed + 1)
                rounds = [
                    builder.items(job, list(itertools.islice(texts, settings.examples)))
                    for _ in range(settings.rounds + 1)
                ]
                table = _table(running, settings, job, rounds[-1])
                _warm(running, table, job, rounds[0])
                for number, items in enumerate(rounds[1:], 1):
                    if not job.rows_per_label:
                        peak = max(peak, gemm.call("best"))
                    label = f"{dtype}, {tokens} tokens, {kind}, round {number}/{settings.rounds}"
                    _round(running, table, job, items, label)
                tables.append(table)
    return tables, peak


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _methods(settings: Settings, job: Job) -> list[str]:
    return [method for method in settings.methods if method in OF_SEVERAL or not job.rows_per_label]


def _table(running: Engines, settings: Settings, job: Job, items: Sequence[Item]) -> Table:
    work = Work.of(job, items)
    return Table(
        kind=job.kind,
        prompt_tokens=len(job.prefix),
        input_tokens=float(np.mean([len(item.ids) - len(job.prefix) for item in items])),
        tokens=work.tokens / len(items),
        flops=_flops(running.transformers.call("shape"), work) / len(items),
        rows=[
            Row(method, max(1, settings.examples // METHODS[method]), missing=running.missing(method))
            for method in _methods(settings, job)
        ],
    )


def _flops(shape: Mapping[str, int], work: Work) -> float:
    """Multiply-adds: per weight and token, per attended pair and layer (query by key, weight by value), and of the LM
    head for each scoring row."""
    return 2.0 * (shape["linear"] * work.tokens + 2 * shape["attention"] * work.pairs + shape["head"] * work.rows)


def _warm(running: Engines, table: Table, job: Job, items: Sequence[Item]) -> None:
    """An untimed round, which measures peak memory."""
    for row in table.rows:
        if row.missing is None:
            running[row.method].call("prepare", row.method, job)
            _, row.peak_mib = running[row.method].with_peak("run", row.method, job, items[: row.examples])


def _round(running: Engines, table: Table, job: Job, items: Sequence[Item], label: str) -> None:
    for row in table.rows:
        if row.missing is not None:
            continue
        prefill = running[row.method].call("prepare", row.method, job)
        if prefill is not None:
            row.prefill_ms.append(prefill)
        answers = running[row.method].call("run", row.method, job, items[: row.examples])
        row.per_example_ms.append(answers.milliseconds / row.examples)
        say(f"{label}, {row.method}: {row.per_example_ms[-1]:.1f} ms per example")


def _agreement(method: str, kind: str, answers: Any, reference: Any) -> Agreement:
    scores, first, lead = reference
    if answers.scores is None:
        equal = [one == other for one, other in zip(answers.first, first, strict=True)]
        largest, leads, bound = None, lead, EXACT
    else:
        equal = (answers.scores.argmax(axis=1) == scores.argmax(axis=1)).tolist()
        largest = float(np.abs(answers.scores - scores).max())
        ordered = np.sort(scores, axis=1)
        leads, bound = (ordered[:, -1] - ordered[:, -2]).tolist(), EXACT
        if method in llama.METHODS:
            bound = QUANTISED
        elif not largest < EXACT:
            raise BenchError(
                f"expected the scores of plain forward passes within {EXACT}, got {largest:.4f} off ({method}, {kind})"
            )
    for same, ahead in zip(equal, leads, strict=True):
        if not same and ahead > bound:
            raise BenchError(
                f"expected the choice of plain forward passes, got another at a lead of {ahead:.3f} ({method}, {kind})"
            )
    return Agreement(method, kind, len(equal), sum(equal), largest)
