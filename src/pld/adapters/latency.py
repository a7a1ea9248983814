"""Latency as it is served: one request at a time, warm, the system prompt's cache held."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pld.ports import Student
from pld.records import Latency, Message

WARM_UP = 3


def measure_latency(
    student: Student, messages: Sequence[Message], inputs: Sequence[str], labels: Sequence[str], requests: int
) -> Latency:
    """Milliseconds: one prefill of `messages`, then p50 and p95 over `requests` single requests, `inputs` in turn."""
    prefill_ms = _milliseconds(lambda: student.prefill(messages))
    turn = [inputs[i % len(inputs)] for i in range(WARM_UP + requests)]
    taken = [_milliseconds(partial(student.score, messages, [text], labels)) for text in turn][WARM_UP:]
    p50, p95 = np.percentile(taken, [50, 95])
    return Latency(p50_ms=float(p50), p95_ms=float(p95), prefill_ms=prefill_ms, requests=requests)


def machine() -> str:
    """Processor, cores and memory in words; no name or address of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def _milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )
