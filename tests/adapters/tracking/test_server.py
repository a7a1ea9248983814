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

import pytest

from pld.adapters.tracking.registry import Registry
from pld.adapters.tracking.result import read_result
from pld.adapters.tracking.runs import log_result
from pld.adapters.tracking.store import connect
from support.artifact_tree import PROMPT, write_artifacts


@pytest.fixture
def server(project: Path, fresh_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
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
    standing = registry.settle(result, logged.run_id)
    assert (standing.version, standing.alias) == (1, "production")
    assert store.client.get_prompt_version_by_alias("pld-mail-prompt", "production").template == PROMPT
    assert [sorted(version.aliases) for version in registry.versions()] == [["production"]]
    assert not log_result(store, result).new
    assert not (project / "mlartifacts").exists(), "artifacts went through the server"
    assert store.how_to_open() == f"open {server}"
