"""Batches at a service that misbehaves on command: is the outcome that of a calm day?

`run_batch_faults` is used with few requests by the tests, and with 1,000 by bench/teacher.py.
"""

import contextlib
import json
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore
from pld.adapters.teachers.paid_teacher import Terms
from pld.config.assets import cache_folder
from pld.params import BudgetParams
from support.anthropic_server import AnthropicServer, answer
from support.batch_desk import BatchDesk, wait_until
from support.batch_run import requests, start, teacher, warm_up
from support.local_server import Body, Reply

DOWN_S = 1.5
KILLS = 20
KILLED_WITHIN = 2.4  # times the undisturbed run, divided by the kills: what was done is done, and starting takes time
BATCHES = 10
KINDS = ("doubled", "expired", "errored", "cut", "unconfirmed", "dies", "kill")
"""doubled: every result twice, in random order; expired, errored: a twentieth of the requests, the first time; cut: the
results break off, twice for each batch; unconfirmed: no answer to a batch that was taken; dies: the port is closed for
a while, with all connections; kill: SIGKILL at random moments."""


@dataclass(frozen=True)
class BatchFaultRun:
    """`batches`: that the service took; `paid_twice`: requests that it charged again; `kills`: of the process, before
    the one that came to the end; `counted`: calls that the store knows of, those lost in killed runs included."""

    kind: str
    requests: int
    seconds: float
    overhead_s: float
    batches: int
    paid_twice: int
    counted: int
    kills: int
    same_answers: bool


def run_batch_faults(
    n: int, folder: Path, kinds: tuple[str, ...] = KINDS, pause_s: float = 0.15, kills: int = KILLS
) -> list[BatchFaultRun]:
    """Each kind alone, with a store of its own in `folder`, compared with an undisturbed run (the first of the list,
    kind `none`). Each is submitted as about ten batches; the service takes `pause_s` to confirm each, and again in the
    middle of its results."""
    warm_up()
    calm, expected = _run("none", n, folder, None, 0.0, pause_s, 0)
    return [calm, *(_run(kind, n, folder, expected, calm.seconds, pause_s, kills)[0] for kind in kinds)]


def _run(
    kind: str, n: int, folder: Path, expected: str | None, calm_s: float, pause_s: float, most_kills: int
) -> tuple[BatchFaultRun, str]:
    with _service(kind, folder) as server:
        server.desk.results_delay_s = pause_s
        server.desk.on_create = lambda number: time.sleep(pause_s) is None
        chance = random.Random(f"{kind} {n}")
        said_file = folder / kind / "said"
        _disturb(kind, server, chance)
        most = {"_MOST_REQUESTS": max(1, n // BATCHES)}
        began, kills = time.monotonic(), 0
        if kind == "kill":
            while kills < most_kills:
                said_file.unlink(missing_ok=True)
                run = start(n, said_file, **most)
                wait_until(said_file.exists)  # it has begun
                run.join(chance.uniform(0.0, KILLED_WITHIN * calm_s / most_kills))
                if run.exitcode is not None:
                    break
                run.kill()
                run.join()
                kills += 1
        last = start(n, said_file, **most)
        last.join()
        seconds = time.monotonic() - began
        said = said_file.read_text(encoding="utf-8")
        assert last.exitcode == 0, said
        taken = len(server.desk.batches)
        found = teacher(Terms("t", BudgetParams(usd=None, calls=None), None)).ask(requests(n))
        text = json.dumps({one.key: one.content for one in sorted(found, key=lambda one: int(one.key))})
        assert len(server.desk.batches) == taken, "not everything was stored"
        spent = AnswerStore(cache_folder() / FILE_NAME).spent("t")
        row = BatchFaultRun(
            kind=kind,
            requests=n,
            seconds=round(seconds, 2),
            overhead_s=round(seconds - calm_s, 2) if expected else 0.0,
            batches=taken,
            paid_twice=sum(count - 1 for count in server.desk.paid.values()),
            counted=spent.all_calls,
            kills=kills,
            same_answers=text == (expected or text) and said.count("question") <= n,
        )
        return row, text


@contextlib.contextmanager
def _service(kind: str, folder: Path) -> Iterator[AnthropicServer]:
    def respond(body: Body, _: int) -> Reply:
        return answer({"rule": f"{body['messages'][0]['content']} is answered"})

    server = AnthropicServer(respond)
    (folder / kind).mkdir(parents=True)
    cache = str(folder / kind / "cache")
    environment = {"ANTHROPIC_BASE_URL": server.url, "ANTHROPIC_API_KEY": "test-key", "PLD_CACHE": cache}
    try:
        with patch.dict(os.environ, environment):
            yield server
    finally:
        server.close()


def _disturb(kind: str, server: AnthropicServer, chance: random.Random) -> None:
    desk = server.desk
    if kind == "doubled":

        def written(lines: list[str]) -> list[str]:
            both = lines * 2
            chance.shuffle(both)
            return both

        desk.written = written
    elif kind in ("expired", "errored"):
        desk.fate = _unlucky("expired" if kind == "expired" else "overloaded_error")
    elif kind == "cut":
        desk.cut_results = 2
    elif kind == "unconfirmed":
        desk.on_create = lambda number: False
    elif kind == "dies":
        threading.Thread(target=_die, args=(server, desk), daemon=True).start()


def _unlucky(fate: str) -> Callable[[str, int], str]:
    return lambda key, times: fate if times == 1 and int(key[:8], 16) % 20 == 0 else "succeeded"


def _die(server: AnthropicServer, desk: BatchDesk) -> None:
    wait_until(lambda: desk.batches)
    server.die()
    time.sleep(DOWN_S)
    server.come_back()
