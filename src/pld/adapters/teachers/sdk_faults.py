"""The two SDKs are made by one generator: how they rest between attempts, and what they raise in one line."""

from collections.abc import Mapping
from typing import Any

from pld.adapters.teachers.answer_store import StoredAnswer
from pld.adapters.teachers.concurrency import AdaptiveLimit
from pld.adapters.teachers.paid import TURNED_DOWN
from pld.errors import TeacherError
from pld.redaction import redacted

_ONE_REQUEST = (400, 413, 422)  # statuses that speak about one request, and say nothing about the next
_LONGEST_WAIT_S = 120.0  # the openai SDK waits no longer for a service that asks for it; so neither does the other


class RestsWithinLimit:
    """Mixed into a client of anthropic 2.12 or openai 3.54: its own sleep would outlast Ctrl-C and systemic faults."""

    limit: AdaptiveLimit

    def _sleep_for_retry(self, *, retries_taken: int, max_retries: int, options: Any, response: Any) -> None:
        client: Any = self
        headers = None if response is None else response.headers
        seconds = client._calculate_retry_timeout(max_retries - retries_taken, options, headers)
        if seconds > _LONGEST_WAIT_S:
            raise client._make_status_error_from_response(response)
        self.limit.rest(seconds)


def turned_down_by(error: Exception) -> StoredAnswer | None:
    """The answer to a request that the service does not take as it is; None: `error` is about more than that."""
    if getattr(error, "status_code", None) in _ONE_REQUEST:
        return StoredAnswer(None, f"{TURNED_DOWN}: {words_of(error)}", {})
    return None


def systemic(name: str, error: Exception, max_retries: int, remedies: Mapping[int, str]) -> TeacherError:
    """`remedies`: what to do, by status; 0: about any other, and where there was no response."""
    status = getattr(error, "status_code", None)
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    wait = f", it asks to wait {headers['retry-after']} s" if "retry-after" in headers else ""
    return TeacherError(
        f"{name}: wanted an answer, found {f'status {status}: ' if status else ''}{words_of(error)} "
        f"(after up to {max_retries} retries{wait}); {remedies.get(status or 0, remedies[0])}, then run again: "
        "answers that arrived are kept and not paid for twice"
    )


def words_of(error: Exception) -> str:
    """What `error` says, in one line."""
    body = getattr(error, "body", None)
    said = getattr(error, "api_message", None) or (body.get("message") if isinstance(body, Mapping) else None)
    cause = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
    words = " ".join(str(said or f"{error}{cause}" or type(error).__name__).split())
    return f"{redacted(words):.200}"  # a gateway may repeat the key that it does not take
