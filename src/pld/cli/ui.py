"""`pld ui`: MLflow's own UI over the configured store."""

import os
import subprocess
import sys
from urllib.parse import urlsplit

import click

from pld.errors import RegistryError


@click.command()
@click.option("--port", default=5000, show_default=True, help="Port on the loopback address.")
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
    click.echo(f"http://127.0.0.1:{port} (Ctrl-C ends it)")
    address = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # a variable, not an argument: a password in the URI would show in the list of processes
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri}
    # MLflow's queue of server-side jobs: not needed, and Ctrl-C makes each of its processes print a traceback
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    try:
        code = subprocess.call([*command, *address], env=environment)
    except KeyboardInterrupt:
        return
    if code > 0:
        raise RegistryError(f"MLflow's server ended with status {code}; is port {port} taken? try `pld ui --port N`")
