"""`pld ui`: MLflow's own UI over the configured store."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import click

from pld.errors import RegistryError

_PATIENCE_S = 5.0


@click.command()
@click.option(
    "--port", default=5000, type=click.IntRange(1, 65535), show_default=True, help="Port on the loopback address."
)
def ui(port: int) -> None:
    """Open the tracking store in the MLflow UI, on http://127.0.0.1:PORT, until Ctrl-C."""
    from pld.config.settings import load_config
    from pld.registry.store import connect

    store = connect(load_config().tracking.uri)
    if urlsplit(store.uri).scheme in ("http", "https"):
        click.echo(store.how_to_open())  # it serves its own UI
        return
    command = [sys.executable, "-m", "mlflow", "server"]
    if store.artifacts is not None:
        command += ["--default-artifact-root", store.artifacts.as_uri()]
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # a variable, not an argument: a password in the URI would show in the list of processes
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri}
    # MLflow's queue of server-side jobs: not needed, and Ctrl-C makes each of its processes print a traceback
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RegistryError(
                f"expected a free port, got {port} ({error.strerror}); name another one with `pld ui --port N`"
            ) from None
    click.echo(f"http://127.0.0.1:{port} (Ctrl-C ends it)")
    if code := _serve([*command, *address], environment):
        raise RegistryError(f"expected MLflow's server to run, got its status {code}; its reason stands above")


def _serve(command: list[str], environment: dict[str, str]) -> int:
    """Run `command` until it ends (its status) or a signal ends this process; none of its processes is left behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if before[number] != signal.SIG_IGN:  # `nohup` ignores SIGHUP
            signal.signal(number, _stopped)
    # a group of its own: MLflow starts Uvicorn, which starts workers, and a signal to MLflow alone leaves them
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        _end(server)
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped(number: int, _: object) -> None:
    sys.exit(128 + number)


def _end(server: subprocess.Popen[bytes]) -> None:
    """Ask the whole group of `server` to end, and kill what is left after `_PATIENCE_S`."""
    until = time.monotonic() + _PATIENCE_S
    with contextlib.suppress(ProcessLookupError):  # no process of the group is left
        os.killpg(server.pid, signal.SIGTERM)
        while time.monotonic() < until:
            time.sleep(0.05)
            server.poll()
            os.killpg(server.pid, 0)
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
