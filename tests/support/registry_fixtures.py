"""A project folder with artifacts, and a real MLflow on sqlite in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pld.registry.registry import Registry
from pld.registry.store import Store, connect
from support.shelf import BETTER, WORSE, register


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


@pytest.fixture(scope="session")
def filled_shelf(fresh_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with three versions: 2 is production, 1 is previous, and 3, which is worse, the candidate."""
    folder = tmp_path_factory.mktemp("shelf")
    shutil.copy(fresh_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store = connect(None)
        register(store, right=0.7)
        register(store, prompt=BETTER)
        register(store, prompt=WORSE, right=0.4)
    for name in ("artifacts", "mlartifacts"):
        shutil.copytree(folder / name, folder / f"kept/{name}")
    shutil.copy(folder / "mlflow.db", folder / "kept/mlflow.db")
    return folder


@pytest.fixture
def shelf(filled_shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """That project, as it was filled, as the current folder."""
    monkeypatch.chdir(filled_shelf)
    put_back(filled_shelf)
    return Registry(connect(None), "mail")


def put_back(folder: Path) -> None:
    shutil.copy(folder / "kept/mlflow.db", folder / "mlflow.db")
    for name in ("artifacts", "mlartifacts"):
        shutil.rmtree(folder / name)
        shutil.copytree(folder / "kept" / name, folder / name)
