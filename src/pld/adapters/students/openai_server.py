"""Requests to an OpenAI-compatible server through the openai SDK; every error becomes a one-line StudentError."""

from __future__ import annotations

import contextlib
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn

from pld.adapters.openai_client import NoClientError, address, check_installed, open_client
from pld.adapters.students.engine.label_tree import Ids
from pld.errors import StudentError
from pld.records import Message

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

Turns = Sequence[Mapping[str, str]]
Ending = Literal["answer", "continued", "closed"]
"""How a rendered chat ends: with the assistant's header, inside the assistant's last turn, or after the last turn."""
# the model continues the assistant's last turn; all three servers know these fields
CONTINUED: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}
_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum model length|max_model_len|longer than the (model|maximum)", re.IGNORECASE
)


class TooLongError(Exception):
    """The request doesn't fit into the model's context."""


@dataclass(kw_only=True)
class OpenAIServer(ABC):
    """One server. Methods may be called from several threads; the SDK retries each request (429, 5xx, 408, 409,
    time-outs, refused connections) up to `max_retries` times with back-off, and obeys retry-after.

    The key is read from the environment at the first request. Raises StudentError for every failure but a chat that is
    too long. A subclass knows what its server calls differently; the defaults are those of vLLM and SGLang.
    """

    kind: ClassVar[str]
    always: ClassVar[Mapping[str, Any]]
    """Fields of every chat request: a sampler that changes no probability, whatever the model's own settings are."""
    token_ids_field: ClassVar[str | None] = None
    """The field that lists tokens whose log-probabilities are returned; None: there is none."""
    unbiased_logprobs: ClassVar[bool] = False
    """Log-probabilities are computed before `logit_bias`, so a token forced by it still has the model's own."""

    student: str
    base_url: str | None
    model: str
    api_key_variable: str
    max_retries: int
    timeout_s: float
    extra_body: Mapping[str, Any]
    context: int | None = field(default=None, init=False)
    _connected: openai.OpenAI | None = field(default=None, init=False)
    _silences_system: bool = field(default=False, init=False)

    @abstractmethod
    def constrained(self, labels: Sequence[str]) -> dict[str, Any]:
        """Request fields for an answer that is exactly one of `labels`."""

    @abstractmethod
    def token_names(self, ids: Sequence[int]) -> list[str]:
        """What `token_name` returns for each token."""

    @abstractmethod
    def ids_of_turns(self, turns: Turns, ending: Ending, retry: bool = True) -> Ids:
        """The tokens of the rendered chat."""

    def token_name(self, entry: Any) -> str:
        """Which token an entry of `logprobs` is about."""
        return str(entry.token)

    def uncached(self) -> dict[str, Any]:
        """Request fields that make the server compute the whole prompt, whatever it has cached."""
        return {"cache_salt": secrets.token_hex(32)}

    def count_chat(self, chat: Sequence[Message]) -> int:
        """Tokens of the rendered chat, without the header of a further turn."""
        return len(self.ids_of_turns(self._turns(chat), "closed"))

    def count_text(self, text: str) -> int:
        return len(self._post("tokenize", {"prompt": text, "add_special_tokens": False}, "tokens"))

    def chat_ids(self, chat: Sequence[Message], ending: Ending) -> Ids:
        """The tokens of the chat as the server renders it."""
        return self.ids_of_turns(self._turns(chat), ending)

    def complete(
        self,
        chat: Sequence[Message],
        *,
        answer: str = "",
        max_tokens: int = 1,
        top_logprobs: int | None = None,
        **more: Any,
    ) -> ChatCompletion:
        """The greedy continuation of `chat` and the beginning of an `answer`; `more` are fields of the request.

        Raises TooLongError.
        """
        from openai.types.chat import ChatCompletion

        turns = self._turns(chat)
        if answer:
            turns = [*turns, {"role": "assistant", "content": answer}]
        body = {**self.always, **self.extra_body, **(CONTINUED if answer else {}), **more}
        logprobs: Any = {} if top_logprobs is None else {"logprobs": True, "top_logprobs": top_logprobs}
        with self._translated():
            completion = self.connect().chat.completions.create(
                model=self.model,
                messages=turns,  # type: ignore[arg-type]
                max_tokens=max_tokens,
                temperature=0,
                extra_body=body,
                **logprobs,
            )
        if not isinstance(completion, ChatCompletion) or not completion.choices or not completion.choices[0].message:
            self.refuse("a chat completion", f"{completion!r:.80}", "check student.base_url and student.server")
        return completion

    def connect(self) -> openai.OpenAI:
        """The client, after a check that the server is there, accepts the key and has the model."""
        if self._connected is None:
            client = self._client()
            with self._translated():
                cards = client.models.list().data
            found = {name: card for card in cards or () for name in (card.id, *(getattr(card, "aliases", None) or ()))}
            if self.model not in found:
                names = ", ".join(found) or "none"
                self.refuse(f"the model {self.model!r}", f"{names:.200}", "set student.model to one that is served")
            self._connected = client
            self.context = self._context_of(found[self.model])
            self._silences_system = self._has_default_system()
        return self._connected

    def refuse(self, expected: str, got: str, remedy: str) -> NoReturn:
        raise StudentError(
            f"expected {expected}, got {' '.join(got.split())} (student {self.student}, {self.kind} server); {remedy}"
        )

    def _context_of(self, card: Any) -> int | None:
        """The most tokens of a request, from the model's card in /v1/models."""
        return getattr(card, "max_model_len", None)

    def _client(self) -> openai.OpenAI:
        try:
            check_installed()

            url = address(self.base_url, "student")
            self._root = url.removesuffix("/v1")
            return open_client(
                url=url,
                role="student",
                api_key_variable=self.api_key_variable,
                max_retries=self.max_retries,
                timeout_s=self.timeout_s,
            )
        except NoClientError as error:
            self.refuse(error.expected, error.got, error.remedy)

    def _has_default_system(self) -> bool:
        """Whether the chat template adds a system text of its own when none is given. As in process, such a template
        then gets an empty system message: a prompt holds nothing that the user didn't write."""
        user = {"role": "user", "content": "a"}
        silent = len(self.ids_of_turns([user], "answer"))
        try:
            given = self.ids_of_turns([{"role": "system", "content": ""}, user], "answer", retry=False)
        except StudentError:  # the template has no system role
            return False
        return len(given) < silent

    def _turns(self, chat: Sequence[Message]) -> Turns:
        self.connect()
        turns = [{"role": message.role, "content": message.content} for message in chat]
        if self._silences_system and turns and turns[0]["role"] != "system":
            return [{"role": "system", "content": ""}, *turns]
        return turns

    def _post(self, path: str, body: Mapping[str, Any], name: str, retry: bool = True) -> Any:
        """POST `body` to a path beside /v1; returns the field `name` of the answer."""
        client = self.connect()
        whole = {"model": self.model, **self.extra_body, **body}
        with self._translated():
            # `with_options` would copy the client and take up another service's organisation from the environment
            options: openai.RequestOptions = {} if retry else {"max_retries": 0}
            answer: Any = client.post(f"{self._root}/{path}", cast_to=object, body=whole, options=options)
        if not isinstance(answer, Mapping) or name not in answer:
            self.refuse(f"{name!r} from /{path}", f"{answer!r:.80}", "check student.server and student.base_url")
        return answer[name]

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            words = f"{' '.join(str(error.message).split()):.200}"
            if error.status_code in (400, 413) and _TOO_LONG.search(words):
                raise TooLongError from None
            self.refuse("an answer", f"status {error.status_code}: {words}", self._remedy(error.status_code))
        except openai.APIConnectionError as error:
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            remedy = "start the server, or set student.base_url and student.timeout_s"
            self.refuse(f"an answer within {self.timeout_s:g} s", f"{error.message}{cause:.120}", remedy)
        except (openai.OpenAIError, ValueError, AttributeError, TypeError) as error:
            self.refuse("the OpenAI API", f"{error!s:.160}", "check student.base_url and student.server")

    def _remedy(self, status: int) -> str:
        remedies = {
            400: "check student.server, student.extra_body and student.top_logprobs against the server's API",
            401: f"set the server's key in {self.api_key_variable}",
            403: f"set a key that may use this model in {self.api_key_variable}",
            404: "check student.model, student.server and student.base_url",
            429: "lower student.max_concurrency or wait for the quota",
        }
        return f"{remedies.get(status, 'look into the server')} (after up to {self.max_retries} retries)"
