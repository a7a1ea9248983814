"""The one part that tests stand in for: a local server that speaks the Messages API to the real SDK."""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from support.batch_desk import BatchDesk
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


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client that was killed
            super().handle_error(request, client_address)


class AnthropicServer:
    """Answers each POST /v1/messages with `respond(body, number of this attempt at the same prompt, from 1)`, and each
    request of a batch likewise (with attempt 1). It counts a word as a token."""

    def __init__(self, respond: Callable[[Body, int], Reply]) -> None:
        self.respond = respond
        self.bodies: list[Body] = []  # of every attempt, in order of arrival
        self.headers: list[dict[str, str]] = []
        self.in_flight = self.most_in_flight = 0
        self._lock = threading.Lock()
        self._attempts: dict[str, int] = {}
        self.desk = BatchDesk(lambda body: self.respond(body, 1))
        self.down = False  # every connection is dropped
        self._http = self._listen(0)

    def _listen(self, port: int) -> ThreadingHTTPServer:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # with it every body waits for the client's word on its headers

            def do_GET(self) -> None:
                owner._serve(self)

            def do_POST(self) -> None:
                owner._serve(self)

            def log_message(self, *args: object) -> None:
                pass

        http = _Http(("127.0.0.1", port), Handler)
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return http

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

    def die(self) -> None:
        """Connections are refused and those that are open break; what it was given it still knows."""
        self.down = True
        self.close()

    def come_back(self) -> None:
        self.down = False
        self._http = self._listen(self._http.server_address[1])

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers.get("content-length") or 0)) or b"{}")
        if self.down:
            return send(handler, Reply(200, b"", drop=True))
        if handler.path.startswith("/v1/messages/batches"):
            reply = self.desk.serve(handler.command, handler.path, body, self.url)
            return send(handler, reply or Reply(200, b"", drop=True))
        if handler.path.startswith("/v1/messages/count_tokens"):
            words = len(f"{body['system'][0]['text']} {body['messages'][0]['content']}".split())
            return send(handler, Reply(200, json.dumps({"input_tokens": words}).encode()))
        return self._serve_message(handler, body)

    def _serve_message(self, handler: BaseHTTPRequestHandler, body: Body) -> None:
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
