"""The paid Teacher: Claude over the Messages API, with structured outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pld.adapters.teachers.answer_store import StoredAnswer
from pld.adapters.teachers.batches import Batches
from pld.adapters.teachers.concurrency import answer_by_sdk, systemic_error
from pld.adapters.teachers.paid_teacher import Account, Call, PaidTeacher, Role, RoleSettings, Terms, stored_answer
from pld.errors import TeacherError
from pld.ports import ONE_AT_A_TIME, TeacherRequest
from pld.redaction import holds_secret

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import Message

Effort = Literal["low", "medium", "high", "xhigh", "max"]
Way = Literal["messages", "batches"]
_ENDPOINT = "https://api.anthropic.com"
_REMEDIES = {
    400: "check the settings in conf/teacher/, or set teacher.way=messages",  # of a batch
    401: "check ANTHROPIC_API_KEY",
    402: "check the account's billing",
    403: "use a key that may use this model, or another teacher.model",
    404: "check teacher.model (and ANTHROPIC_BASE_URL, if it is set)",
    429: "lower teacher.max_concurrency or wait for the quota",
    0: "check the network, the service's status (and ANTHROPIC_BASE_URL, if it is set)",
}


class ClaudeSettings(RoleSettings):
    effort: Effort | None = None


class AnthropicTeacher(PaidTeacher):
    """`way: messages` asks up to `max_concurrency` requests at a time; `way: batches` submits all of them together,
    for half the price (not in roles that ask one question at a time). The SDK retries each request up to `max_retries`
    times. The answers are the same ones: what was stored by one way is found by the other."""

    provider = "anthropic"

    def __init__(
        self,
        *,
        way: Way,
        model: str,
        max_tokens: PositiveInt,
        effort: Effort | None,
        temperature: float | None,
        roles: dict[Role, ClaudeSettings],
        max_concurrency: PositiveInt,
        max_retries: NonNegativeInt,
        timeout_s: PositiveFloat,
        poll_s: PositiveFloat,
        terms: Terms | None = None,
    ) -> None:
        super().__init__(ClaudeSettings(model=model, max_tokens=max_tokens, effort=effort), roles, terms)
        self._way = way
        self._temperature = temperature
        self._max_concurrency = max_concurrency
        self.max_retries = max_retries
        self._timeout_s = timeout_s
        self._poll_s = poll_s

    def way_of(self, role: str) -> Way:
        return "messages" if role in ONE_AT_A_TIME else self._way

    def _answers(self, calls: Mapping[str, Call], account: Account) -> Iterator[tuple[str, StoredAnswer]]:
        batches = Batches(self, account, endpoint(), self._poll_s)
        by_batches = any(call.question.way == "batches" for call in calls.values())  # all are in one role
        left = dict(calls)
        try:
            for key, answer in batches.answers(calls, submit=by_batches):
                left.pop(key)
                yield key, answer
        except KeyboardInterrupt:
            batches.cancel()
            raise
        finally:
            batches.close()
        if not left:
            return
        import anthropic

        client = self.client(max_retries=0)

        def attempt(call: Call) -> StoredAnswer:
            message = client.messages.create(**self.body(call.request))
            if not isinstance(message, anthropic.types.Message) or not message.usage or message.content is None:
                raise TeacherError(
                    f"expected a message of the Messages API, got {' '.join(f'{message!r:.80}'.split())} ({self.name})"
                    "; check ANTHROPIC_BASE_URL"
                )
            return self.read_message(message, call.request.schema, self.max_tokens_of(call.request.role))

        yield from answer_by_sdk(
            left,
            account,
            client,
            attempt,
            anthropic.AnthropicError,
            self.systemic_error,
            self._max_concurrency,
            self.max_retries,
        )

    @staticmethod
    def read_message(message: Message, schema: Mapping[str, Any], max_tokens: int) -> StoredAnswer:
        """A refusal, a truncated and a malformed answer have an error, and usage: they were paid for."""
        usage = {name: count for name, count in message.usage.to_dict().items() if isinstance(count, int) and count}
        text = "".join(block.text for block in message.content if block.type == "text")
        if message.stop_reason == "refusal":
            category = message.stop_details.category if message.stop_details else None
            return StoredAnswer(None, f"refusal: the model declined ({category or 'no category given'})", usage)
        if message.stop_reason == "max_tokens":
            return StoredAnswer(None, f"truncated: stopped at max_tokens {max_tokens}", usage)
        if message.stop_reason not in ("end_turn", "stop_sequence"):
            return StoredAnswer(None, f"invalid: stopped by {message.stop_reason}", usage)
        return stored_answer(text, schema, usage)

    def count_tokens(self, requests: Sequence[TeacherRequest]) -> list[int] | None:
        """By the counting endpoint, which is free of charge. None without a key. Raises TeacherError."""
        import anthropic

        if not os.environ.get("ANTHROPIC_API_KEY") and not os.environ.get("ANTHROPIC_AUTH_TOKEN"):
            return None
        client = self.client(max_retries=1)  # an estimate is not worth a long wait
        try:
            bodies = [self.body(request) for request in requests]
            counted = ("model", "system", "messages", "output_config")
            return [
                client.messages.count_tokens(**{name: body[name] for name in counted}).input_tokens for body in bodies
            ]
        except anthropic.AnthropicError as error:
            raise self.systemic_error(error) from None
        finally:
            client.close()

    def body(self, request: TeacherRequest) -> dict[str, Any]:
        """The parameters of `messages.create`. What all requests of a role share is marked for the prompt cache."""
        from anthropic import transform_schema

        # constraints that the API does not know move into descriptions; answers are checked against the original
        output: dict[str, Any] = {"format": {"type": "json_schema", "schema": transform_schema(dict(request.schema))}}
        if (effort := self._setting(request.role, "effort")) is not None:
            output["effort"] = effort
        kept: dict[str, str] = {"type": "ephemeral"} | ({"ttl": "1h"} if self.way_of(request.role) == "batches" else {})
        body: dict[str, Any] = {
            "model": self.model_of(request.role),
            "max_tokens": self.max_tokens_of(request.role),
            "system": [{"type": "text", "text": request.system, "cache_control": kept}],
            "messages": [{"role": "user", "content": request.prompt}],
            "output_config": output,
        }
        if self._temperature is not None:
            # the SDK (2.12) knows it no more: models since Opus 4.7 refuse it, older ones take it
            return body | {"extra_body": {"temperature": self._temperature}}
        return body

    def _determinants(self, request: TeacherRequest) -> dict[str, Any]:
        """The endpoint is one of them: what a stand-in server answers must never pass for Claude's answer."""
        set_here = {} if self._temperature is None else {"temperature": self._temperature}
        return {
            "provider": self.provider,
            "endpoint": endpoint(),
            "model": self.model_of(request.role),
            "max_tokens": self.max_tokens_of(request.role),
            "effort": self._setting(request.role, "effort"),
            "system": request.system,
            "prompt": request.prompt,
            "schema": dict(request.schema),
        } | set_here

    def client(self, max_retries: int | None = None) -> anthropic.Anthropic:
        """`max_retries`: None for the configured ones. Raises TeacherError without a key."""
        import anthropic

        retries = self.max_retries if max_retries is None else max_retries
        try:
            client = anthropic.Anthropic(max_retries=retries, timeout=self._timeout_s)
        except Exception as error:  # a malformed URL, profile or proxy, each with a class of its own
            raise TeacherError(
                f"expected a client, got: {' '.join(str(error).split()):.200} ({self.name}); check the ANTHROPIC_* "
                "variables of the environment"
            ) from None
        if not any(((client.api_key or "").strip(), (client.auth_token or "").strip(), client.credentials)):
            client.close()
            raise TeacherError(
                f"expected a key in ANTHROPIC_API_KEY, got none ({self.name}); set it, or play back recorded "
                "answers with groups.teacher=recorded"
            )
        return client

    def systemic_error(self, error: Exception) -> TeacherError:
        return systemic_error(self.name, error, self.max_retries, _REMEDIES)


def endpoint() -> str:
    """Where the Messages API is asked for. Raises TeacherError where it holds a secret: the SDK logs addresses."""
    url = (os.environ.get("ANTHROPIC_BASE_URL") or _ENDPOINT).rstrip("/")
    if holds_secret(url):
        raise TeacherError(
            "expected an address without user, password and key, got one with (ANTHROPIC_BASE_URL); give them in "
            "ANTHROPIC_CUSTOM_HEADERS (Authorization: Basic ...) or ANTHROPIC_AUTH_TOKEN"
        )
    return url
