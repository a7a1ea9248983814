"""The paid Teacher: Claude over the Messages API, with structured outputs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveFloat, PositiveInt

from pld.adapters.teachers.answer_schema import read_answer
from pld.adapters.teachers.answer_store import StoredAnswer
from pld.adapters.teachers.batches import Batches
from pld.adapters.teachers.concurrency import AdaptiveLimit, answer_concurrently
from pld.adapters.teachers.paid_teacher import Account, Call, PaidTeacher, Terms
from pld.adapters.teachers.sdk_errors import InterruptibleRetries, bad_request, systemic_error
from pld.errors import TeacherError
from pld.ports import ONE_AT_A_TIME, TeacherRequest
from pld.redaction import holds_secret

if TYPE_CHECKING:
    import anthropic
    from anthropic.types import Message

Effort = Literal["low", "medium", "high", "xhigh", "max"]
Role = Literal["extract", "consolidate", "resolve", "optimise"]
Way = Literal["messages", "batches"]
_ENDPOINT = "https://api.anthropic.com"
_REMEDIES = {
    401: "check ANTHROPIC_API_KEY",
    402: "check the account's billing",
    403: "use a key that may use this model, or another teacher.model",
    404: "check teacher.model (and ANTHROPIC_BASE_URL, if it is set)",
    429: "lower teacher.max_concurrency or wait for the quota",
    0: "check the network and the service's status",
}


class RoleSettings(BaseModel):
    """What differs for one role; None: as for the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str | None = None
    max_tokens: PositiveInt | None = None
    effort: Effort | None = None


class AnthropicTeacher(PaidTeacher):
    """`way: messages` asks up to `max_concurrency` requests at a time; `way: batches` hands all of them in together,
    for half the price (not in roles that ask one question at a time). The SDK retries each request up to `max_retries`
    times. The answers are the same ones: what was stored by one way is found by the other."""

    provider = "anthropic"
    remedies = _REMEDIES

    def __init__(
        self,
        *,
        way: Way,
        model: str,
        max_tokens: PositiveInt,
        effort: Effort | None,
        temperature: float | None,
        roles: dict[Role, RoleSettings],
        max_concurrency: PositiveInt,
        max_retries: NonNegativeInt,
        timeout_s: PositiveFloat,
        poll_s: PositiveFloat,
        terms: Terms | None = None,
    ) -> None:
        super().__init__(terms)
        self._way = way
        self._general = RoleSettings(model=model, max_tokens=max_tokens, effort=effort)
        self._temperature = temperature
        self._roles = roles
        self._max_concurrency = max_concurrency
        self.max_retries = max_retries
        self._timeout_s = timeout_s
        self._poll_s = poll_s

    def model_of(self, role: str) -> str:
        return str(self._setting(role, "model"))

    def max_tokens_of(self, role: str) -> int:
        return int(self._setting(role, "max_tokens"))

    def way_of(self, role: str) -> Way:
        return "messages" if role in ONE_AT_A_TIME else self._way

    def _setting(self, role: str, name: str) -> Any:
        own = next((settings for known, settings in self._roles.items() if known == role), None)
        value = getattr(own, name, None)
        return getattr(self._general, name) if value is None else value

    def _answers(self, calls: Mapping[str, Call], account: Account) -> Iterator[tuple[str, StoredAnswer]]:
        batches = Batches(self, account, endpoint(), self._poll_s)
        by_batches = any(call.question.way == "batches" for call in calls.values())  # all are in one role
        left = dict(calls)
        try:
            for key, answer in batches.answers(calls, hand_in=by_batches):
                left.pop(key)
                yield key, answer
        except KeyboardInterrupt:
            batches.cancel()
            raise
        finally:
            batches.close()
        if not left:
            return
        limit = AdaptiveLimit(self._max_concurrency)
        client = self.client(limit)
        try:
            yield from answer_concurrently(left, account, limit, lambda call: self._send(client, call), self.name)
        finally:
            client.close()

    def _send(self, client: anthropic.Anthropic, call: Call) -> StoredAnswer:
        import anthropic

        try:
            message = client.messages.create(**self.body(call.request))
        except anthropic.RetryableError as error:
            raise self._not_the_api(str(error)) from None
        except anthropic.AnthropicError as error:
            if answer := bad_request(error):
                return answer
            raise self.systemic_error(error) from None
        if not isinstance(message, anthropic.types.Message) or not message.usage or message.content is None:
            raise self._not_the_api(f"{message!r:.80}")
        return self.read_message(message, call.request.schema, self.max_tokens_of(call.request.role))

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
        if not text.strip():
            return StoredAnswer(None, "empty: no text", usage)
        try:
            return StoredAnswer(read_answer(text, schema), None, usage)
        except ValueError as error:
            return StoredAnswer(None, f"invalid: {error}", usage)

    def count_tokens(self, requests: Sequence[TeacherRequest]) -> list[int] | None:
        """By the counting endpoint, which is free of charge. None without a key. Raises TeacherError."""
        import anthropic

        if not os.environ.get("ANTHROPIC_API_KEY") and not os.environ.get("ANTHROPIC_AUTH_TOKEN"):
            return None
        client = self.client(AdaptiveLimit(1)).with_options(max_retries=1)  # an estimate is not worth a long wait
        try:
            bodies = [self.body(request) for request in requests]
            wanted = ("model", "system", "messages", "output_config")
            return [
                client.messages.count_tokens(**{name: body[name] for name in wanted}).input_tokens for body in bodies
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

    def client(self, limit: AdaptiveLimit | None = None) -> anthropic.Anthropic:
        """Raises TeacherError without a key. `limit`: on attempts in flight; None: for one thread."""
        import anthropic

        limit = limit or AdaptiveLimit(2)

        def within_limit(request: Any, call_next: Any) -> Any:  # runs once per attempt, retries included
            with limit.attempt() as learn:
                response = call_next(request)
                learn(response.status_code)
            try:
                if response.http_response.is_success:
                    response.parse()
            except ValueError as error:  # cut off on the way, perhaps
                raise anthropic.RetryableError(f"a body that is no JSON: {error}") from None
            return response

        class Client(InterruptibleRetries, anthropic.Anthropic):
            pass

        Client.limit = limit  # of the class: what `with_options` makes has it too
        try:
            client = Client(max_retries=self.max_retries, timeout=self._timeout_s, middleware=[within_limit])
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
        return systemic_error(self.name, error, self.max_retries, self.remedies)

    def _not_the_api(self, found: str) -> TeacherError:
        return TeacherError(
            f"expected a message of the Messages API, got {' '.join(found.split()):.120} ({self.name}); check "
            "ANTHROPIC_BASE_URL"
        )


def endpoint() -> str:
    """Where the Messages API is asked for. Raises TeacherError where it holds a secret: the SDK logs addresses."""
    url = (os.environ.get("ANTHROPIC_BASE_URL") or _ENDPOINT).rstrip("/")
    if holds_secret(url):
        raise TeacherError(
            "expected an address without user, password and key, got one with (ANTHROPIC_BASE_URL); give them in "
            "ANTHROPIC_CUSTOM_HEADERS (Authorization: Basic ...) or ANTHROPIC_AUTH_TOKEN"
        )
    return url
