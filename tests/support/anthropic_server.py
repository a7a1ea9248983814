"""The one part that tests stand in for: a local server that speaks the Messages API to the real SDK."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.http_reply import Reply, send

Body = dict[str, Any]


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
    return Reply(200, json.dumps(message).encode(), delay_s=delay_s)


def error(status: int, kind: str, words: str, **headers: str) -> Reply:
    body = {"type": "error", "error": {"type": kind, "message": words}}
    return Reply(status, json.dumps(body).encode(), {name.replace("_", "-"): value for name, value in headers.items()})


class AnthropicServer:
    """Answers each POST /v1/messages with `respond(body, number of this attempt at the same prompt, from 1)`."""

    def __init__(self, respond: Callable[[Body, int], Reply]) -> None:
        self.respond = respond
        self.bodies: list[Body] = []  # of every attempt, in order of arrival
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        self._attempts: dict[str, int] = {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner._serve(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def prompts(self) -> list[str]:
        """The user's text of every attempt."""
        return [body["messages"][0]["content"] for body in self.bodies]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        prompt = body["messages"][0]["content"]
        with self._lock:
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self._attempts[prompt] = attempt = self._attempts.get(prompt, 0) + 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            reply = self.respond(body, attempt)
            time.sleep(reply.delay_s)
            send(handler, reply)
        finally:
            with self._lock:
                self.in_flight -= 1


@pytest.fixture
def anthropic_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[Callable[[Body, int], Reply]], AnthropicServer]]:
    """Starts a server for a `respond` function, and points the SDK and the answer store at it (a conftest.py
    imports this fixture for its folder)."""
    servers = []

    def start(respond: Callable[[Body, int], Reply]) -> AnthropicServer:
        server = AnthropicServer(respond)
        servers.append(server)
        monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
        monkeypatch.setenv("PLD_CACHE", str(tmp_path / "cache"))
        return server

    yield start
    for server in servers:
        server.close()
