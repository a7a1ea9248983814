import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from pld.cli.main import COMMANDS, main, pld

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


def test_help_is_instant_and_imports_nothing_heavy():
    code = "import sys; from pld.cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules])"
    started = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"
    assert time.monotonic() - started < 2  # well under a second alone; the bound is for a busy machine


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_help_page(name):
    result = CliRunner().invoke(pld, [name, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()) > 3


def test_a_pld_error_prints_one_line_and_exits_with_status_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["summary"])
    assert caught.value.code == 1
    assert capsys.readouterr().err.count("\n") == 1
