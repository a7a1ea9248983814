"""Asks many requests at a time through the SDKs, as many as the service accepts, with retries."""

import math
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any

from pld.adapters.teachers.answer_store import Entry, StoredAnswer
from pld.adapters.teachers.paid_teacher import BAD_REQUEST, Account, Call, is_bad_request
from pld.errors import TeacherError
from pld.redaction import redacted

_BUSY = (429, 503, 529)
_ONE_REQUEST = (400, 413, 422)  # statuses about one request, which say nothing about the next
_LONGEST_WAIT_S = 120.0  # the run ends where a service asks for more
_FIRST_WAIT_S, _BACKED_OFF_S = 0.5, 8.0  # as the SDKs wait
_REJECTED_AT_START = 5  # so many before any answer: the settings are wrong, not the requests
_NEAR = 0.9  # of the level that was too much last time: below it the limit climbs fast


class StoppedError(Exception):
    """No further attempt is made: another request hit a systemic error, or the caller stopped."""


class AdaptiveLimit:
    """How many attempts may be in flight: from 1 to `most`, where it begins.

    A refusal (429, 503, 529) lowers it to what the service still has in flight. A success adds one while the limit is
    well below the level that was refused last, and one per limit's worth of successes from there on.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(most)
        self._in_flight = 0
        self._too_many = math.inf
        self._refused = False  # since the last success
        self._stopped = False
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        return int(self._limit)

    def stop(self) -> None:
        """Every wait, and every later one, raises StoppedError."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    @contextmanager
    def attempt(self) -> Iterator[Callable[[int], None]]:
        """Waits for a place; yields what to call with the HTTP status of the response."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._in_flight < self.limit)
            if self._stopped:
                raise StoppedError
            self._in_flight += 1
        try:
            yield self._learn
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def rest(self, seconds: float) -> None:
        """The pause before the calling thread's next attempt at its request. Raises StoppedError."""
        with self._changed:
            if self._changed.wait_for(lambda: self._stopped, seconds):
                raise StoppedError

    def _learn(self, status: int) -> None:
        with self._changed:
            if status in _BUSY:
                if not self._refused:
                    self._too_many, self._refused = self._in_flight, True
                self._limit = max(1.0, min(self._limit, self._in_flight - 1))
            elif status < 400:
                self._refused = False
                step = 1 if self._limit < self._too_many * _NEAR else 1 / self._limit
                self._limit = min(self.most, self._limit + step)
                self._changed.notify_all()


def answer_concurrently(
    calls: Mapping[str, Call],
    account: Account,
    limit: AdaptiveLimit,
    send: Callable[[Call], StoredAnswer],
) -> Iterator[tuple[str, StoredAnswer]]:
    """Ask `calls` in `limit.most` threads by `send`, which holds itself to `limit` and raises TeacherError for systemic
    errors. Yields answers as they come.

    Raises BudgetError when the next call could go over the budget, and TeacherError when each of the first requests
    was rejected.
    """
    queue = deque(calls.values())
    running: dict[Future[StoredAnswer], Call] = {}
    answered = rejected = 0
    pool = ThreadPoolExecutor(limit.most, thread_name_prefix="teacher")

    def ask(call: Call) -> StoredAnswer:
        try:
            answer = send(call)
            if not is_bad_request(answer):
                return account.keep([Entry(call.question, answer)])[0]
            account.store.release([call.question.key])
            return answer
        except BaseException:
            limit.stop()  # here, so that no worker begins the next request before the caller hears of it
            raise

    try:
        while queue or running:
            for _ in range(account.claim(list(islice(queue, limit.most - len(running)))) if queue else 0):
                call = queue.popleft()
                running[pool.submit(ask, call)] = call
            if not running:
                raise account.over_budget(list(queue))
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                call = running.pop(future)
                try:
                    answer = future.result()
                except StoppedError:  # the error that stopped it comes with another future
                    continue
                rejected, answered = rejected + is_bad_request(answer), answered + (not is_bad_request(answer))
                if not answered and rejected == _REJECTED_AT_START:
                    raise TeacherError(
                        f"expected answers, got a rejection of each of the first {rejected} requests: {answer.error} "
                        f"({call.question.provider}:{call.question.model}); check the settings in conf/teacher/"
                    )
                yield call.question.key, answer
    finally:
        limit.stop()
        pool.shutdown(wait=True, cancel_futures=True)


def answer_by_sdk(
    calls: Mapping[str, Call],
    account: Account,
    client: Any,
    attempt: Callable[[Call], StoredAnswer],
    errors: type[Exception],
    describe: Callable[[Exception], TeacherError],
    max_concurrency: int,
    max_retries: int,
) -> Iterator[tuple[str, StoredAnswer]]:
    """`answer_concurrently` by a `client` without retries of its own, whose sleep would outlast Ctrl-C; it is closed at
    the end. `attempt` makes one attempt at a call; `describe` translates its last error, one of `errors`."""
    limit = AdaptiveLimit(max_concurrency)

    def send(call: Call) -> StoredAnswer:
        for number in range(max_retries + 1):
            try:
                with limit.attempt() as learn:
                    try:
                        answer = attempt(call)
                    except Exception as error:
                        learn(getattr(error, "status_code", 500))
                        raise
                    learn(200)
                    return answer
            except (errors, ValueError) as error:  # ValueError: half a body
                if getattr(error, "status_code", None) in _ONE_REQUEST:
                    return StoredAnswer(None, f"{BAD_REQUEST}: {one_line(error)}", {})
                headers = getattr(getattr(error, "response", None), "headers", None)
                backoff = min(_FIRST_WAIT_S * 2.0**number, _BACKED_OFF_S) * random.uniform(0.75, 1)
                wait = client._parse_retry_after_header(headers) or backoff
                if number == max_retries or not passes(error) or wait > _LONGEST_WAIT_S:
                    half = isinstance(error, ValueError)
                    raise describe(ValueError(f"a body that is no JSON ({error})") if half else error) from None
            limit.rest(wait)
        raise AssertionError("unreachable")

    try:
        yield from answer_concurrently(calls, account, limit, send)
    finally:
        client.close()


def passes(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    status = getattr(error, "status_code", None)
    return status is None or status in (408, 409, 429) or status >= 500


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
