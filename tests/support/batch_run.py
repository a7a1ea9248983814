"""Runs of an AnthropicTeacher in processes of their own, to be killed; a server with all imports done forks them."""

import multiprocessing
import os
import signal
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from pld.adapters.teachers import batches
from pld.adapters.teachers.anthropic import AnthropicTeacher
from pld.adapters.teachers.paid_teacher import Terms
from pld.params import BudgetParams
from pld.ports import TeacherRequest
from support.anthropic_server import claude

SCHEMA = {
    "type": "object",
    "properties": {"rule": {"type": "string"}},
    "required": ["rule"],
    "additionalProperties": False,
}
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["support.batch_run", "anthropic", "anthropic.types.messages", "httpx2", "jsonschema"])


def warm_up() -> None:
    """The first process takes seconds to start."""
    run = _FORKS.Process(target=int)
    run.start()
    run.join()


def requests(count: int, first: int = 0) -> list[TeacherRequest]:
    return [TeacherRequest(str(i), "extract", "the task", f"question {i}", SCHEMA) for i in range(first, first + count)]


def teacher(terms: Terms | None = None, **settings: Any) -> AnthropicTeacher:
    return claude(**{"way": "batches", "max_tokens": 50, "poll_s": 0.02, "terms": terms, **settings})


def start(count: int, said: Path, **constants: float) -> BaseProcess:
    """A process that asks `requests(count)` at the server and in the store that the environment names; what it prints
    goes to `said`: a line of "key rule" for each answer, and what is for stderr. `constants`: of batches.py."""
    environment = {name: os.environ[name] for name in ("ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "PLD_CACHE")}
    run = _FORKS.Process(target=_run, args=(count, str(said), environment, constants), daemon=True)
    run.start()
    return run


def _run(count: int, said: str, environment: dict[str, str], constants: dict[str, float]) -> None:
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
    for name, value in {"_SETTLE_S": 0.05, **constants}.items():
        setattr(batches, name, value)
    with Path(said).open("w", encoding="utf-8", buffering=1) as file, redirect_stdout(file), redirect_stderr(file):
        for answer in teacher(Terms("t", BudgetParams(usd=None, calls=None), None)).ask(requests(count)):
            assert answer.content
            print(answer.key, answer.content["rule"])
