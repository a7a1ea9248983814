"""Run each engine in its own process, so that threads, allocator and memory are separate."""

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


class BenchError(Exception):
    """The benchmark can't continue; the message is one line."""


class Worker:
    """`factory(*arguments)` in a new process; `call` runs one of its methods there.

    OpenMP's threads spin as `pld.adapters` lets them where `as_shipped`, else longer: on an idle machine as fast as by
    its defaults, and not ruined by a busy process beside it (docs/explanation/decisions.md has both measured).
    """

    def __init__(self, factory: Callable[..., Any], *arguments: Any, as_shipped: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._name = factory.__name__
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, as_shipped, factory, arguments))
        self._process.start()
        theirs.close()
        self._built = False

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, *arguments: Any) -> Any:
        if not self._built:
            self._built = True
            self._receive()
        self._connection.send((method, arguments))
        return self._receive()

    def with_peak(self, method: str, *arguments: Any) -> tuple[Any, float | None]:
        """`call`, and the process's peak memory in MiB meanwhile (None off Linux)."""
        self.call("give_back")
        process = Path(f"/proc/{self._process.pid}")
        if not (process / "clear_refs").exists():
            return self.call(method, *arguments), None
        (process / "clear_refs").write_text("5")  # resets the high-water mark
        answer = self.call(method, *arguments)
        lines = (process / "status").read_text().splitlines()
        return answer, next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024

    def close(self) -> None:
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.terminate()

    def _receive(self) -> Any:
        try:
            failed, value = self._connection.recv()
        except EOFError:
            raise BenchError(f"expected an answer, got the end of the process, out of memory? ({self._name})") from None
        if failed:
            raise BenchError(f"expected an answer, got {value} ({self._name})")
        return value


def _serve(connection: Connection, as_shipped: bool, factory: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    if not as_shipped:
        os.environ["GOMP_SPINCOUNT"] = "10000"
    engine: Any = None
    request: tuple[str, tuple[Any, ...]] | None = None
    while True:
        try:
            answer = (False, None)
            if request is None:
                engine = factory(*arguments)
            else:
                answer = (False, getattr(engine, request[0])(*request[1]))
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            answer = (True, f"{type(error).__name__}: {' '.join(str(error).split())}")
        try:
            connection.send(answer)
            request = connection.recv()
        except (EOFError, BrokenPipeError):
            return
