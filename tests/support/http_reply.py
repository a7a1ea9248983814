"""What the local servers of tests answer with, broken connections included."""

import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler


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


def send(handler: BaseHTTPRequestHandler, reply: Reply) -> None:
    if reply.drop:
        handler.close_connection = True
        return
    try:
        handler.send_response(reply.status)
        for name, value in {"content-type": "application/json", **reply.headers}.items():
            handler.send_header(name, value)
        handler.send_header("content-length", str(len(reply.body)))
        handler.end_headers()
        body = reply.body[: reply.cut_at]
        if reply.pause_s:
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            time.sleep(reply.pause_s)
            body = body[len(body) // 2 :]
        handler.wfile.write(body)
        if reply.cut_at is not None:
            handler.close_connection = True
    except (BrokenPipeError, ConnectionResetError):
        pass  # the client gave up or was killed
