import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pld.errors import RegistryError
from pld.registry.store import Store, connect, experiment_id, store_is_there, tracking_uri

CONNECT = (
    "import sys; from pld.registry.store import connect, experiment_id;"
    "print(experiment_id(connect(None), 'mail'), 'mlflow.telemetry.client' in sys.modules)"
)


def test_the_default_is_sqlite_in_the_main_repository_also_from_a_temporary_workspace(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    workspace = tmp_path_factory.mktemp("queue")
    monkeypatch.setenv("DVC_ROOT", str(store.root))
    monkeypatch.chdir(workspace)
    there = connect(None)
    assert there.uri == f"sqlite:///{store.root / 'mlflow.db'}"
    place = there.client.get_experiment(experiment_id(there, "mail")).artifact_location
    assert place == (store.root / "mlartifacts/pld/mail").as_uri()
    assert list(workspace.iterdir()) == []


def test_the_variable_overrides_the_setting_and_the_setting_the_default(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_uri(None, project) == f"sqlite:///{project}/mlflow.db"
    assert tracking_uri("http://server:5000", project) == "http://server:5000"
    assert tracking_uri("sqlite:///shared/runs.db", project) == f"sqlite:///{project}/shared/runs.db"
    assert tracking_uri("sqlite:////elsewhere/runs.db", project) == "sqlite:////elsewhere/runs.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://other:5000")
    assert tracking_uri("http://server:5000", project) == "http://other:5000"


@pytest.mark.parametrize("folder", ["mlruns", "./mlruns", "file:///srv/mlruns"])
def test_a_folder_of_files_is_refused_with_what_to_use_instead(project: Path, folder: str) -> None:
    with pytest.raises(RegistryError, match=r"got the folder '.*mlruns'.*use sqlite:///mlflow.db"):
        connect(folder)


@pytest.mark.slow
def test_two_processes_can_make_a_fresh_database_at_once(project: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CONNECT], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    answers = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], answers
    assert answers[0][0].split()[0] == answers[1][0].split()[0], "one experiment, not two"
    assert [error for _, error in answers] == ["", ""], "MLflow and Alembic say nothing"


def test_a_store_that_is_not_there_is_seen_without_making_it(project: Path) -> None:
    assert not store_is_there(None)
    assert not store_is_there("sqlite:///other/runs.db")
    assert store_is_there("http://127.0.0.1:9"), "only a sqlite file can be missing"
    assert list(project.iterdir()) == []
    (project / "mlflow.db").touch()
    assert store_is_there(None)


def test_telemetry_is_off(store: Store) -> None:
    from mlflow.telemetry.utils import MLFLOW_DISABLE_TELEMETRY

    assert MLFLOW_DISABLE_TELEMETRY.get() is True


def test_a_server_that_does_not_answer_is_one_line_without_the_password(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    started = time.monotonic()
    with pytest.raises(RegistryError) as caught:
        connect("http://me:secret@127.0.0.1:9")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "(http://me:…@127.0.0.1:9); check MLFLOW_TRACKING_URI" in str(caught.value)
    assert time.monotonic() - started < 30


def test_a_deleted_experiment_is_named_with_the_command_that_brings_it_back(store: Store) -> None:
    number = experiment_id(store, "mail")
    store.client.delete_experiment(number)
    with pytest.raises(RegistryError, match=rf"mlflow experiments restore --experiment-id {number}"):
        experiment_id(store, "mail")


def test_how_to_open_fits_the_store(store: Store, project: Path) -> None:
    assert store.how_to_open() == "`make ui`"
    other = Store("sqlite:////x/runs.db", project, None, None, None)
    assert other.how_to_open() == "`mlflow ui --backend-store-uri 'sqlite:////x/runs.db'`"
    assert Store("http://u:p@h:1", project, None, None, None).how_to_open() == "open http://u:…@h:1"
