"""A registered version behind `mlflow models serve`: `python bench/serving.py` (into bench/results.md;
--print, --quick).

1. load: clients that ask one text after the other, 1, 4 and 16 at a time, and one that asks many texts at once.
2. restart: 16 clients ask while the server is ended (SIGTERM) and started again; no answer may be lost, doubled or
   wrong.

Clients and server share the machine.
"""

import argparse
import datetime
import http.client
import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from report import grid, put
from workload import sentences, system_prompt

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "bench/results.md"
sys.path.insert(0, str(ROOT / "tests"))

CLIENTS = (1, 4, 16)
MANY = 64  # texts of one request
PROMPT_TOKENS = 500
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Load:
    """`clients` at once: seconds of each request of `texts` texts, and of all."""

    clients: int
    texts: int
    taken: Sequence[float]
    seconds: float


@dataclass
class Kept:
    """What the clients saw while the server was away: texts and their answers; how often a connection was refused, and
    how often one was cut before its answer."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    refused: int = 0
    cut: int = 0
    away_s: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/serving.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--print", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--quick", action="store_true", help="the small Student and few requests; printed")
    parser.add_argument("--student", default="qwen2.5-coder-0.5b", help="an option of conf/student")
    parser.add_argument("--requests", type=int, default=200, help="of each number of clients")
    options = parser.parse_args(arguments)
    student, requests = ("smollm2-135m", 32) if options.quick else (options.student, options.requests)
    with tempfile.TemporaryDirectory(prefix="bench-serving-") as scratch:
        text = f"{_stamp(student, arguments)}\n\n{measured(Path(scratch), student, requests)}"
    if options.print or options.quick:
        print(text)
    else:
        put(DOCUMENT, "serving", text)
    return 0


def measured(scratch: Path, student: str, requests: int) -> str:
    """Both tables."""
    from support.model_server import ModelServer

    log = scratch / "served.jsonl"
    _register(scratch, student)
    server = ModelServer(scratch, PLD_SERVING_LOG=str(log))
    server.start()
    try:
        texts = list(islice(sentences(1), requests))
        runs = [loaded(server, texts, clients) for clients in CLIENTS]
        runs.append(loaded(server, texts, 1, per_request=min(MANY, requests)))
        expected = {text: server.ask({"inputs": [text]})[1]["predictions"][0] for text in texts}
        before = log.read_bytes().count(b"\n")
        kept = restarted(server, expected, clients=CLIENTS[-1])
        logged = log.read_bytes().count(b"\n") - before
    finally:
        server.end()
    return f"{_load_table(runs)}\n\n{_restart_text(kept, expected, logged)}"


def loaded(server: Any, texts: Sequence[str], clients: int, per_request: int = 1) -> Load:
    """Each of `texts` asked once, by `clients` that each keep a connection and ask as soon as they are answered."""
    from support.model_server import ask

    asked = [texts[start : start + per_request] for start in range(0, len(texts), per_request)]
    rest, lock = iter(asked), threading.Lock()

    def client(_number: int) -> list[float]:
        taken = []
        with server.connection() as connection:
            ask(connection, {"inputs": [texts[0]]})  # the connection, and a thread of the server's
            ready.wait()
            while True:
                with lock:
                    if (inputs := next(rest, None)) is None:
                        return taken
                started = time.perf_counter()
                status, found = ask(connection, {"inputs": inputs})
                taken.append(time.perf_counter() - started)
                if status != 200 or len(found["predictions"]) != len(inputs):
                    raise AssertionError(f"expected {len(inputs)} answers, got status {status}: {found}")

    ready = threading.Barrier(clients + 1)
    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        ready.wait()
        started = time.perf_counter()
        taken = [one for run in running for one in run.result()]
        return Load(clients, per_request, taken, time.perf_counter() - started)


def restarted(server: Any, expected: Mapping[str, Answer], clients: int) -> Kept:
    """`expected` (text → its answer): every text is asked until it is answered, while the server is ended in the midst
    of them and started again. A text is asked again only where there was no answer: that it be answered twice or by
    something else would be told."""
    from support.model_server import ask

    kept, lock = Kept(), threading.Lock()
    rest = iter(expected)
    some = threading.Event()

    def client(_number: int) -> None:
        while True:
            with lock:
                if (text := next(rest, None)) is None:
                    return
            while True:
                try:
                    with server.connection() as connection:
                        status, found = ask(connection, {"inputs": [text]})
                except ConnectionRefusedError:
                    with lock:
                        kept.refused += 1
                    time.sleep(0.05)
                except (OSError, http.client.HTTPException):
                    with lock:
                        kept.cut += 1
                    time.sleep(0.05)
                else:
                    with lock:
                        kept.statuses[status] += 1
                        kept.answers.setdefault(text, []).extend(found.get("predictions", [found]))
                        if len(kept.answers) >= len(expected) // 4:
                            some.set()
                    break

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client, number) for number in range(clients)]
        some.wait(timeout=120)
        started = time.perf_counter()
        server.end()
        server.start()
        kept.away_s = time.perf_counter() - started
        for run in running:
            run.result()
    return kept


def wrong(kept: Kept, expected: Mapping[str, Answer]) -> list[str]:
    """Texts that have not exactly their one answer."""
    return [text for text in expected if kept.answers.get(text) != [expected[text]]]


def _register(scratch: Path, name: str) -> None:
    from pld.config.build import build
    from support.artifact_tree import composed
    from support.mails import LABELS
    from support.model_server import registered

    section = yaml.safe_load((ROOT / f"conf/student/{name}.yaml").read_text(encoding="utf-8"))
    os.chdir(ROOT)
    prompt = system_prompt(PROMPT_TOKENS, build(section, "student").count_text_tokens, LABELS, seed=0)
    registered(scratch, composed().model_copy(update={"student": section}), prompt)


def _load_table(runs: Sequence[Load]) -> str:
    rows = []
    for run in runs:
        p50, p95, p99 = (f"{1000 * value:,.0f}" for value in np.percentile(run.taken, [50, 95, 99]))
        texts = run.texts * len(run.taken) / run.seconds
        rows.append([str(run.clients), str(run.texts), str(len(run.taken)), f"{texts:.1f}", p50, p95, p99])
    head = ["clients", "texts a request", "requests", "texts a second", "p50, ms", "p95, ms", "p99, ms"]
    return grid(head, rows)


def _restart_text(kept: Kept, expected: Mapping[str, Answer], logged: int) -> str:
    lost = wrong(kept, expected)
    if lost or logged != len(expected) or set(kept.statuses) != {200}:
        raise AssertionError(
            f"expected one right answer to each of {len(expected)} texts, got {len(lost)} without, {logged} logged "
            f"by the server, statuses {json.dumps(kept.statuses)}"
        )
    return (
        f"Restart (SIGTERM, wait, start) under {CLIENTS[-1]} clients: {len(expected)} texts, each with exactly one "
        f"answer, the one it had before; {logged} answers in the server's log. {kept.away_s:.1f} s from the signal to "
        f"the first answer; {kept.refused:,} connections refused and {kept.cut} cut before an answer, asked again by "
        "the clients."
    )


def _stamp(student: str, arguments: Sequence[str]) -> str:
    from pld.evaluate.latency import machine

    command = " ".join(["python bench/serving.py", *arguments])
    return (
        f"{datetime.date.today().isoformat()}, `{command}`: {machine()}, load {os.getloadavg()[0]:.1f} when it began; "
        f"{student}, a prompt of {PROMPT_TOKENS} tokens, texts of about 30."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
