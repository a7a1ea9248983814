"""A local server that speaks the Messages API to the real SDK, and the Teacher that asks it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pld.adapters.teachers.anthropic import AnthropicTeacher
from support.batch_desk import BatchDesk
from support.local_server import DROP, Reply, Request, Respond, RespondingServer, json_reply, started


def answer(content: object, stop_reason: str = "end_turn", delay_s: float = 0.0, **extra: Any) -> Reply:
    """A message of one text block (after a thinking block); `content` is text as it is, or is dumped as JSON."""
    text = content if isinstance(content, str) else json.dumps(content)
    blocks = [{"type": "thinking", "thinking": "", "signature": "c2ln"}, {"type": "text", "text": text}]
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-test",
        "content": blocks,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": 100, "output_tokens": 20, "cache_read_input_tokens": None},
        **extra,
    }
    return json_reply(message, delay_s=delay_s)


def error(status: int, kind: str, words: str, **headers: str) -> Reply:
    return json_reply({"type": "error", "error": {"type": kind, "message": words}}, status, **headers)


class AnthropicServer(RespondingServer):
    """Each POST /v1/messages is a prompt, and so is each request of a batch (with attempt 1). It counts a word as a
    token."""

    def __init__(self, respond: Respond) -> None:
        self.desk = BatchDesk(lambda body: self.respond(body, 1))
        super().__init__(respond)

    @property
    def prompted(self) -> list[Request]:
        return [own for own in self.requests if own.path.partition("?")[0] == "/v1/messages"]

    def reply(self, request: Request) -> Reply:
        body = request.body
        if request.path.startswith("/v1/messages/batches"):
            return self.desk.serve(request.method, request.path, body, self.url) or DROP
        if request.path.startswith("/v1/messages/count_tokens"):
            words = f"{body['system'][0]['text']} {request.prompt}".split()
            return json_reply({"input_tokens": len(words)})
        return super().reply(request)


def claude(**changes: Any) -> AnthropicTeacher:
    """The one place of tests that names all settings."""
    settings = {"way": "messages", "model": "claude-test", "max_tokens": 512, "effort": None, "temperature": None}
    transport = {"roles": {}, "max_concurrency": 4, "max_retries": 2, "timeout_s": 5.0, "poll_s": 0.05}
    return AnthropicTeacher(**{**settings, **transport, **changes})


@pytest.fixture
def anthropic_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[Respond], AnthropicServer]]:
    """Starts a server for a `respond` function, and points the SDK and the answer store at it (a conftest.py
    imports this fixture for its folder)."""
    monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    yield from started(AnthropicServer, monkeypatch, tmp_path / "cache", "ANTHROPIC_BASE_URL")
