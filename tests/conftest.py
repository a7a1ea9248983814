import os
from pathlib import Path

import hypothesis
import pytest

# a busy machine is slow, not wrong
hypothesis.settings.register_profile("pld", deadline=None)
hypothesis.settings.load_profile("pld")

ROOT = Path(__file__).parent.parent
LONGEST = ("test_pipeline.py", "test_resolve.py", "test_student_bench.py")


def pytest_collection_modifyitems(items):
    """The longest files first: each is one worker's, which would be busy alone with it at the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


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
