"""`pld ui`: MLflow's own UI over the store that is configured."""

import os
import subprocess
import sys
from urllib.parse import urlsplit

from pld.errors import RegistryError
from pld.params import load_config
from pld.registry.store import connect


def serve_ui(port: int) -> None:
    """Serve the UI on 127.0.0.1:`port` until it is interrupted; a remote store has its own, whose address is said."""
    store = connect(load_config().tracking.uri)
    if urlsplit(store.uri).scheme in ("http", "https"):
        print(store.how_to_open())
        return
    command = [sys.executable, "-m", "mlflow", "server"]
    if store.artifacts is not None:
        command += ["--default-artifact-root", store.artifacts.as_uri()]
    print(f"http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # a variable, not an argument: a password in the URI would show in the list of processes
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": store.uri}
    # MLflow's queue of server-side jobs: not needed, and Ctrl-C makes each of its processes print a traceback
    environment.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    try:
        code = subprocess.call([*command, *place], env=environment)
    except KeyboardInterrupt:
        return
    if code > 0:
        raise RegistryError(f"MLflow's server ended with status {code}; is port {port} taken? try `pld ui --port N`")
