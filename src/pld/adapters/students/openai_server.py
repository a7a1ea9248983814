"""One OpenAI-compatible server over the openai SDK: requests with its retries, and every fault of it in one line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pld.adapters.openai_client import NoClientError, address, check_installed, open_client
from pld.adapters.students.engine.label_tree import Ids
from pld.adapters.students.server_dialects import CONTINUED, DIALECTS, Ending, ServerKind, Turns
from pld.errors import StudentError
from pld.records import Message

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

_TOO_LONG = re.compile(
    r"context[ _](length|size|window)|maximum model length|max_model_len|longer than the (model|maximum)", re.IGNORECASE
)


class TooLongError(Exception):
    """The request does not fit into the model's context."""


class OpenAIServer:
    """`complete` and the counts may be called from several threads; the SDK retries each request (429, 5xx, 408, 409,
    time-outs, refused connections) up to `max_retries` times with back-off, and obeys retry-after.

    The key is read from the environment when the first request is made. Raises StudentError for every fault but a
    chat that is too long.
    """

    def __init__(
        self,
        *,
        student: str,
        kind: ServerKind,
        base_url: str | None,
        model: str,
        api_key_variable: str,
        max_retries: int,
        timeout_s: float,
        extra_body: Mapping[str, Any],
    ) -> None:
        self.dialect = DIALECTS[kind]()
        self.context: int | None = None
        self._student = student
        self._kind = kind
        self._base_url = base_url
        self._model = model
        self._api_key_variable = api_key_variable
        self._max_retries = max_retries
        self._timeout_s = timeout_s
        self._extra_body = dict(extra_body)
        self._connected: openai.OpenAI | None = None
        self._silences_system = False

    def complete(
        self,
        chat: Sequence[Message],
        *,
        answer: str = "",
        max_tokens: int = 1,
        top_logprobs: int | None = None,
        **more: Any,
    ) -> ChatCompletion:
        """The greedy continuation of `chat`, whose answer begins with `answer`; `more` goes into the body.

        Raises TooLongError.
        """
        from openai.types.chat import ChatCompletion

        client = self.connect()
        turns = self._turns(chat)
        if answer:
            turns = [*turns, {"role": "assistant", "content": answer}]
        body = {**self.dialect.always, **self._extra_body, **(CONTINUED if answer else {}), **more}
        asked: Any = {} if top_logprobs is None else {"logprobs": True, "top_logprobs": top_logprobs}
        with self._translated():
            completion = client.chat.completions.create(
                model=self._model,
                messages=turns,  # type: ignore[arg-type]
                max_tokens=max_tokens,
                temperature=0,
                extra_body=body,
                **asked,
            )
        if not isinstance(completion, ChatCompletion) or not completion.choices or not completion.choices[0].message:
            self.refuse("a chat completion", f"{completion!r:.80}", "check student.base_url and student.server")
        return completion

    def chat_ids(self, chat: Sequence[Message], ending: Ending) -> Ids:
        """The tokens that the server makes of `chat`."""
        self.connect()
        return self.dialect.chat_ids(self._ask, self._turns(chat), ending)

    def token_names(self, ids: Sequence[int]) -> list[str]:
        self.connect()
        return self.dialect.token_names(ids, self._ask)

    def count_chat(self, chat: Sequence[Message]) -> int:
        self.connect()
        return self.dialect.count_chat(self._ask, self._turns(chat))

    def count_text(self, text: str) -> int:
        self.connect()
        return self.dialect.count_text(self._ask, text)

    def connect(self) -> openai.OpenAI:
        """The client, after a check that the server is there, lets us in and has the model."""
        if self._connected is None:
            client = self._client()
            with self._translated():
                cards = client.models.list().data
            found = {name: card for card in cards or () for name in (card.id, *(getattr(card, "aliases", None) or ()))}
            if self._model not in found:
                names = ", ".join(found) or "none"
                self.refuse(f"the model {self._model!r}", f"{names:.200}", "set student.model to one that is served")
            self._connected = client
            self.context = self.dialect.context(found[self._model])
            self._silences_system = self._writes_a_system_text()
        return self._connected

    def refuse(self, wanted: str, found: str, remedy: str) -> NoReturn:
        raise StudentError(
            f"expected {wanted}, got {' '.join(found.split())} (student {self._student} ({self._kind} server)); "
            f"{remedy}"
        )

    def _client(self) -> openai.OpenAI:
        try:
            check_installed()
            import openai

            url = address(self._base_url, "student")
            self._root = url.removesuffix("/v1")
            return open_client(
                openai.OpenAI,
                url=url,
                role="student",
                api_key_variable=self._api_key_variable,
                max_retries=self._max_retries,
                timeout_s=self._timeout_s,
            )
        except NoClientError as error:
            self.refuse(error.wanted, error.found, error.remedy)

    def _writes_a_system_text(self) -> bool:
        """Whether the chat template writes a system text of its own where none is given (as for the in-process
        Student, an empty one then takes its place: a prompt holds nothing that nobody wrote)."""
        user = {"role": "user", "content": "a"}
        silent = len(self.dialect.chat_ids(self._ask, [user], "answer"))
        try:
            given = self.dialect.chat_ids(self._ask_once, [{"role": "system", "content": ""}, user], "answer")
        except StudentError:  # the template knows no system role
            return False
        return len(given) < silent

    def _turns(self, chat: Sequence[Message]) -> Turns:
        turns = [{"role": message.role, "content": message.content} for message in chat]
        if self._silences_system and turns and turns[0]["role"] != "system":
            return [{"role": "system", "content": ""}, *turns]
        return turns

    def _ask(self, path: str, body: Mapping[str, Any], field: str) -> Any:
        return self._post(path, body, field)

    def _ask_once(self, path: str, body: Mapping[str, Any], field: str) -> Any:
        return self._post(path, body, field, {"max_retries": 0})

    def _post(
        self, path: str, body: Mapping[str, Any], field: str, options: openai.RequestOptions | None = None
    ) -> Any:
        assert self._connected is not None
        whole = {"model": self._model, **self._extra_body, **body}
        with self._translated():
            # no `with_options`: the copy would take up another service's organisation from the environment again
            url = f"{self._root}/{path}"
            answer: Any = self._connected.post(url, cast_to=object, body=whole, options=options or {})
        if not isinstance(answer, Mapping) or field not in answer:
            self.refuse(f"{field!r} from /{path}", f"{answer!r:.80}", "check student.server and student.base_url")
        return answer[field]

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
            self.refuse(f"an answer within {self._timeout_s:g} s", f"{error.message}{cause:.120}", remedy)
        except (openai.OpenAIError, ValueError, AttributeError, TypeError) as error:
            self.refuse("the OpenAI API", f"{error!s:.160}", "check student.base_url and student.server")

    def _remedy(self, status: int) -> str:
        remedies = {
            400: "check student.server, student.extra_body and student.top_logprobs against what the server takes",
            401: f"set the server's key in {self._api_key_variable}",
            403: f"set a key that may use this model in {self._api_key_variable}",
            404: "check student.model, student.server and student.base_url",
            429: "lower student.max_concurrency or wait for the quota",
        }
        return f"{remedies.get(status, 'look into the server')} (after up to {self._max_retries} retries)"
