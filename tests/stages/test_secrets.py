"""A planted key is found nowhere: in no file that a stage leaves behind, nor in anything that it says, well or ill."""

import base64
import contextlib
import logging
import shutil
import sqlite3
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

from pld import artifacts
from pld.config.settings import load_config
from pld.records import Example
from pld.stages import config, extract
from pld.stages.__main__ import main
from support.anthropic_server import AnthropicServer, answer, error
from support.artifact_tree import composed, write_artifacts
from support.local_server import Reply
from support.openai_server import OpenAITeacherServer, completion, refused
from support.planted import KEY, forms, leaks
from support.project import ROOT, Project

PASSWORD = "s3cret-P4ssword-of-a-proxy"
BASIC = base64.b64encode(f"pld:{PASSWORD}".encode()).decode()
SAID = {"rationale": "They ask for money back.", "rule": "If money is asked back, answer billing.", "label": "billing"}
CUT = Reply(200, b"", drop=True)
NOT_JSON = Reply(200, b"<html>gateway</html>")
NOT_THE_API = Reply(200, b'{"ok": true}')


@dataclass(frozen=True)
class Service:
    """A Teacher's option in conf/teacher, what it reads from the environment, and the server that it talks to."""

    teacher: str
    url_variable: str
    secrets: dict[str, str]
    server: type[AnthropicServer] | type[OpenAITeacherServer]
    said: Callable[[object], Reply]
    refused: Reply
    bad_request: Reply


CLAUDE = Service(
    "anthropic",
    "ANTHROPIC_BASE_URL",
    {"ANTHROPIC_API_KEY": KEY},
    AnthropicServer,
    answer,
    error(401, "authentication_error", "invalid x-api-key"),
    error(400, "invalid_request_error", "max_tokens: too many"),
)
BEHIND_A_PROXY = {"ANTHROPIC_AUTH_TOKEN": KEY, "ANTHROPIC_CUSTOM_HEADERS": f"Proxy-Authorization: Basic {BASIC}"}
OPENAI = Service(
    "openai",
    "OPENAI_BASE_URL",
    {"PLD_TEACHER_API_KEY": KEY, "OPENAI_API_KEY": PASSWORD},
    OpenAITeacherServer,
    completion,
    refused(401, "invalid key"),
    refused(400, "max_tokens: too many"),
)
SERVICES = {
    "a key for Claude": CLAUDE,
    "a token and a password for Claude": replace(CLAUDE, secrets=BEHIND_A_PROXY),
    "a key for another server": OPENAI,
}
every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


@cache
def settings(teacher: str) -> str:
    """artifacts/config.yaml, composed of the real conf/."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        shutil.copytree(ROOT / "conf", "conf")
        shutil.copy(ROOT / "params.yaml", "params.yaml")
        overrides = ["teacher.max_retries=1", "teacher.timeout_s=5", "teacher.max_concurrency=2", "asking.attempts=2"]
        Project(Path(folder)).select(overrides, task="tickets", teacher=teacher, student="smollm2-135m")
        config.run()
        return Path("artifacts/config.yaml").read_text()


@pytest.fixture
def stage(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the paid Teacher and eight training examples; the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLD_CACHE", str(tmp_path / "cache"))
    artifacts.write_text(Path("artifacts/config.yaml"), settings(service.teacher))
    examples = [
        Example(id=f"T-{i}", inputs={"subject": f"refund {i}", "body": "Send it back."}, label="billing", split="train")
        for i in range(8)
    ]
    artifacts.write_jsonl(Path("artifacts/splits/train.jsonl"), examples)
    return tmp_path


Serve = Callable[..., AnthropicServer | OpenAITeacherServer]


@pytest.fixture
def serve(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a server that gives `replies` in turn (the last one on and on), and plants the secrets."""
    servers = []

    def start(*replies: Reply) -> AnthropicServer | OpenAITeacherServer:
        rest = iter(replies)
        server = service.server(lambda *_: next(rest, replies[-1]))
        servers.append(server)
        for name, value in {service.url_variable: server.url, **service.secrets}.items():
            monkeypatch.setenv(name, value)
        return server

    yield start
    for server in servers:
        server.close()


def run_stage(name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> tuple[int, str]:
    """Its exit status, and all that it said: what a program that crashes prints, and what every library logs."""
    with caplog.at_level(logging.DEBUG):
        try:
            status = main([name])
        except Exception:
            status = 1
            traceback.print_exc()
    printed = capfd.readouterr()
    return status, printed.out + printed.err + caplog.text


@contextlib.contextmanager
def write_ahead_log_kept(store: Path) -> Iterator[Path]:
    """A reader is at work all the time, so that the log stays beside the database, with all that was written to it."""
    store.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as reader:
        reader.execute("PRAGMA journal_mode = WAL")
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield Path(f"{store}-wal")


@every_service
def test_a_run_that_succeeds_keeps_no_key(stage, serve, service, capfd, caplog):
    server = serve(service.said(SAID))
    with write_ahead_log_kept(stage / "cache/answers.sqlite") as log:
        status, said = run_stage("extract", capfd, caplog)
        assert status == 0, said
        assert KEY in str(server.headers), "the server was given the key"
        assert b"If money is asked back" in log.read_bytes()
        assert leaks(stage, said, (KEY, PASSWORD)) == []


@every_service
@pytest.mark.parametrize("fault", ["401", "400", "cut", "not JSON", "another API", "not what was asked for"])
def test_a_run_that_fails_says_no_key(stage, serve, service, capfd, caplog, fault):
    reply, told = {
        "401": (service.refused, "status 401"),
        "400": (service.bad_request, "bad_request 7"),
        "cut": (CUT, "expected an answer, got"),
        "not JSON": (NOT_JSON, "expected a"),
        "another API": (NOT_THE_API, "expected a"),
        "not what was asked for": (service.said("no JSON"), "invalid 7"),
    }[fault]
    serve(service.said(SAID), reply)
    status, said = run_stage("extract", capfd, caplog)
    assert (status, told in said) == (1, True), said
    assert leaks(stage, said, (KEY, PASSWORD)) == []


@every_service
def test_a_stage_that_crashes_shows_no_key(stage, serve, service, capfd, caplog, monkeypatch):
    serve(service.said(SAID))

    def crash(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(extract, "write_jsonl", crash)
    _, said = run_stage("extract", capfd, caplog)
    assert "RuntimeError: the disk is full" in said
    assert leaks(stage, said, (KEY, PASSWORD)) == []


@pytest.mark.slow
@pytest.mark.parametrize("service", [CLAUDE], ids=["a key for Claude"])
def test_what_tracking_logs_holds_no_key(stage, serve, service, capfd, caplog):
    serve(service.said(SAID))
    write_artifacts(Path("artifacts"), composed().model_copy(update={"teacher": load_config().teacher}))
    status, said = run_stage("track", capfd, caplog)
    assert status == 0, said
    assert Path("mlflow.db").exists()
    assert leaks(stage, said, (KEY, PASSWORD)) == []


def test_a_secret_is_found_in_every_form():
    assert all(form in b"..%s.." % form for form in forms(KEY))
    for before in ("", "x", "xy", "pld:"):
        coded = base64.b64encode(f"{before}{PASSWORD}@host".encode())
        assert any(form in coded for form in forms(PASSWORD)), before
