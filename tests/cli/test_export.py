import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pld.artifacts import write_text
from pld.cli.main import main, pld
from pld.distill.render import prompt_messages
from pld.records import Calibration, sha256
from pld.registry import release
from pld.serving.export import FORMATS
from pld.serving.model import Release, ServedSpec
from support.artifact_tree import composed, write_artifacts
from support.mails import LABELS, TASK
from support.modelfile import parse_modelfile
from support.stories import PROMPT

ODD = ' leading, "quoted" \\ {{ curly }} 漢字\r\n\n'


def ran(*arguments):
    return CliRunner().invoke(pld, ["export", *arguments], catch_exceptions=False)


def fails(capsys, *arguments):
    with pytest.raises(SystemExit):
        main(["export", *arguments])
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    return told.err


@pytest.fixture(autouse=True)
def no_tokenizer(monkeypatch):
    """Loading one takes seconds."""
    monkeypatch.setattr("pld.cli.export.label_tokens", lambda release, format: None)


@pytest.fixture
def released(monkeypatch):
    """A registered version, calibrated, as the registry would read it back."""
    calibration = Calibration(method="batch", labels=LABELS, scale=1.0, bias=(1.0, 2.0, 3.0), examples=9)
    spec = ServedSpec(
        task=TASK.bare,
        student={"model": "org/model"},
        calibration=calibration,
        prompt_sha256=sha256("registered"),
        prompt_version="7",
    )
    asked = []

    def fetch(config, wanted):
        asked.append(wanted)
        return Release(spec, prompt_messages("registered"), "pld-mail", 3, frozenset({"production"}))

    monkeypatch.setattr(release, "fetch_release", fetch)
    return asked


def test_text_is_the_prompt_that_ships_and_not_a_byte_more(project):
    write_artifacts(project / "artifacts", prompt=ODD)
    done = subprocess.run([sys.executable, "-m", "pld.cli.main", "export"], capture_output=True, check=True)
    assert done.stdout == ODD.encode()
    assert done.stderr == b"pld: --format json has the input template, the labels and the calibration too\n"


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_gets_what_the_standard_output_would(project, format):
    write_artifacts(project / "artifacts", prompt=ODD)
    printed = ran("--format", format).stdout_bytes
    assert ran("--format", format, "--out", "deep/folder/out").stdout_bytes == b""
    assert Path("deep/folder/out").read_bytes() == printed
    assert printed


def test_a_version_is_exported_by_alias_or_number_and_says_which_it_is(project, released):
    write_artifacts(project / "artifacts")
    for arguments in (["--alias", "production"], ["--version", "3"]):
        assert ran(*arguments).stdout_bytes == b"registered"
    assert released == ["production", "3"]
    done = ran("--alias", "production", "--format", "openai")
    found = json.loads(done.stdout)
    assert (found["model"], found["version"], found["prompt_version"]) == ("pld-mail", 3, "7")
    assert found["body"]["model"] == "org/model"
    assert "calibration: lost, because a label is not a single token" in done.stderr
    assert json.loads(ran("--alias", "production", "--format", "json").stdout)["calibration"]["examples"] == 9
    both = ran("--alias", "production", "--version", "3")
    assert (both.exit_code, "got both" in both.output) == (2, True)


def test_what_ships_calibrated_is_exported_with_its_calibration(project):
    batch = composed().calibration.model_copy(update={"method": "batch"})
    write_artifacts(project / "artifacts", composed().model_copy(update={"calibration": batch}))
    assert json.loads(ran("--format", "json").stdout)["calibration"]["bias"] == [1.0, 1.1, 0.9]
    assert "calibration: " in ran("--format", "vllm").stderr


def test_the_runtime_s_name_for_the_model_goes_where_the_runtime_looks(project):
    write_artifacts(project / "artifacts")
    assert dict(parse_modelfile(ran("--format", "ollama", "--model", "qwen2.5:3b").stdout))["from"] == "qwen2.5:3b"
    assert json.loads(ran("--format", "anthropic", "--model", "m").stdout)["body"]["model"] == "m"
    assert "'smollm2-135m' is the name of a local asset" in ran("--format", "openai").stderr


@pytest.mark.parametrize("file", ["review/review.json", "evaluation/report.json"])
def test_a_prompt_that_is_not_the_one_that_was_let_pass_or_evaluated_is_not_exported(project, capsys, file):
    write_artifacts(project / "artifacts")
    text = Path("artifacts", file).read_text().replace(sha256(PROMPT), sha256("another"))
    write_text(Path("artifacts", file), text)
    told = fails(capsys)
    assert f"expected the prompt of artifacts/{file} (sha256 {sha256('another')[:12]})" in told


def test_a_prompt_that_is_no_utf8_is_one_line(project, capsys):
    write_artifacts(project / "artifacts")
    Path("artifacts/review/final/system_prompt.md").write_bytes(b"\xff\xfe")
    told = fails(capsys)
    assert "expected UTF-8, got " in told
    assert "(artifacts/review/final/system_prompt.md)" in told


def test_a_refused_export_leaves_the_file_as_it_was(project, capsys):
    write_artifacts(project / "artifacts", prompt="zero\u200bwidth")
    write_text(Path("Modelfile"), "kept")
    told = fails(capsys, "--format", "ollama", "--out", "Modelfile")
    assert "got U+200B, which it drops (export as ollama); nothing was written" in told
    assert Path("Modelfile").read_text() == "kept"


def test_it_is_imported_without_what_is_heavy():
    code = "import sys, pld.cli.export; print([n for n in sys.modules if n.startswith(('mlflow', 'torch', 'numpy'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
