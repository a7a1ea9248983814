"""No message repeats a secret, and no setting holds one."""

import shutil
from pathlib import Path

import pytest
import yaml

from pld.adapters.teachers.anthropic import AnthropicTeacher
from pld.errors import ConfigError, PldError, TeacherError
from pld.ports import TeacherRequest
from pld.redaction import redacted
from pld.stages import config
from support.anthropic_server import AnthropicServer, error
from support.project import ROOT, Project

KEY = "sk-ant-api03-Pl4nted/K3y+8f0c=2d1b"
OWN = "0f6c-9e27-no-shape-of-a-key"
SETTINGS = yaml.safe_load((ROOT / "conf/teacher/anthropic.yaml").read_text())
REQUEST = TeacherRequest(key="1", role="extract", system="s", prompt="p", schema={"type": "object"})


@pytest.fixture(autouse=True)
def _environment(monkeypatch, tmp_path):
    monkeypatch.setenv("PLD_TEACHER_API_KEY", OWN)
    monkeypatch.setenv("SIGNING_KEY_FILE", str(tmp_path / "signing"))
    monkeypatch.setenv("PLD_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (f"invalid key {OWN}", "invalid key <PLD_TEACHER_API_KEY>"),
        (f"found '{OWN[:15]}", "found '<PLD_TEACHER_API_KEY>"),  # cut off
        (f"found '{KEY}'", "found '<withheld>"),
        ("hf_abcdefghijklmnopqrstuv and ghp_abcdefghijklmnopqrstuv", "<withheld> and <withheld>"),
        ("glpat-abcdefghij_klmnopqrs", "<withheld>"),
        ("http://me:secret@host:1/v1 and http://token@host", "http://me:…@host:1/v1 and http://…@host"),
        ("teacher.model: sk-1 task-desk-force https://host/a@b me@host http://me:…@host", None),
    ],
)
def test_a_message_repeats_no_secret(said, kept, tmp_path):
    assert str(TeacherError(said)) == redacted(said) == (kept or said)
    assert str(PldError(f"{tmp_path}/signing")) == f"{tmp_path}/signing"  # where one is kept is none


@pytest.mark.parametrize("status", [400, 401])
def test_a_gateway_that_repeats_the_key_is_not_repeated(status, monkeypatch):
    server = AnthropicServer(lambda *_: error(status, "t", "x" * 150 + f" no such key: {OWN}. Sent: {KEY}"))
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    teacher = AnthropicTeacher(**{name: value for name, value in SETTINGS.items() if name != "_target_"})
    try:
        said = str(next(iter(teacher.ask([REQUEST]))).error)
    except TeacherError as raised:
        said = str(raised)
    finally:
        server.close()
    assert "no such key: <PLD_TEACHER_API_KEY>" in said
    assert not any(secret[:9] in said for secret in (OWN, KEY))


def test_an_address_with_a_password_is_refused_for_the_sdk_logs_addresses(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a-key-of-its-own")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", f"http://me:{OWN}@127.0.0.1:1")
    teacher = AnthropicTeacher(**{name: value for name, value in SETTINGS.items() if name != "_target_"})
    with pytest.raises(TeacherError, match="expected an address without user") as caught:
        list(teacher.ask([REQUEST]))
    assert OWN not in str(caught.value)


@pytest.mark.parametrize(
    ("override", "secret"),
    [
        ("asking.attempts='{}'", OWN),
        ("teacher.model='{}'", OWN),
        ("teacher.api_key={}", KEY),
        ("+teacher.api_key={}", KEY),
        ("+api_key={}", KEY),
        ("teacher.api_key: {}", KEY),
        ("teacher.model='{}'", KEY),
        ("teacher.max_tokens='{}'", KEY),
        ("teacher.roles={{extract: {{model: '{}'}}}}", KEY),
        ("asking.attempts='{}'", KEY),
        ("tracking.uri='http://me:{}@host'", KEY),
        ("extraction.personal_data='{}'", KEY),
        ("sweep.sampler='{}'", KEY),
        ("={}", KEY),
    ],
)
def test_a_key_among_the_settings_is_refused_and_not_repeated(override, secret, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "conf", "conf")
    shutil.copy(ROOT / "params.yaml", "params.yaml")
    Project(tmp_path).select([override.format(secret)], teacher="anthropic")
    with pytest.raises(ConfigError) as caught:
        config.run()
    assert secret[:12] not in f"{caught.value}{capfd.readouterr()}"
    assert not Path("artifacts").exists()


@pytest.mark.parametrize("written", [{"overrides": {"teacher.api_key": KEY}}, {"groups": {"teacher": KEY}}])
def test_a_key_at_a_wrong_place_of_params_yaml_is_not_repeated(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "conf", "conf")
    given = yaml.safe_load((ROOT / "params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump({name: written.get(name, held) for name, held in given.items()}))
    with pytest.raises(ConfigError) as caught:
        config.run()
    assert "Pl4nted" not in str(caught.value)
