"""A real MLflow on sqlite in a project folder, with made-up versions, without the hundred runs that `track` logs."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from pld.artifacts import SHIPS
from pld.config.settings import load_config
from pld.params import Config
from pld.registry import packaging
from pld.registry.registry import Outcome, Registry
from pld.registry.result import PipelineResult, read_result
from pld.registry.store import Store, connect, experiment_id
from pld.registry.versions import Version
from support.artifact_tree import write_artifacts
from support.stories import PROMPT

# what filled_shelf makes
AS_FILLED = {"production": 2, "previous": 1, "candidate": 3}
BETTER, WORSE = PROMPT + "- thanks: praise\n", PROMPT + "- anything: praise\n"


def register(store: Store, **changes: Any) -> Outcome:
    """Write artifacts with some changes, and ask for promotion, as `track` does.

    The copy of the package that travels with a model is replaced by a small folder: nobody loads the model.
    """
    write_artifacts(Path("artifacts"), **changes)
    result = read_result(load_config())
    with mock.patch.object(packaging, "_PACKAGE", Path(__file__).parent / "no_network"):
        return Registry(store, result.report.task).register_and_promote(result, measured(store, result))


def measured(store: Store, result: PipelineResult) -> str:
    """A run with the part of a result's run that the registry reads."""
    run = str(store.client.create_run(experiment_id(store, result.report.task)).info.run_id)
    store.client.log_artifacts(run, str(result.folder / "evaluation"), "evaluation")
    store.client.log_artifact(run, str(result.folder / SHIPS / "instructions.jsonl"))
    return run


def aliases(registry: Registry) -> dict[str, int]:
    """The model's, after the repair that opens the registry; the prompt's must be the same versions."""
    versions = {version.number: version for version in registry.versions()}
    found = {alias: version.number for version in versions.values() for alias in version.aliases}
    client = registry.store.client
    for alias, number in found.items():
        prompt = client.get_prompt_version_by_alias(registry.prompt, alias)
        assert prompt.tags["pld.prompt_sha256"] == versions[number].prompt_sha256, "the prompt's aliases are in step"
    return found


def raw_aliases(registry: Registry) -> dict[str, int]:
    """The model's, without opening the registry, which would finish an interrupted move."""
    found = registry.store.client.get_registered_model(registry.model).aliases
    return {alias: int(number) for alias, number in found.items()}


def of(registry: Registry, number: int) -> Version:
    return next(version for version in registry.versions() if version.number == number)


def with_gates(**changes: Any) -> Config:
    config = load_config()
    return config.model_copy(update={"promotion": config.promotion.model_copy(update=changes)})


def any_gates() -> Config:
    """Without the gates that compare figures."""
    return with_gates(better_than_zero_shot=False, rivals=(), not_worse_than_production=False)


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
