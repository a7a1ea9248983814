"""A registered version behind the real `mlflow models serve`, on loopback."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pld.params import Config
from pld.stages.track import track
from support.artifact_tree import write_artifacts
from support.stories import PROMPT

MODEL = "pld-mail"


def registered(folder: Path, config: Config, prompt: str = PROMPT) -> None:
    """A project in `folder`, its made-up artifacts in its own store, the version in production."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder):
        track(write_artifacts(Path("artifacts"), config, prompt=prompt))


class ModelServer:
    """Serves a project's production version. One port for its life, so that it can be ended and started again."""

    def __init__(self, project: Path, model: str = MODEL, **environment: str) -> None:
        self.port = _free_port()
        self.log = project / "server.log"
        self._project, self._model = project, model
        self._environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": f"sqlite:///{project / 'mlflow.db'}",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers /ping."""
        command = ["mlflow", "models", "serve", "-m", f"models:/{self._model}@production", "--env-manager", "local"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port)],
                cwd=self._project, env=self._environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.get("/ping")[0] == 200:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"expected a server that answers, got: {self.log.read_text()}")
            time.sleep(0.05)

    def end(self) -> None:
        """SIGTERM to the command that a person started, as a supervisor sends it; returns when all of it has gone."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()
        deadline = time.monotonic() + 60
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:  # mlflow itself goes at once; uvicorn, its child, later
                os.killpg(self._process.pid, 0)
                time.sleep(0.01)
            os.killpg(self._process.pid, signal.SIGKILL)
            raise AssertionError("expected the server to end, got it there after 60 s")

    def get(self, path: str) -> tuple[int, str]:
        with self.connection() as connection:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode()

    def ask(self, body: Any, content_type: str | None = "application/json") -> tuple[int, Any]:
        """Status and JSON of a request to /invocations; a body that is neither text nor bytes is sent as JSON."""
        with self.connection() as connection:
            return ask(connection, body, content_type)

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            yield connection


def ask(connection: http.client.HTTPConnection, body: Any, content_type: str | None = "application/json") -> Any:
    text = body if isinstance(body, str | bytes) else json.dumps(body)
    headers: Mapping[str, str] = {} if content_type is None else {"Content-Type": content_type}
    connection.request("POST", "/invocations", text.encode() if isinstance(text, str) else text, dict(headers))
    reply = connection.getresponse()
    return reply.status, json.loads(reply.read())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
