"""`pld ui` starts MLflow's server, and takes it down with it, whoever ends it."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pld.artifacts import write_text
from pld.cli import ui as module
from pld.cli.main import main, pld
from support.artifact_tree import composed

# Uvicorn's workers are grandchildren of MLflow, and this one does not end when asked
SERVER = """
import signal, subprocess, sys, time
if sys.argv[1] == "worker":
    import socket
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.create_server(("127.0.0.1", int(sys.argv[2]))):
        print("up", flush=True)
        time.sleep(60)
subprocess.call([sys.executable, *sys.argv[:1], "worker", sys.argv[2]])
"""
SERVE = """
import os, sys
from pld.cli import ui
ui._PATIENCE_S = 0.5
sys.exit(ui._serve([sys.executable, *sys.argv[1:]], dict(os.environ)))
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 0)],
    ids=lambda value: str(value),
)
def test_the_servers_processes_end_with_it_and_its_port_is_free(number, status, tmp_path):
    (tmp_path / "server.py").write_text(SERVER)
    port = free_port()
    started = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(tmp_path / "server.py"), "server", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout.readline() == "up\n"
    started.send_signal(number)
    assert started.wait(timeout=20) == status
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_server_that_ends_by_itself_gives_its_status():
    assert module._serve([sys.executable, "-c", "raise SystemExit(3)"], dict(os.environ)) == 3


@pytest.fixture
def configured(project):
    write_text(Path("artifacts/config.yaml"), yaml.safe_dump(composed().model_dump(mode="json")))


@pytest.mark.parametrize("port", ["99999", "0", "-1", "x"])
def test_a_port_that_cannot_be_is_refused(port, configured):
    result = CliRunner().invoke(pld, ["ui", "--port", port])
    assert result.exit_code == 2
    assert "Invalid value for '--port'" in result.output


@pytest.mark.slow
def test_a_port_in_use_is_told_before_a_server_starts(configured, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SystemExit) as caught:
        main(["ui", "--port", str(taken.getsockname()[1])])
    assert caught.value.code == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert "expected a free port" in said.err


@pytest.mark.slow
def test_mlflows_own_server_ends_on_sigterm(configured):
    port = free_port()
    started = subprocess.Popen([sys.executable, "-m", "pld.cli.main", "ui", "--port", str(port)])
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                assert answer.status == 200
            break
        except OSError:
            time.sleep(0.5)
    started.terminate()
    assert started.wait(timeout=30) == 143
    with socket.create_server(("127.0.0.1", port)):
        pass
