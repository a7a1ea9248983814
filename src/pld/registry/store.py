"""Connects to MLflow: chooses the tracking URI, sets up a fresh database, locks it, and translates its errors."""

import contextlib
import getpass
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pld.errors import RegistryError

URI_VARIABLE = "MLFLOW_TRACKING_URI"
ROOT_VARIABLE = "DVC_ROOT"  # set by DVC in a stage; the main repository's even in a --temp or --queue workspace
EXPERIMENT_VARIABLES = ("DVC_EXP_NAME", "DVC_EXP_BASELINE_REV")  # both set by DVC inside `dvc exp run`
DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
_REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")
_SQLITE = "sqlite:///"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


@dataclass(frozen=True)
class Store:
    """A connected MLflow: `client` is an `MlflowClient`, `artifacts` the folder for new experiments' artifacts (None:
    the server chooses it)."""

    uri: str
    root: Path
    client: Any
    artifacts: Path | None
    lock: Any = field(repr=False)

    @property
    def shown(self) -> str:
        """The URI without its password."""
        return _without_password(self.uri)

    def must_answer(self) -> None:
        """Raise MLflow's error if the store itself is unreachable; a missing artifact alone raises nothing here."""
        self.client.search_experiments(max_results=1)

    def how_to_open(self) -> str:
        """How a person opens the MLflow UI of this store."""
        if self.uri == _SQLITE + str(self.root / DATABASE):
            return "`make ui`"
        if urlsplit(self.uri).scheme in ("http", "https"):
            return f"open {self.shown}"
        return f"`mlflow ui --backend-store-uri '{self.shown}'`"


def project_root() -> Path:
    """The main repository: DVC_ROOT, or the current folder."""
    return Path(os.environ.get(ROOT_VARIABLE) or Path.cwd()).resolve()


def dvc_experiment() -> str | None:
    """The name of the DVC experiment that this process runs in, or None."""
    return next((os.environ[name] for name in EXPERIMENT_VARIABLES if os.environ.get(name)), None)


def tracking_uri(configured: str | None, root: Path) -> str:
    """MLFLOW_TRACKING_URI, else `configured` (tracking.uri), else sqlite beside the project.

    A relative sqlite path is resolved against `root`, because a DVC experiment's workspace is deleted.
    """
    chosen = os.environ.get(URI_VARIABLE) or configured or _SQLITE + DATABASE
    if chosen.startswith(_SQLITE):
        return _SQLITE + str(root / chosen.removeprefix(_SQLITE))
    scheme = urlsplit(chosen).scheme
    if scheme in ("", "file"):
        raise RegistryError(
            f"expected a server (http://…) or a database (sqlite:///…), got the folder {chosen!r}, which MLflow 3 "
            f"no longer writes to (tracking.uri (or {URI_VARIABLE})); use sqlite:///{DATABASE}"
        )
    return chosen


def connect(configured: str | None) -> Store:
    """Connect to the store, and create the tables of a fresh database. Raises RegistryError."""
    _quiet()
    from filelock import FileLock

    root = project_root()
    uri = tracking_uri(configured, root)
    file = Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None
    beside = file.parent if file else root
    beside.mkdir(parents=True, exist_ok=True)
    # with a server, it locks out only processes of this checkout
    lock = FileLock(beside / f"{file.name if file else DATABASE}.lock")
    local = urlsplit(uri).scheme.partition("+")[0] in _DATABASES
    artifacts = beside / ARTIFACTS if local else None
    with translated(uri), lock:
        import mlflow

        if artifacts is not None:
            _set_up(uri, artifacts)
        _use(uri)
        client = mlflow.MlflowClient(tracking_uri=uri)
        store = Store(uri=uri, root=root, client=client, artifacts=artifacts, lock=lock)
        store.must_answer()
    return store


def experiment_id(store: Store, task: str) -> str:
    """The id of the experiment `pld/<task>`, created if it does not exist."""
    from mlflow.exceptions import MlflowException

    name = f"pld/{task}"
    found = store.client.get_experiment_by_name(name)
    if found is None:
        place = (store.artifacts / name).as_uri() if store.artifacts else None
        try:
            return str(store.client.create_experiment(name, artifact_location=place))
        except MlflowException:
            found = store.client.get_experiment_by_name(name)  # another machine was first
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise RegistryError(
            f"expected the experiment {name}, got it deleted ({store.shown}); run `mlflow experiments restore "
            f"--experiment-id {found.experiment_id}`"
        )
    return str(found.experiment_id)


def user_name() -> str:
    """The name of the user's account; a container's user may have none."""
    with contextlib.suppress(KeyError, OSError):
        return getpass.getuser()
    return "unknown"


def store_is_there(configured: str | None) -> bool:
    """Whether the sqlite file exists; a server or other database is assumed to. Creates nothing."""
    uri = tracking_uri(configured, project_root())
    return not uri.startswith(_SQLITE) or Path(uri.removeprefix(_SQLITE)).exists()


@contextlib.contextmanager
def translated(uri: str, and_then: str = "") -> Iterator[None]:
    """Turn errors of MLflow and the database into a one-line RegistryError that ends in `and_then`."""
    try:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (MlflowException, SQLAlchemyError, OSError) as error:
        if getattr(error, "error_code", "") in _REFUSALS:  # it does answer
            raise RegistryError(
                f"expected values that MLflow takes, got: {_without_password(uri, first_line(error)):.400} "
                f"({_without_password(uri)})"
            ) from None
        raise RegistryError(
            f"expected an MLflow store that answers, got: {_without_password(uri, first_line(error)):.400} "
            f"({_without_password(uri)}); check {URI_VARIABLE} and tracking.uri{and_then}"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of an error message."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _use(uri: str) -> None:
    """Set the URI for MLflow's module-level functions, but not MLFLOW_TRACKING_URI, which MLflow sets along with it."""
    import mlflow

    before = os.environ.get(URI_VARIABLE)
    mlflow.set_tracking_uri(uri)
    if before is None:
        os.environ.pop(URI_VARIABLE, None)
    else:
        os.environ[URI_VARIABLE] = before


def _set_up(uri: str, artifacts: Path) -> None:
    """Create the tables of a fresh database. MLflow's own default would put artifacts into the current folder."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    SqlAlchemyStore(uri, artifacts.as_uri())


def _quiet() -> None:
    """Turn off telemetry, progress bars and INFO lines, and retry less; variables that the user has set stay."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    level = os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(level)


def _without_password(uri: str, text: str | None = None) -> str:
    """`text` (default: the URI itself) without the URI's password."""
    password = urlsplit(uri).password
    text = uri if text is None else text
    return text.replace(f":{password}@", ":…@") if password else text
