import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from pld.cli.main import COMMANDS, main, pld
from pld.cli.reference import reference

HEAVY = (
    "torch",
    "transformers",
    "mlflow",
    "dvc",
    "umap",
    "hdbscan",
    "optuna",
    "anthropic",
    "sklearn",
    "pandas",
    "hydra",
)


def test_help_answers_at_once_and_imports_nothing_heavy():
    code = "import sys; from pld.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    started = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    assert time.monotonic() - started < 2  # well under a second alone; the bound is for a busy machine


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_is_there_and_explains_itself(name):
    result = CliRunner().invoke(pld, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 3


def test_an_error_of_ours_is_one_line_and_exit_status_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["summary"])
    assert caught.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_reference_page_is_what_the_code_says():
    assert Path("docs/reference.md").read_text() == reference(), "run `make docs`"
