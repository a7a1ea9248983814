"""What the two SDKs, which one generator makes, have in common: waits between retries, and errors in one line."""

from collections.abc import Mapping
from typing import Any

from pld.adapters.teachers.answer_store import StoredAnswer
from pld.adapters.teachers.concurrency import AdaptiveLimit
from pld.adapters.teachers.paid_teacher import BAD_REQUEST
from pld.errors import TeacherError
from pld.redaction import redacted

_ONE_REQUEST = (400, 413, 422)  # statuses about one request, which say nothing about the next
_LONGEST_WAIT_S = 120.0  # the openai SDK ignores longer waits that a service asks for; so does the anthropic one here


class InterruptibleRetries:
    """Mixed into a client of anthropic 2.12 or openai 3.54: its own sleep would outlast Ctrl-C and systemic errors."""

    limit: AdaptiveLimit

    def _sleep_for_retry(self, *, retries_taken: int, max_retries: int, options: Any, response: Any) -> None:
        client: Any = self
        headers = None if response is None else response.headers
        seconds = client._calculate_retry_timeout(max_retries - retries_taken, options, headers)
        if seconds > _LONGEST_WAIT_S:
            raise client._make_status_error_from_response(response)
        self.limit.rest(seconds)


def bad_request(error: Exception) -> StoredAnswer | None:
    """The answer to a request that the service rejects as it is; None: `error` is about more than that."""
    if getattr(error, "status_code", None) in _ONE_REQUEST:
        return StoredAnswer(None, f"{BAD_REQUEST}: {one_line(error)}", {})
    return None


def systemic_error(name: str, error: Exception, max_retries: int, remedies: Mapping[int, str]) -> TeacherError:
    """`remedies`: what to do, by status; 0: for any other, and where there was no response."""
    status = getattr(error, "status_code", None)
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", {})
    wait = f", it asks to wait {headers['retry-after']} s" if "retry-after" in headers else ""
    return TeacherError(
        f"expected an answer, got {f'status {status}: ' if status else ''}{one_line(error)} ({name}, after up to "
        f"{max_retries} retries{wait}); {remedies.get(status or 0, remedies[0])}, then run again: answers that arrived "
        "are kept and not paid for twice"
    )


def one_line(error: Exception) -> str:
    """The message of `error`, redacted: a gateway may repeat the key that it refuses."""
    body = getattr(error, "body", None)
    said = getattr(error, "api_message", None) or (body.get("message") if isinstance(body, Mapping) else None)
    cause = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
    words = " ".join(str(said or f"{error}{cause}" or type(error).__name__).split())
    return f"{redacted(words):.200}"
