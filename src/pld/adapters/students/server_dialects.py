"""What vLLM, SGLang and llama.cpp's server call differently behind the same OpenAI-compatible chat endpoint.

llama.cpp's dialect is run in the tests; vLLM's and SGLang's follow the request models of their sources (vLLM 0.2x
`entrypoints/openai/chat_completion/protocol.py`, SGLang `srt/entrypoints/openai/protocol.py`) and were not run here.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pld.adapters.students.engine.label_tree import Ids

ServerKind = Literal["vllm", "sglang", "llama_cpp"]
Ending = Literal["answer", "continued", "closed"]
"""How a rendered chat ends: with the assistant's opening, inside the assistant's last turn, or after the last turn."""
Turns = Sequence[Mapping[str, str]]
# the last turn is the assistant's, and the model goes on with it; the same words on all three servers
CONTINUED: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}


class Ask(Protocol):
    def __call__(self, path: str, body: Mapping[str, Any], field: str) -> Any:
        """POST `body` to a path beside /v1 → that field of the answer."""
        ...


class Dialect(Protocol):
    always: Mapping[str, Any]
    """Goes with every chat: a sampler that changes no probability, whatever the model's own settings say."""
    asks_for: str | None
    """The field that lists tokens whose log-probabilities are wanted; None: there is none."""
    reports_unbiased: bool
    """Log-probabilities are those before `logit_bias`: a token forced by it still tells the model's own."""

    def constrained(self, labels: Sequence[str]) -> dict[str, Any]:
        """The answer is exactly one of `labels`."""
        ...

    def uncached(self) -> dict[str, Any]:
        """The whole prompt is computed, whatever the server holds."""
        ...

    def token_names(self, ids: Sequence[int], ask: Ask) -> list[str]:
        """What `token_name` says of each token."""
        ...

    def token_name(self, entry: Any) -> str:
        """Which token an entry of `logprobs` speaks of."""
        ...

    def chat_ids(self, ask: Ask, turns: Turns, ending: Ending) -> Ids:
        """The tokens of the rendered chat."""
        ...

    def count_chat(self, ask: Ask, turns: Turns) -> int:
        """Tokens of the rendered `turns`, without the opening of a further one."""
        ...

    def count_text(self, ask: Ask, text: str) -> int: ...

    def context(self, card: Any) -> int | None:
        """The most tokens of a request, by the model's card of /v1/models."""
        ...


class Vllm:
    always: Mapping[str, Any] = {"repetition_penalty": 1.0, "top_k": 0, "return_tokens_as_token_ids": True}
    # a server that does not know this field (before July 2026) answers with its top tokens only
    asks_for: str | None = "logprob_token_ids"
    reports_unbiased = False  # only in one of its modes

    def constrained(self, labels: Sequence[str]) -> dict[str, Any]:
        return {"structured_outputs": {"choice": list(labels)}}

    def uncached(self) -> dict[str, Any]:
        return {"cache_salt": secrets.token_hex(32)}

    def token_names(self, ids: Sequence[int], ask: Ask) -> list[str]:
        del ask
        return [f"token_id:{token}" for token in ids]

    def token_name(self, entry: Any) -> str:
        return str(entry.token)

    def chat_ids(self, ask: Ask, turns: Turns, ending: Ending) -> Ids:
        body = {"messages": list(turns), "add_generation_prompt": ending == "answer"}
        return tuple(ask("tokenize", body | {"continue_final_message": ending == "continued"}, "tokens"))

    def count_chat(self, ask: Ask, turns: Turns) -> int:
        return len(self.chat_ids(ask, turns, "closed"))

    def count_text(self, ask: Ask, text: str) -> int:
        return len(ask("tokenize", {"prompt": text, "add_special_tokens": False}, "tokens"))

    def context(self, card: Any) -> int | None:
        return getattr(card, "max_model_len", None)


class Sglang:
    always: Mapping[str, Any] = {"repetition_penalty": 1.0, "top_k": -1}
    asks_for: str | None = None
    reports_unbiased = False

    def constrained(self, labels: Sequence[str]) -> dict[str, Any]:
        return {"regex": "(" + "|".join(map(re.escape, labels)) + ")"}

    def uncached(self) -> dict[str, Any]:
        return {"cache_salt": secrets.token_hex(32)}

    def token_names(self, ids: Sequence[int], ask: Ask) -> list[str]:
        body = {"tokens": [[token] for token in ids], "skip_special_tokens": False}
        return [str(text) for text in ask("detokenize", body, "text")]

    def token_name(self, entry: Any) -> str:
        return str(entry.token)

    def chat_ids(self, ask: Ask, turns: Turns, ending: Ending) -> Ids:
        body = {"messages": list(turns), "continue_final_message": ending == "continued"}
        return tuple(ask("tokenize", body, "tokens"))

    def count_chat(self, ask: Ask, turns: Turns) -> int:
        # /tokenize always renders the opening of the assistant's turn: a few tokens too many
        return len(self.chat_ids(ask, turns, "answer"))

    def count_text(self, ask: Ask, text: str) -> int:
        return len(ask("tokenize", {"prompt": text, "add_special_tokens": False}, "tokens"))

    def context(self, card: Any) -> int | None:
        return getattr(card, "max_model_len", None)


class LlamaCpp:
    always: Mapping[str, Any] = {"repeat_penalty": 1.0, "cache_prompt": True}
    asks_for: str | None = None
    reports_unbiased = True

    def constrained(self, labels: Sequence[str]) -> dict[str, Any]:
        # GBNF's literals escape like JSON's
        return {"grammar": "root ::= " + " | ".join(json.dumps(label, ensure_ascii=False) for label in labels)}

    def uncached(self) -> dict[str, Any]:
        return {"cache_prompt": False}

    def token_names(self, ids: Sequence[int], ask: Ask) -> list[str]:
        del ask
        return [str(token) for token in ids]

    def token_name(self, entry: Any) -> str:
        return str(getattr(entry, "id", None))

    def chat_ids(self, ask: Ask, turns: Turns, ending: Ending) -> Ids:
        body = {"messages": list(turns), "add_generation_prompt": ending == "answer"}
        text = ask("apply-template", body | {"continue_final_message": ending == "continued"}, "prompt")
        return tuple(ask("tokenize", {"content": text, "add_special": True, "parse_special": True}, "tokens"))

    def count_chat(self, ask: Ask, turns: Turns) -> int:
        if turns[-1]["role"] != "assistant":
            return len(self.chat_ids(ask, turns, "closed"))
        # a last assistant's turn is never closed: close it with a user's, and take that one off
        system, user = {"role": "system", "content": "a"}, {"role": "user", "content": ""}
        extra = len(self.chat_ids(ask, [system, user], "closed")) - len(self.chat_ids(ask, [system], "closed"))
        return len(self.chat_ids(ask, [*turns, user], "closed")) - extra

    def count_text(self, ask: Ask, text: str) -> int:
        return len(ask("tokenize", {"content": text, "add_special": False, "parse_special": False}, "tokens"))

    def context(self, card: Any) -> int | None:
        return (getattr(card, "meta", None) or {}).get("n_ctx")


DIALECTS: Mapping[ServerKind, type[Vllm] | type[Sglang] | type[LlamaCpp]] = {
    "vllm": Vllm,
    "sglang": Sglang,
    "llama_cpp": LlamaCpp,
}
