"""The paid Teacher: Claude over the Messages API, with structured outputs."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pld.adapters.assets import cache_folder
from pld.adapters.teachers.answer_schema import read_answer
from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore, StoredAnswer, request_key
from pld.errors import TeacherError
from pld.ports import TeacherAnswer, TeacherRequest

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import Message

Effort = Literal["low", "medium", "high", "xhigh", "max"]
_ENDPOINT = "https://api.anthropic.com"
_ONE_REQUEST = (400, 413, 422)  # statuses that speak about one request, and say nothing about the next
_TURNED_DOWN = "bad_request"  # the code of such an answer
_TURNED_DOWN_AT_START = 5  # so many before any other answer: it is not the request, it is the settings
_REMEDIES = {
    401: "check ANTHROPIC_API_KEY",
    402: "check the account's billing",
    403: "use a key that may use this model, or another teacher.model",
    404: "check teacher.model (and ANTHROPIC_BASE_URL, if it is set)",
    429: "lower teacher.concurrency or wait for the quota",
}


class _StoppedError(Exception):
    """No further attempt is made: the batch is being given up."""


class AnthropicTeacher:
    """Asks `concurrency` requests at a time; the SDK retries each up to `max_retries` times.

    Every answer is stored (by a hash of what determines it) before it is used, also one that is a refusal, cut off or
    not what was asked for: it was paid for, and asking the same again is the user's choice (remove the store). The
    key is read when a first new answer is needed, so a rerun that needs none needs no key.
    """

    def __init__(
        self,
        *,
        model: str,
        max_tokens: PositiveInt,
        effort: Effort | None,
        concurrency: PositiveInt,
        max_retries: NonNegativeInt,
        timeout_s: PositiveFloat,
    ) -> None:
        self.name = f"anthropic:{model}"
        self._model = model
        self._max_tokens = max_tokens
        self._effort = effort
        self._concurrency = concurrency
        self._max_retries = max_retries
        self._timeout_s = timeout_s

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        """Stored answers first, then the new ones as they arrive; requests that are alike are paid for once.

        On a systemic fault (TeacherError) and on Ctrl-C no new attempt is made, the answers in flight are awaited
        and stored, and only then it raises.
        """
        store = AnswerStore(cache_folder() / FILE_NAME)
        new: dict[str, list[TeacherRequest]] = {}
        for request in requests:
            key = request_key(self._determinants(request))
            stored = store.get(key)
            if stored is None:
                new.setdefault(key, []).append(request)
            else:
                yield _answer(request, stored)
        if new:
            yield from self._ask_new(new, store)

    def _ask_new(self, new: Mapping[str, list[TeacherRequest]], store: AnswerStore) -> Iterator[TeacherAnswer]:
        stop = threading.Event()
        client = self._client(stop)
        pool = ThreadPoolExecutor(self._concurrency, thread_name_prefix="teacher")
        try:
            futures: dict[Future[StoredAnswer], list[TeacherRequest]] = {
                pool.submit(self._ask_one, client, store, key, alike[0], stop): alike for key, alike in new.items()
            }
            answered = turned_down = 0
            for future in as_completed(futures):
                try:
                    stored = future.result()
                except _StoppedError:  # the fault that stopped it comes with another future
                    continue
                if (stored.error or "").startswith(_TURNED_DOWN):
                    turned_down += 1
                else:
                    answered += 1
                if not answered and turned_down == _TURNED_DOWN_AT_START:
                    raise TeacherError(
                        f"{self.name}: wanted answers, but each of the first {turned_down} requests was turned down: "
                        f"{stored.error}; check the settings in conf/teacher/"
                    )
                for request in futures[future]:
                    yield _answer(request, stored)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            client.close()

    def _ask_one(
        self, client: anthropic.Anthropic, store: AnswerStore, key: str, request: TeacherRequest, stop: threading.Event
    ) -> StoredAnswer:
        """One request, its answer stored. What was not paid for (a request that was turned down) is not stored."""
        if stop.is_set():
            raise _StoppedError
        try:
            stored = self._send(client, request)
            if (stored.error or "").startswith(_TURNED_DOWN):
                return stored
            about = {"provider": "anthropic", "model": self._model, "role": request.role, "request": request.key}
            return store.put(key, stored, about)
        except BaseException:
            stop.set()  # here, so that no worker takes up the next request before the caller hears of it
            raise

    def _send(self, client: anthropic.Anthropic, request: TeacherRequest) -> StoredAnswer:
        import anthropic

        try:
            message = client.messages.create(**self._body(request))
        except anthropic.APIStatusError as error:
            if error.status_code in _ONE_REQUEST:
                return StoredAnswer(None, f"{_TURNED_DOWN}: {_words(error)}", {})
            raise self._systemic(error) from None
        except anthropic.AnthropicError as error:
            raise self._systemic(error) from None
        except ValueError as error:  # a body that is not JSON
            raise self._not_the_api(str(error)) from None
        if not isinstance(message, anthropic.types.Message) or not message.usage or message.content is None:
            raise self._not_the_api(f"{message!r:.80}")
        return _read_message(message, request.schema, self._max_tokens)

    def _body(self, request: TeacherRequest) -> dict[str, Any]:
        from anthropic import transform_schema

        # constraints that the API does not know move into descriptions; answers are checked against the original
        output: dict[str, Any] = {"format": {"type": "json_schema", "schema": transform_schema(dict(request.schema))}}
        if self._effort is not None:
            output["effort"] = self._effort
        return {
            "model": self._model,
            "max_tokens": self._max_tokens,
            "system": request.system,
            "messages": [{"role": "user", "content": request.prompt}],
            "output_config": output,
        }

    def _determinants(self, request: TeacherRequest) -> dict[str, Any]:
        """The endpoint is one of them: what a stand-in server answers must never pass for Claude's answer."""
        return {
            "provider": "anthropic",
            "endpoint": (os.environ.get("ANTHROPIC_BASE_URL") or _ENDPOINT).rstrip("/"),
            "model": self._model,
            "max_tokens": self._max_tokens,
            "effort": self._effort,
            "system": request.system,
            "prompt": request.prompt,
            "schema": dict(request.schema),
        }

    def _client(self, stop: threading.Event) -> anthropic.Anthropic:
        import anthropic

        def unless_stopped(request: Any, call_next: Any) -> Any:  # runs once per attempt, retries included
            if stop.is_set():
                raise _StoppedError
            return call_next(request)

        try:
            client = anthropic.Anthropic(
                max_retries=self._max_retries, timeout=self._timeout_s, middleware=[unless_stopped]
            )
        except Exception as error:  # a malformed URL, profile or proxy, each with a class of its own
            raise TeacherError(
                f"{self.name}: wanted a client, found: {' '.join(str(error).split()):.200}; "
                "check the ANTHROPIC_* variables of the environment"
            ) from None
        if not any(((client.api_key or "").strip(), (client.auth_token or "").strip(), client.credentials)):
            client.close()
            raise TeacherError(
                f"{self.name}: wanted a key in ANTHROPIC_API_KEY, found none; set it, "
                "or play back recorded answers with groups.teacher=recorded"
            )
        return client

    def _systemic(self, error: anthropic.AnthropicError) -> TeacherError:
        status = getattr(error, "status_code", None)
        remedy = _REMEDIES.get(status or 0, "check the network and the service's status")
        return TeacherError(
            f"{self.name}: wanted an answer, found {f'status {status}: ' if status else ''}{_words(error)} "
            f"(after up to {self._max_retries} retries); {remedy}, then run again: "
            "answers that arrived are kept and not paid for twice"
        )

    def _not_the_api(self, found: str) -> TeacherError:
        return TeacherError(
            f"{self.name}: wanted a message of the Messages API, found {' '.join(found.split()):.120}; "
            "check ANTHROPIC_BASE_URL"
        )


def _read_message(message: Message, schema: Mapping[str, Any], max_tokens: int) -> StoredAnswer:
    usage = {name: count for name, count in message.usage.to_dict().items() if isinstance(count, int) and count}
    text = "".join(block.text for block in message.content if block.type == "text")
    if message.stop_reason == "refusal":
        category = message.stop_details.category if message.stop_details else None
        return StoredAnswer(None, f"refusal: the model declined ({category or 'no category given'})", usage)
    if message.stop_reason == "max_tokens":
        return StoredAnswer(None, f"truncated: stopped at max_tokens {max_tokens}", usage)
    if message.stop_reason not in ("end_turn", "stop_sequence"):
        return StoredAnswer(None, f"invalid: stopped by {message.stop_reason}", usage)
    if not text.strip():
        return StoredAnswer(None, "empty: no text", usage)
    try:
        return StoredAnswer(read_answer(text, schema), None, usage)
    except ValueError as error:
        return StoredAnswer(None, f"invalid: {error}", usage)


def _words(error: Exception) -> str:
    words = getattr(error, "api_message", None) or str(error) or type(error).__name__
    return f"{' '.join(str(words).split()):.200}"


def _answer(request: TeacherRequest, stored: StoredAnswer) -> TeacherAnswer:
    return TeacherAnswer(key=request.key, content=stored.content, error=stored.error, usage=stored.usage)
