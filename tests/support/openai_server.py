"""Local servers that speak chat completions to the real openai SDK: for the Teacher, and with the APIs of vLLM, SGLang
and llama.cpp for the Student, for failures and for what can't run here."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.local_server import Body, LocalServer, Reply, Request, Respond, RespondingServer, json_reply, started

ALPHABET = "abcdefghijklmnopqrstuvwxyz "
END = 1
END_TEXT = "<end>"
CONTEXT = 200
MODEL = "toy"


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
    return json_reply(whole, delay_s=delay_s)


def refused(status: int, words: str, **headers: str) -> Reply:
    return json_reply({"error": {"message": words, "type": "t", "code": status}}, status, **headers)


class OpenAITeacherServer(RespondingServer):
    base = "/v1"


@pytest.fixture
def openai_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[Respond], OpenAITeacherServer]]:
    """Starts a server for a `respond` function, and points the Teacher and the answer store at it."""
    yield from started(OpenAITeacherServer, monkeypatch, tmp_path / "cache", "OPENAI_BASE_URL")


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


class ScriptedOpenAIServer(LocalServer):
    """`kind`: whose API it has. Its model is a toy with known probabilities: a token is a character, and the next one
    depends on the text so far. `respond(path, body, attempt)` may answer instead of it (None: it doesn't).

    `knows_asked`: whether `logprob_token_ids` is supported (a recent vLLM). `default_system`: the chat template's own
    system text for chats without one.
    """

    base = "/v1"

    def __init__(
        self,
        kind: str = "llama_cpp",
        respond: Callable[[str, Body, int], Reply | None] = lambda *_: None,
        knows_asked: bool = True,
        default_system: str | None = None,
    ) -> None:
        self.kind, self.respond, self.knows_asked, self.default_system = kind, respond, knows_asked, default_system
        super().__init__()

    def chats(self) -> list[Body]:
        """The bodies of the chat requests."""
        return [own.body for own in self.requests if own.path == "/v1/chat/completions"]

    def key(self, path: str, body: Body) -> str:
        return f"{path} {json.dumps(body, sort_keys=True)}"

    def reply(self, request: Request) -> Reply:
        body = request.body
        if self.default_system and body.get("messages", [{"role": "system"}])[0]["role"] != "system":
            system = {"role": "system", "content": self.default_system}
            body = body | {"messages": [system, *body["messages"]]}
        return self.respond(request.path, request.body, request.attempt) or self._toy(request.path, body)

    def _toy(self, path: str, body: dict[str, Any]) -> Reply:
        if path == "/v1/models":
            card = {"meta": {"n_ctx": CONTEXT}} if self.kind == "llama_cpp" else {"max_model_len": CONTEXT}
            return json_reply({"object": "list", "data": [{"id": MODEL, "object": "model", **card}]})
        if path == "/apply-template":
            return json_reply({"prompt": rendered(body["messages"], _ending(body))})
        if path == "/detokenize":
            texts = [END_TEXT if ids == [ord("}")] else "".join(map(chr, ids)) for ids in body["tokens"]]
            return json_reply({"text": texts})
        if path == "/tokenize":
            text = body.get("content", body.get("prompt"))
            if text is None:
                sglang = self.kind == "sglang" and not body["continue_final_message"]
                text = rendered(body["messages"], "answer" if sglang else _ending(body))
            return json_reply(
                {"tokens": [ord(letter) for letter in text], "count": len(text), "max_model_len": CONTEXT}
            )
        if path == "/v1/chat/completions":
            return self._chat(body)
        return refused(404, "not found")

    def _chat(self, body: dict[str, Any]) -> Reply:
        text = rendered(body["messages"], _ending(body))
        if len(text) + body["max_tokens"] > CONTEXT:
            return refused(
                400, f"This model's maximum context length is {CONTEXT} tokens. However, you asked for more."
            )
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
        return json_reply({"id": "c", "object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage})

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
