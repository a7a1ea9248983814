"""A project folder with artifacts, and a real MLflow on sqlite in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pld.adapters.tracking.store import Store, connect


@pytest.fixture(scope="session")
def fresh_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, made once: its migrations take seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    connect(f"sqlite:///{folder / 'mlflow.db'}")
    return folder / "mlflow.db"


@pytest.fixture
def store(project: Path, fresh_database: Path) -> Iterator[Store]:
    shutil.copy(fresh_database, project / "mlflow.db")
    return connect(None)
