"""Asks many requests at a time, as many as the service accepts."""

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice

from pld.adapters.teachers.answer_store import Entry, StoredAnswer
from pld.adapters.teachers.paid_teacher import Account, Call, is_bad_request
from pld.errors import TeacherError

_BUSY = (429, 503, 529)
_REJECTED_AT_START = 5  # so many before any answer: the settings are wrong, not the requests
_NEAR = 0.9  # of the level that was too much last time: below it the limit climbs fast
_REFUSED_ALTOGETHER = 3  # refusals in a row without a success: fewer at a time will not help


class StoppedError(Exception):
    """No further attempt is made: another request hit a systemic error, or the caller stopped."""


class AdaptiveLimit:
    """How many attempts may be in flight: from 1 to `most`, where it begins.

    A refusal (429, 503, 529) lowers it to what the service still has in flight. A success adds one while the limit is
    well below the level that was refused last, and one per limit's worth of successes from there on. After several
    refusals in a row, however low the limit, one request alone goes on trying, with the waits that the service and the
    SDK's back-off set, and all others wait until it is answered.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(most)
        self._in_flight = 0
        self._too_many = math.inf
        self._refusals = 0  # counted once for attempts that were in flight together
        self._in_a_row = 0  # of them, since the last success
        self._asking_for_all: int | None = None  # a thread
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
            self._changed.wait_for(self._may_begin)
            if self._stopped:
                raise StoppedError
            self._in_flight += 1
            refusals_before = self._refusals
        try:
            yield lambda status: self._learn(status, refusals_before)
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def rest(self, seconds: float) -> None:
        """The pause before the calling thread's next attempt at its request. Raises StoppedError."""
        with self._changed:
            if self._in_a_row >= _REFUSED_ALTOGETHER and self._asking_for_all is None:
                self._asking_for_all = threading.get_ident()
            if self._changed.wait_for(lambda: self._stopped, seconds):
                raise StoppedError

    def _may_begin(self) -> bool:
        my_turn = self._asking_for_all in (None, threading.get_ident())
        return self._stopped or (my_turn and self._in_flight < self.limit)

    def _learn(self, status: int, refusals_before: int) -> None:
        with self._changed:
            if status in _BUSY:
                if not self._in_a_row:
                    self._too_many = self._in_flight
                if refusals_before == self._refusals:
                    self._refusals += 1
                    self._in_a_row += 1
                self._limit = max(1.0, min(self._limit, self._in_flight - 1))
            elif status < 500:
                self._in_a_row, self._asking_for_all = 0, None
                if status < 400:
                    step = 1 if self._limit < self._too_many * _NEAR else 1 / self._limit
                    self._limit = min(self.most, self._limit + step)
                self._changed.notify_all()


def answer_concurrently(
    calls: Mapping[str, Call],
    account: Account,
    limit: AdaptiveLimit,
    send: Callable[[Call], StoredAnswer],
    name: str,
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
                        f"({name}); check the settings in conf/teacher/"
                    )
                yield call.question.key, answer
    finally:
        limit.stop()
        pool.shutdown(wait=True, cancel_futures=True)
