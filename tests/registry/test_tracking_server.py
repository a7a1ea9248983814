"""The same against a real MLflow server: another process, REST, artifacts through the server."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from pld.config.settings import load_config
from pld.errors import RegistryError
from pld.registry.registry import Registry
from pld.registry.release import fetch_release
from pld.registry.result import read_result
from pld.registry.runs import log_result
from pld.registry.store import connect
from support.artifact_tree import write_artifacts
from support.mails import TASK
from support.shelf import BETTER, WORSE, aliases, raw_aliases, register
from support.stories import PROMPT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(fresh_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("server")
    shutil.copy(fresh_database, home / "server.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{home / 'server.db'}"]
    command += ["--artifacts-destination", str(home / "kept"), "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--workers", "1"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, home / "log")
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, 15)
            process.wait(timeout=30)


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text())


def test_logging_and_promoting_work_through_a_server(server: str, project: Path) -> None:
    store = connect(server)
    registry = Registry(store, "mail")
    result = read_result(write_artifacts(project / "artifacts", groups=True))
    logged = log_result(store, result)
    outcome = registry.register_and_promote(result, logged.run_id)
    assert (outcome.version, outcome.alias) == (1, "production")
    assert store.client.get_prompt_version_by_alias("pld-mail-prompt", "production").template == PROMPT
    assert [sorted(version.aliases) for version in registry.versions()] == [["production"]]
    assert not log_result(store, result).new
    assert not (project / "mlartifacts").exists(), "artifacts went through the server"
    assert store.how_to_open() == f"open {server}"


class Wire:
    """What this process sends to the server; it is cut after some requests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left: int | None = None
        self.sent: list[str] = []  # the methods
        send = requests.Session.send

        def counted(session: Any, request: Any, **settings: Any) -> Any:
            if self._left is not None and len(self.sent) >= self._left:
                raise requests.exceptions.ConnectionError("the server is gone\nand more")
            self.sent.append(request.method)
            return send(session, request, **settings)

        monkeypatch.setattr(requests.Session, "send", counted)

    def cut_after(self, requests: int | None) -> None:
        self._left, self.sent = requests, []


def test_a_server_that_goes_away_between_any_two_requests_leaves_the_aliases_as_before_or_as_after(
    server: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    task = TASK.model_copy(update={"name": "letters"})
    store = connect(server)
    for changes in ({"right": 0.7}, {"prompt": BETTER}, {"prompt": WORSE, "right": 0.4}):
        register(store, task=task, **changes)
    registry = Registry(store, "letters")
    one, other = {"production": 2, "previous": 1, "candidate": 3}, {"production": 1, "previous": 2, "candidate": 3}
    assert aliases(registry) == one
    wire = Wire(monkeypatch)
    wire.cut_after(None)
    registry.rollback("to count its requests")
    writes = [n for n, method in enumerate(wire.sent) if method != "GET"]
    assert raw_aliases(registry) == other
    ends = []
    for sent in (0, *range(8, writes[0], 3), *writes):  # between two writes nothing is changed
        before = raw_aliases(registry)
        after = one if before == other else other
        wire.cut_after(sent)
        with pytest.raises(RegistryError, match=r"expected an MLflow store .*the server is gone") as cut:
            registry.rollback()
        assert "\n" not in str(cut.value)
        wire.cut_after(None)
        half = raw_aliases(registry)
        assert half["production"] in (1, 2)
        capsys.readouterr()
        registry.versions()
        left = raw_aliases(registry)
        assert left in (before, after)
        assert ("finished a move" in capsys.readouterr().err) or left == half
        ends.append(left == after)
    assert aliases(registry) in (one, other), "and the prompt's are in step"
    moves = sum(ends)
    assert ends == sorted(ends), "from the request on that moves production, a move counts"
    assert 0 < moves < len(ends)
    assert [move.number for move in registry.history()] == list(range(1, 4 + moves))

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert fetch_release(load_config(), "candidate").prompt == WORSE
    outcome = registry.promote(load_config(), force="to look at it")
    assert outcome.alias == "production"
    assert registry.history()[-1].reason.startswith("to look at it (failed: ")
