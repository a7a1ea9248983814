"""A scripted local server with the APIs of vLLM, SGLang and llama.cpp, for failures and for what can't run here.

Its model is a toy with known probabilities: a token is a character, and the next one depends on the text so far.
"""

import hashlib
import json
import math
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.http_reply import Reply, send

ALPHABET = "abcdefghijklmnopqrstuvwxyz "
END = 1
END_TEXT = "<end>"
CONTEXT = 200
MODEL = "toy"


def reply(value: object, status: int = 200, delay_s: float = 0.0, **headers: str) -> Reply:
    return Reply(status, json.dumps(value).encode(), {k.replace("_", "-"): v for k, v in headers.items()}, delay_s)


def error(status: int, words: str, **headers: str) -> Reply:
    return reply({"error": {"message": words, "type": "t", "code": status}}, status, **headers)


def rendered(turns: list[dict[str, str]], ending: str) -> str:
    """`{role:content}` per turn, with the assistant's header, its last turn open, or all closed."""
    text = "".join("{" + turn["role"][0] + ":" + turn["content"] + "}" for turn in turns)
    return text + "{a:" if ending == "answer" else text[:-1] if ending == "continued" else text


def logprobs(text: str) -> dict[int, float]:
    """Token → natural logarithm of its probability after `text`."""
    tokens = [ord(letter) for letter in ALPHABET] + [END]
    digests = {token: hashlib.sha256(f"{text}|{token}".encode()).digest() for token in tokens}
    weights = {token: 1 + 30 * digest[0] ** 2 for token, digest in digests.items()}
    total = sum(weights.values())
    return {token: math.log(weight / total) for token, weight in weights.items()}


def label_logprob(chat: list[dict[str, str]], label: str) -> float:
    """The sum over a label's characters."""
    text, total = rendered(chat, "answer"), 0.0
    for letter in label:
        total += logprobs(text)[ord(letter)]
        text += letter
    return total


class ScriptedOpenAIServer:
    """`kind`: whose API it has. `respond(path, body, attempt)` may answer instead of the toy model (None: it doesn't).

    `knows_asked`: whether `logprob_token_ids` is supported (a recent vLLM). `default_system`: the chat template's own
    system text for chats without one.
    """

    def __init__(
        self,
        kind: str = "llama_cpp",
        respond: Callable[[str, dict[str, Any], int], Reply | None] = lambda *_: None,
        knows_asked: bool = True,
        default_system: str | None = None,
    ) -> None:
        self.kind, self.respond, self.knows_asked, self.default_system = kind, respond, knows_asked, default_system
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.in_flight = self.most_in_flight = 0
        self._attempts: dict[str, int] = {}
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # headers and body in one packet: two wait 40 ms for an acknowledgement

            def do_POST(self) -> None:
                owner._serve(self)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def chats(self) -> list[dict[str, Any]]:
        """The bodies of the chat requests."""
        return [body for path, body, _ in self.requests if path == "/v1/chat/completions"]

    def __enter__(self) -> "ScriptedOpenAIServer":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers.get("content-length", 0))) or "{}")
        rendered_body = body
        if self.default_system and body.get("messages", [{"role": "system"}])[0]["role"] != "system":
            system = {"role": "system", "content": self.default_system}
            rendered_body = body | {"messages": [system, *body["messages"]]}
        key = f"{handler.path} {json.dumps(body, sort_keys=True)}"
        with self._lock:
            self.requests.append((handler.path, body, {k.lower(): v for k, v in handler.headers.items()}))
            self._attempts[key] = attempt = self._attempts.get(key, 0) + 1
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            answer = self.respond(handler.path, body, attempt) or self._toy(handler.path, rendered_body)
            time.sleep(answer.delay_s)
        finally:
            with self._lock:
                self.in_flight -= 1
        send(handler, answer)

    def _toy(self, path: str, body: dict[str, Any]) -> Reply:
        if path == "/v1/models":
            card = {"meta": {"n_ctx": CONTEXT}} if self.kind == "llama_cpp" else {"max_model_len": CONTEXT}
            return reply({"object": "list", "data": [{"id": MODEL, "object": "model", **card}]})
        if path == "/apply-template":
            return reply({"prompt": rendered(body["messages"], _ending(body))})
        if path == "/detokenize":
            texts = [END_TEXT if ids == [ord("}")] else "".join(map(chr, ids)) for ids in body["tokens"]]
            return reply({"text": texts})
        if path == "/tokenize":
            text = body.get("content", body.get("prompt"))
            if text is None:
                sglang = self.kind == "sglang" and not body["continue_final_message"]
                text = rendered(body["messages"], "answer" if sglang else _ending(body))
            return reply({"tokens": [ord(letter) for letter in text], "count": len(text), "max_model_len": CONTEXT})
        if path == "/v1/chat/completions":
            return self._chat(body)
        return error(404, "not found")

    def _chat(self, body: dict[str, Any]) -> Reply:
        text = rendered(body["messages"], _ending(body))
        if len(text) + body["max_tokens"] > CONTEXT:
            return error(400, f"This model's maximum context length is {CONTEXT} tokens. However, you asked for more.")
        known = {token if token != END else ord("}"): value for token, value in logprobs(text).items()}
        bias = {int(token): value for token, value in body.get("logit_bias", {}).items()}
        sampled = max(known, key=lambda token: known[token] + bias.get(token, 0.0))
        choice = {"index": 0, "message": {"role": "assistant", "content": chr(sampled)}, "finish_reason": "length"}
        if "structured_outputs" in body or "regex" in body or "grammar" in body:
            choice |= {"message": {"role": "assistant", "content": "blue"}, "finish_reason": "stop"}
        if body.get("logprobs"):
            top = sorted(known, key=lambda token: -known[token])[: body["top_logprobs"]]
            if self.knows_asked and "logprob_token_ids" in body and self.kind == "vllm":
                top = [sampled, *body["logprob_token_ids"]]
            entries = [self._entry(token, known[token]) for token in top]
            choice["logprobs"] = {"content": [self._entry(sampled, known[sampled]) | {"top_logprobs": entries}]}
        usage = {"prompt_tokens": len(text), "completion_tokens": 1, "total_tokens": len(text) + 1}
        return reply({"id": "c", "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage})

    def _entry(self, token: int, value: float) -> dict[str, Any]:
        text = END_TEXT if token == ord("}") else chr(token)
        if self.kind == "vllm":
            return {"token": f"token_id:{token}", "logprob": value, "bytes": None}
        return {"token": text, "logprob": value, "bytes": list(text.encode())} | (
            {"id": token} if self.kind == "llama_cpp" else {}
        )


def _ending(body: dict[str, Any]) -> str:
    if body.get("continue_final_message"):
        return "continued"
    return "answer" if body.get("add_generation_prompt", True) else "closed"
