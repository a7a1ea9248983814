"""What vLLM, SGLang and llama.cpp's server call differently behind the same OpenAI-compatible chat endpoint.

The tests run llama.cpp's. vLLM's and SGLang's follow the request models of their sources (vLLM 0.2x
`entrypoints/openai/chat_completion/protocol.py`, SGLang `srt/entrypoints/openai/protocol.py`) and were never run here.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pld.adapters.students.engine.label_tree import Ids
from pld.adapters.students.openai_server import Ending, OpenAIServer, Turns
from pld.records import Message

ServerKind = Literal["vllm", "sglang", "llama_cpp"]


class VllmServer(OpenAIServer):
    kind = "vllm"
    always: ClassVar[Mapping[str, Any]] = {"repetition_penalty": 1.0, "top_k": 0, "return_tokens_as_token_ids": True}
    # versions before July 2026 ignore this field and return the top tokens only
    token_ids_field = "logprob_token_ids"

    def constrained(self, labels: Sequence[str]) -> dict[str, Any]:
        return {"structured_outputs": {"choice": list(labels)}}

    def token_names(self, ids: Sequence[int]) -> list[str]:
        return [f"token_id:{token}" for token in ids]

    def ids_of_turns(self, turns: Turns, ending: Ending, retry: bool = True) -> Ids:
        body = {"messages": list(turns), "add_generation_prompt": ending == "answer"}
        return tuple(self._post("tokenize", body | {"continue_final_message": ending == "continued"}, "tokens", retry))


class SglangServer(OpenAIServer):
    kind = "sglang"
    always: ClassVar[Mapping[str, Any]] = {"repetition_penalty": 1.0, "top_k": -1}

    def constrained(self, labels: Sequence[str]) -> dict[str, Any]:
        return {"regex": "(" + "|".join(map(re.escape, labels)) + ")"}

    def token_names(self, ids: Sequence[int]) -> list[str]:
        body = {"tokens": [[token] for token in ids], "skip_special_tokens": False}
        return [str(text) for text in self._post("detokenize", body, "text")]

    def ids_of_turns(self, turns: Turns, ending: Ending, retry: bool = True) -> Ids:
        body = {"messages": list(turns), "continue_final_message": ending == "continued"}
        return tuple(self._post("tokenize", body, "tokens", retry))

    def count_chat(self, chat: Sequence[Message]) -> int:
        # /tokenize always renders the assistant's header: a few tokens too many
        return len(self.chat_ids(chat, "answer"))


class LlamaCppServer(OpenAIServer):
    kind = "llama_cpp"
    always: ClassVar[Mapping[str, Any]] = {"repeat_penalty": 1.0, "cache_prompt": True}
    unbiased_logprobs = True

    def constrained(self, labels: Sequence[str]) -> dict[str, Any]:
        # GBNF's literals are escaped like JSON's
        return {"grammar": "root ::= " + " | ".join(json.dumps(label, ensure_ascii=False) for label in labels)}

    def uncached(self) -> dict[str, Any]:
        return {"cache_prompt": False}

    def token_names(self, ids: Sequence[int]) -> list[str]:
        return [str(token) for token in ids]

    def token_name(self, entry: Any) -> str:
        return str(getattr(entry, "id", None))

    def ids_of_turns(self, turns: Turns, ending: Ending, retry: bool = True) -> Ids:
        chat = {
            "messages": list(turns),
            "add_generation_prompt": ending == "answer",
            "continue_final_message": ending == "continued",
        }
        text = self._post("apply-template", chat, "prompt", retry)
        body = {"content": text, "add_special": True, "parse_special": True}
        return tuple(self._post("tokenize", body, "tokens", retry))

    def count_chat(self, chat: Sequence[Message]) -> int:
        turns = self._turns(chat)
        if turns[-1]["role"] != "assistant":
            return len(self.ids_of_turns(turns, "closed"))
        # the server never closes a last assistant turn: add a user turn, and subtract its tokens
        system, user = {"role": "system", "content": "a"}, {"role": "user", "content": ""}
        extra = len(self.ids_of_turns([system, user], "closed")) - len(self.ids_of_turns([system], "closed"))
        return len(self.ids_of_turns([*turns, user], "closed")) - extra

    def count_text(self, text: str) -> int:
        return len(self._post("tokenize", {"content": text, "add_special": False, "parse_special": False}, "tokens"))

    def _context_of(self, card: Any) -> int | None:
        return (getattr(card, "meta", None) or {}).get("n_ctx")


SERVERS: Mapping[ServerKind, type[OpenAIServer]] = {
    "vllm": VllmServer,
    "sglang": SglangServer,
    "llama_cpp": LlamaCppServer,
}
