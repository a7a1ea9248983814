"""Many requests under way at a time, as many as the service bears."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

from pld.adapters.teachers.answer_store import StoredAnswer
from pld.adapters.teachers.paid import Call, Ledger, turned_down
from pld.errors import TeacherError

_BUSY = (429, 503, 529)
_TURNED_DOWN_AT_START = 5  # so many before any other answer: it is not the request, it is the settings
_LOOK_AGAIN_S = 0.25  # at what another process is asking, and at a budget that others have reserved
_NEAR = 0.9  # of the level that was too much last time: below it the limit climbs fast
_REFUSED_ALTOGETHER = 3  # refusals one after another, no success between: fewer at a time will not help


class StoppedError(Exception):
    """No further attempt is made: the batch is being given up."""


class AdaptiveLimit:
    """How many attempts may be under way, from 1 to `most`, with which it begins.

    Refused (429, 503, 529), it falls to the number of those that the service has under way. A success adds one as long
    as the limit is well below the level that was refused last, and one for every limit's worth of successes from there
    on. When attempts are refused one after another, however few they are, one request goes on asking, after the waits
    that the service and the SDK's back-off set, and all others wait until it is answered.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(most)
        self._under_way = 0
        self._too_many = math.inf
        self._refusals = 0  # counted once for the attempts that were under way together
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
            self._under_way += 1
            refusals_before = self._refusals
        try:
            yield lambda status: self._learn(status, refusals_before)
        finally:
            with self._changed:
                self._under_way -= 1
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
        return self._stopped or (my_turn and self._under_way < self.limit)

    def _learn(self, status: int, refusals_before: int) -> None:
        with self._changed:
            if status in _BUSY:
                if not self._in_a_row:
                    self._too_many = self._under_way
                if refusals_before == self._refusals:
                    self._refusals += 1
                    self._in_a_row += 1
                self._limit = max(1.0, min(self._limit, self._under_way - 1))
            elif status < 500:
                self._in_a_row, self._asking_for_all = 0, None
                if status < 400:
                    step = 1 if self._limit < self._too_many * _NEAR else 1 / self._limit
                    self._limit = min(self.most, self._limit + step)
                self._changed.notify_all()


def answer_concurrently(
    calls: Mapping[str, Call],
    ledger: Ledger,
    limit: AdaptiveLimit,
    send: Callable[[Call], StoredAnswer],
    name: str,
    while_waiting: Callable[[], None] = lambda: None,
) -> Iterator[tuple[str, StoredAnswer]]:
    """`send` (which holds itself to `limit` and raises TeacherError for systemic faults) asks what is claimed, in
    `limit.most` threads; what another process or a batch is asking is waited for, with a call of `while_waiting`
    before each look at it. Yields answers as they come.

    Raises BudgetError when the next call could go over the budget, and TeacherError when each of the first requests
    was turned down.
    """
    queue, held = deque(calls.values()), list[Call]()
    running: dict[Future[StoredAnswer], Call] = {}
    answered = refused = 0
    pool = ThreadPoolExecutor(limit.most, thread_name_prefix="teacher")

    def ask(call: Call) -> StoredAnswer:
        try:
            answer = send(call)
            if turned_down(answer):
                ledger.release([call])
                return answer
            return ledger.keep(call.question, answer)
        except BaseException:
            limit.stop()  # here, so that no worker takes up the next request before the caller hears of it
            raise

    try:
        while queue or running or held:
            full = False
            while queue and len(running) < limit.most and not full:
                some = [queue.popleft() for _ in range(min(len(queue), limit.most - len(running)))]
                verdicts = ledger.claim(some)
                ready = [call for call in some if verdicts[call.question.key] == "answered"]
                held += [call for call in some if verdicts[call.question.key] == "held"]
                over = [call for call in some if verdicts[call.question.key] == "full"]
                for call in some:
                    if verdicts[call.question.key] == "claimed":
                        running[pool.submit(ask, call)] = call
                queue.extendleft(reversed(over))
                full = bool(over)
                stored = ledger.store.get_many(call.question.key for call in ready)
                yield from stored.items()
            if running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    call = running.pop(future)
                    try:
                        answer = future.result()
                    except StoppedError:  # the fault that stopped it comes with another future
                        continue
                    refused, answered = refused + turned_down(answer), answered + (not turned_down(answer))
                    if not answered and refused == _TURNED_DOWN_AT_START:
                        raise TeacherError(
                            f"{name}: wanted answers, but each of the first {refused} requests was turned down: "
                            f"{answer.error}; check the settings in conf/teacher/"
                        )
                    yield call.question.key, answer
            elif full:
                while_waiting()
                ledger.store.end_claims_of_the_dead()
                if not ledger.others_are_asking():
                    raise ledger.over_budget(list(queue))
                time.sleep(_LOOK_AGAIN_S)
            elif held:
                time.sleep(_LOOK_AGAIN_S)
                while_waiting()
                ledger.store.end_claims_of_the_dead()
                queue, held = deque(held), []
    finally:
        limit.stop()
        pool.shutdown(wait=True, cancel_futures=True)
