"""Measures latency as served: one request at a time, warm, with the shared messages in the Student's cache."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from pld.artifacts import file_sha256, read_record
from pld.evaluate.systems import System
from pld.ports import Student
from pld.records import Example, Message
from pld.reports import Latency, LatencyReport

WARM_UP = 3
_ANYTHING = (Message(role="system", content="Answer."),)
NOT_MEASURED = "not measured on this machine; `dvc repro -f -s evaluate` measures it"


def time_prefill(system: System) -> float:
    """Milliseconds of one prefill of the shared messages from an empty cache, which keeps them; 0 without an LLM."""
    student = system.student
    if student is None:
        return 0.0
    student.prefill(_ANYTHING)  # loads the model if nobody has used it yet
    return _milliseconds(lambda: student.prefill(system.beginning))


def measure_latency(system: System, examples: Sequence[Example], requests: int, prefill_ms: float) -> Latency:
    """p50 and p95 in milliseconds over `requests` single requests (or `system.requests`), cycling through `examples`,
    from input fields to scores. `prefill_ms`: of `time_prefill`, whose cache the requests use."""
    requests = system.requests or requests
    warm_up = min(WARM_UP, requests // 8)  # fewer if requests are slow
    turn = [examples[i % len(examples)] for i in range(warm_up + requests)]
    taken = [_milliseconds(partial(system.answer, [example])) for example in turn][warm_up:]
    p50, p95 = np.percentile(taken, [50, 95])
    return Latency(p50_ms=float(p50), p95_ms=float(p95), prefill_ms=prefill_ms, requests=requests)


def report_sha256(folder: Path) -> str:
    """The hash that ties `folder`/evaluation/latency.json to the report whose systems were timed."""
    return file_sha256(folder / "evaluation/report.json")


def read_latency(folder: Path) -> LatencyReport:
    """What `evaluate` measured on this machine for the present report.

    DVC neither stores nor restores measured times, so after `dvc pull`, `dvc checkout` or `dvc exp apply` there may be
    none, or those of another report: then nothing is timed here.
    """
    path = folder / "evaluation/latency.json"
    if path.exists() and (found := read_record(path, LatencyReport)).report_sha256 == report_sha256(folder):
        return found
    return LatencyReport(machine=NOT_MEASURED, systems={})


def machine() -> str:
    """Processor, cores and memory; no name or address of the machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}"


def served_by(student: Student) -> str:
    """The machine and the Student's description."""
    return f"{machine()}; {', '.join(f'{key} {value}' for key, value in student.describe().items())}"


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
