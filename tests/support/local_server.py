"""The local HTTP servers of tests: what they have in common, and what they answer with, broken connections included."""

import contextlib
import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest

Body = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """One HTTP response, sent after `delay_s`; `drop` closes the connection instead, `cut_at` after so many bytes of
    the body, and `pause_s` comes in the middle of the body."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: bool = False
    cut_at: int | None = None
    pause_s: float = 0.0


DROP = Reply(200, b"", drop=True)


def json_reply(value: object, status: int = 200, delay_s: float = 0.0, **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(status, json.dumps(value).encode(), named, delay_s)


@dataclass(frozen=True)
class Request:
    """`number`: of requests before it; `attempt`: from 1, at the same key; `at_once`: requests in flight, with it."""

    method: str
    path: str
    body: Body
    headers: dict[str, str]
    number: int
    attempt: int
    at_once: int

    @property
    def prompt(self) -> str:
        return str(self.body["messages"][-1]["content"])


class LocalServer:
    """Answers each request with `reply(request)`; `requests` are all of them, in order of arrival."""

    base = ""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.in_flight = self.most_in_flight = 0
        self.down = False  # every connection is dropped
        self._attempts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._http = self._listen(0)

    def reply(self, request: Request) -> Reply:
        raise NotImplementedError

    def key(self, path: str, body: Body) -> str:
        """Of requests that are attempts at the same."""
        return f"{path} {body['messages'][-1]['content']}" if "messages" in body else path

    def sent(self, request: Request, reply: Reply) -> None:
        """Called after a reply that left in full."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}{self.base}"

    @property
    def prompted(self) -> list[Request]:
        """Those that ask for an answer to a prompt."""
        return [own for own in self.requests if "messages" in own.body]

    @property
    def bodies(self) -> list[Body]:
        return [own.body for own in self.prompted]

    @property
    def headers(self) -> list[dict[str, str]]:
        return [own.headers for own in self.prompted]

    @property
    def prompts(self) -> list[str]:
        return [own.prompt for own in self.prompted]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def die(self) -> None:
        """Connections are refused and those that are open break; what it was given it still knows."""
        self.down = True
        self.close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def come_back(self) -> None:
        self.down = False
        self._http = self._listen(self._http.server_address[1])

    def _listen(self, port: int) -> ThreadingHTTPServer:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: two wait 40 ms for an acknowledgement

            def setup(self) -> None:
                super().setup()
                owner._connections.add(self.connection)

            def finish(self) -> None:
                owner._connections.discard(self.connection)
                super().finish()

            def do_GET(self) -> None:
                owner._serve(self)

            do_POST = do_HEAD = do_GET  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                if not isinstance(sys.exception(), OSError):  # a client that was killed
                    super().handle_error(request, client_address)

        http = Server(("127.0.0.1", port), Handler)
        threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return http

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        content = handler.rfile.read(int(handler.headers.get("content-length") or 0))
        if self.down:
            send(handler, DROP)
            return
        body = json.loads(content) if content.startswith(b"{") else {}
        headers = {name.lower(): value for name, value in handler.headers.items()}
        key = self.key(handler.path, body)
        with self._lock:
            self._attempts[key] += 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            counts = (len(self.requests), self._attempts[key], self.in_flight)
            request = Request(handler.command, handler.path, body, headers, *counts)
            self.requests.append(request)
        try:
            reply = self.reply(request)
            time.sleep(reply.delay_s)
        finally:
            with self._lock:
                self.in_flight -= 1
        if send(handler, reply):
            self.sent(request, reply)


def send(handler: BaseHTTPRequestHandler, reply: Reply) -> bool:
    """Whether it left in full."""
    handler.close_connection = handler.close_connection or reply.drop or reply.cut_at is not None
    if reply.drop:
        return False
    try:
        handler.send_response(reply.status)
        sizes = {"content-type": "application/json", "content-length": str(len(reply.body))}
        for name, value in (sizes | reply.headers).items():
            handler.send_header(name, value)
        handler.end_headers()
        body = b"" if handler.command == "HEAD" else reply.body[: reply.cut_at]
        if reply.pause_s:
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            time.sleep(reply.pause_s)
            body = body[len(body) // 2 :]
        handler.wfile.write(body)
        handler.wfile.flush()
    except OSError:
        return False  # the client gave up or was killed
    return reply.cut_at is None


Respond = Callable[[Body, int], Reply]


class RespondingServer(LocalServer):
    """A provider's API: answers each prompt with `respond(body, number of this attempt at the same prompt, from 1)`."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        super().__init__()

    def reply(self, request: Request) -> Reply:
        return self.respond(request.body, request.attempt)


S = TypeVar("S", bound=RespondingServer)


def started(
    kind: type[S], patch: pytest.MonkeyPatch, cache: Path, url_variable: str
) -> Iterator[Callable[[Respond], S]]:
    """For fixtures: starts servers, and points the SDK and the answer store at the last one."""
    with contextlib.ExitStack() as servers:

        def start(respond: Respond) -> S:
            server = servers.enter_context(kind(respond))
            patch.setenv(url_variable, server.url)
            patch.setenv("PLD_CACHE", str(cache))
            return server

        yield start
