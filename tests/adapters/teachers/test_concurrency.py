"""AdaptiveLimit: how many attempts may be under way, and when one asks for all."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.adapters.teachers.concurrency import AdaptiveLimit, StoppedError


def attempt(limit: AdaptiveLimit, status: int) -> None:
    with limit.attempt() as learn:
        learn(status)


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Runs `work`; the list holds what it raised, once it did."""
    raised: list[object] = []

    def run() -> None:
        try:
            work()
        except StoppedError as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, raised


STEPS = st.lists(st.tuples(st.integers(0, 20), st.sampled_from([200, 200, 200, 400, 429, 500, 503, 529])), max_size=60)


@given(most=st.integers(1, 12), steps=STEPS)
def test_the_limit_stays_between_one_and_most_falls_when_refused_and_climbs_on_success(most, steps):
    limit = AdaptiveLimit(most)
    for begun, status in steps:
        assert 1 <= limit.limit <= most
        with ExitStack() as stack:
            learns = [stack.enter_context(limit.attempt()) for _ in range(min(begun, limit.limit))]
            in_flight = len(learns)
            for learn in learns:
                before = limit._limit
                learn(status)
                if status in (429, 503, 529):
                    assert limit._limit == max(1, min(before, in_flight - 1))
                elif status == 200:
                    assert limit._limit == most or limit._limit > before
                else:
                    assert limit._limit == before


def test_it_settles_at_what_the_service_accepts_and_is_seldom_refused_from_then_on():
    limit, accepts = AdaptiveLimit(64), 50
    served, refused = [], []
    for _ in range(60):  # each is one latency of the service
        in_flight = [limit.attempt() for _ in range(limit.limit)]
        learns = [attempt.__enter__() for attempt in in_flight]
        for number in (*range(accepts, len(learns)), *range(min(accepts, len(learns)))):  # a refusal comes first
            learns[number](200 if number < accepts else 429)
            in_flight[number].__exit__(None, None, None)
        served.append(min(accepts, len(learns)))
        refused.append(len(learns) - served[-1])
    assert min(served) >= accepts - 1
    assert max(refused) == 14
    assert max(refused[10:]) <= 2


def test_after_an_outage_it_is_back_in_a_few_latencies():
    limit = AdaptiveLimit(50)
    with ExitStack() as stack:
        for learn in [stack.enter_context(limit.attempt()) for _ in range(50)]:
            learn(529)
    assert limit.limit == 49  # each hears of the 49 others, which are not answered yet
    for _ in range(3):
        attempt(limit, 529)
    assert limit.limit == 1
    latencies = 0
    while limit.limit < 45:
        for _ in range(limit.limit):
            attempt(limit, 200)
        latencies += 1
    assert latencies <= 7


def test_no_attempt_begins_above_the_limit():
    limit = AdaptiveLimit(1)
    began = threading.Event()
    with limit.attempt():
        thread, _ = in_thread(lambda: attempt(limit, 200) or began.set())
        assert not began.wait(0.1)
    assert began.wait(5)
    thread.join(5)


@pytest.mark.parametrize("waits", ["for a place", "between attempts"])
def test_stopping_ends_every_wait_and_every_later_attempt(waits):
    limit = AdaptiveLimit(1)
    with ExitStack() as stack:
        if waits == "for a place":
            stack.enter_context(limit.attempt())
        work = (lambda: limit.rest(600)) if waits == "between attempts" else (lambda: attempt(limit, 200))
        started = [in_thread(work) for _ in range(3)]
        limit.stop()
        for thread, raised in started:
            thread.join(5)
            assert len(raised) == 1
    with pytest.raises(StoppedError):
        attempt(limit, 200)
    with pytest.raises(StoppedError):
        limit.rest(0)
