"""A Teacher behind any OpenAI-compatible endpoint (vLLM, SGLang, llama.cpp's server, a gateway), over the openai SDK.

A thinking model's `reasoning_content` is not looked at; an answer is the JSON that the schema asks for, and nothing
around it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from pld.adapters.openai_client import NoClientError, address, open_client
from pld.adapters.teachers.answer_store import StoredAnswer
from pld.adapters.teachers.concurrency import answer_by_sdk, systemic_error
from pld.adapters.teachers.paid_teacher import (
    Account,
    Call,
    PaidTeacher,
    Role,
    RoleSettings,
    Terms,
    most_tokens,
    stored_answer,
)
from pld.errors import ConfigError, TeacherError
from pld.ports import TeacherRequest

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletion

LengthField = Literal["max_tokens", "max_completion_tokens"]


class OpenAICompatibleTeacher(PaidTeacher):
    """Asks up to `max_concurrency` requests at a time; the SDK retries each up to `max_retries` times. `base_url` null:
    OPENAI_BASE_URL. Raises ConfigError without an address and without the extra `openai`."""

    provider = "openai"

    def __init__(
        self,
        *,
        base_url: str | None,
        model: str,
        api_key_variable: str,
        max_tokens: PositiveInt,
        max_tokens_field: LengthField,
        temperature: NonNegativeFloat | None,
        roles: dict[Role, RoleSettings],
        max_concurrency: PositiveInt,
        max_retries: NonNegativeInt,
        timeout_s: PositiveFloat,
        extra_body: dict[str, Any],
        terms: Terms | None = None,
    ) -> None:
        super().__init__(RoleSettings(model=model, max_tokens=max_tokens), roles, terms)
        self._base_url = base_url
        self._api_key_variable = api_key_variable
        self._max_tokens_field = max_tokens_field
        self._temperature = temperature
        self._max_concurrency = max_concurrency
        self._max_retries = max_retries
        self._timeout_s = timeout_s
        self._extra_body = extra_body

    def way_of(self, role: str) -> str:  # noqa: ARG002
        return "openai"

    def count_tokens(self, requests: Sequence[TeacherRequest]) -> list[int] | None:  # noqa: ARG002
        """None: no endpoint for it is common to these servers."""
        return None

    def body(self, request: TeacherRequest) -> dict[str, Any]:
        """The parameters of `chat.completions.create`."""
        body: dict[str, Any] = {
            "model": self.model_of(request.role),
            "messages": [
                {"role": "system", "content": request.system},
                {"role": "user", "content": request.prompt},
            ],
            self._max_tokens_field: self.max_tokens_of(request.role),
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": dict(request.schema), "strict": True},
            },
        }
        if self._temperature is not None:
            body["temperature"] = self._temperature
        if request.draw:
            body["seed"] = request.draw  # a gateway that keeps answers would give the first draw's again
        return body | {"extra_body": self._extra_body}

    def _determinants(self, request: TeacherRequest) -> dict[str, Any]:
        return {
            "provider": self.provider,
            "endpoint": self._address(),
            "model": self.model_of(request.role),
            "max_tokens": self.max_tokens_of(request.role),
            "temperature": self._temperature,
            "extra_body": self._extra_body,
            "system": request.system,
            "prompt": request.prompt,
            "schema": dict(request.schema),
        }

    def _answers(self, calls: Mapping[str, Call], account: Account) -> Iterator[tuple[str, StoredAnswer]]:
        client = self._client()
        import openai
        from openai.types.chat import ChatCompletion

        def attempt(call: Call) -> StoredAnswer:
            answer = client.chat.completions.create(**self.body(call.request))
            if not isinstance(answer, ChatCompletion) or not answer.choices or not answer.choices[0].message:
                raise TeacherError(
                    f"expected a chat completion, got {' '.join(f'{answer!r:.120}'.split())} ({self.name}); check "
                    "teacher.base_url (it mostly ends in /v1)"
                )
            return self._read(answer, call)

        def describe(error: Exception) -> TeacherError:
            return systemic_error(self.name, error, self._max_retries, self._remedies())

        yield from answer_by_sdk(
            calls, account, client, attempt, openai.OpenAIError, describe, self._max_concurrency, self._max_retries
        )

    def _read(self, completion: ChatCompletion, call: Call) -> StoredAnswer:
        max_tokens = self.max_tokens_of(call.request.role)
        # a server that does not count is taken to have used the most, so that a budget holds
        usage = usage_of(completion) or {"input_tokens": most_tokens(call.request), "output_tokens": max_tokens}
        choice = completion.choices[0]
        text = choice.message.content or ""
        if choice.message.refusal or choice.finish_reason == "content_filter":
            found = " ".join((choice.message.refusal or "no reason given").split())
            return StoredAnswer(None, f"refusal: the model declined ({found:.200})", usage)
        if choice.finish_reason == "length":
            return StoredAnswer(None, f"truncated: stopped at max_tokens {max_tokens} or at the context's end", usage)
        return stored_answer(text, call.request.schema, usage)

    def _client(self) -> openai.OpenAI:
        """Without retries of its own."""
        try:
            return open_client(
                url=self._address(),
                role="teacher",
                api_key_variable=self._api_key_variable,
                max_retries=0,
                timeout_s=self._timeout_s,
            )
        except NoClientError as error:
            raise ConfigError(f"{error} (teacher {self.name})") from None

    def _address(self) -> str:
        try:
            return address(self._base_url, "teacher")
        except NoClientError as error:
            raise ConfigError(f"{error} (teacher {self.name})") from None

    def _remedies(self) -> dict[int, str]:
        return {
            401: f"set the server's key in {self._api_key_variable}",
            402: "check the account's billing",
            403: f"set a key that may use this model in {self._api_key_variable}, or another teacher.model",
            404: "check teacher.model (as /v1/models names it) and teacher.base_url",
            429: "lower teacher.max_concurrency or wait for the quota",
            0: "check that the server runs, and teacher.base_url and teacher.timeout_s",
        }


def usage_of(completion: ChatCompletion) -> dict[str, int]:
    """Tokens under the names of the Messages API; nothing where the server does not count."""
    usage = completion.usage
    if usage is None:
        return {}
    cached = (usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else None) or 0
    counts = {
        "input_tokens": (usage.prompt_tokens or 0) - cached,
        "cache_read_input_tokens": cached,
        "output_tokens": usage.completion_tokens or 0,
    }
    return {name: count for name, count in counts.items() if count}
