import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _nothing_of_this_machine(monkeypatch):
    """No key, no store and no address of whoever runs the tests; paths relative to the project."""
    for name in os.environ:
        if name.startswith(("ANTHROPIC_", "MLFLOW_", "DVC_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    os.chdir(ROOT)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The current folder, empty: a project of which a test writes what it needs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
