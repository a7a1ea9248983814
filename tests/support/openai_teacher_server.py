"""A local server that speaks chat completions to the real openai SDK, for the Teacher."""

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


def completion(
    content: object, finish_reason: str = "stop", cached: int = 0, delay_s: float = 0.0, **message: object
) -> Reply:
    """One choice; `content` is text as it is (None: none), or is dumped as JSON."""
    text = content if content is None or isinstance(content, str) else json.dumps(content)
    choice = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
    if cached:
        usage |= {"prompt_tokens_details": {"cached_tokens": cached}}
    whole = {"id": "c", "object": "chat.completion", "created": 0, "model": "toy", "choices": [choice], "usage": usage}
    return Reply(200, json.dumps(whole).encode(), delay_s=delay_s)


def refused(status: int, words: str, **headers: str) -> Reply:
    body = {"error": {"message": words, "type": "t", "code": status}}
    return Reply(status, json.dumps(body).encode(), {name.replace("_", "-"): value for name, value in headers.items()})


class OpenAITeacherServer:
    """Answers each POST with `respond(body, number of this attempt at the same prompt, from 1)`."""

    def __init__(self, respond: Callable[[Body, int], Reply]) -> None:
        self.respond = respond
        self.bodies: list[Body] = []  # of every attempt, in order of arrival
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self._lock = threading.Lock()
        self._attempts: dict[str, int] = {}
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: two wait 40 ms for an acknowledgement

            def do_POST(self) -> None:
                owner._serve(self)

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def prompts(self) -> list[str]:
        """The user's text of every attempt."""
        return [body["messages"][-1]["content"] for body in self.bodies]

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        prompt = body["messages"][-1]["content"]
        with self._lock:
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self.paths.append(handler.path)
            self._attempts[prompt] = attempt = self._attempts.get(prompt, 0) + 1
        reply = self.respond(body, attempt)
        time.sleep(reply.delay_s)
        send(handler, reply)


@pytest.fixture
def openai_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[Callable[[Body, int], Reply]], OpenAITeacherServer]]:
    """Starts a server for a `respond` function, and points the Teacher and the answer store at it."""
    servers = []

    def start(respond: Callable[[Body, int], Reply]) -> OpenAITeacherServer:
        server = OpenAITeacherServer(respond)
        servers.append(server)
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("PLD_CACHE", str(tmp_path / "cache"))
        return server

    yield start
    for server in servers:
        server.close()
