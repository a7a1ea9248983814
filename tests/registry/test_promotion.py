"""Moves against a store that shows each single call; test_registry.py and test_server.py do the same to real ones."""

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pld.registry.promotion import Moves
from pld.registry.versions import read_versions
from support.alias_store import MODEL, PROMPT, AliasStore, Client

FORMER, ONE, OTHER = 1, 2, 3
"""In production before; and what two processes promote at once."""


class Died(BaseException):
    pass


def readable(*_: object) -> None:
    return None


def promote(moves: Moves, client: Client, number: int) -> bool:
    """What the registry does of it: finish what is begun, see what is in production, move it on."""
    moves.mend(readable)
    versions = {version.number: version for version in read_versions(client, MODEL)}
    present = next((version for version in versions.values() if "production" in version.aliases), None)
    return moves.make("promote", present, versions[number], "all gates hold", "c0ffee")


def begun() -> AliasStore:
    kept = AliasStore(versions=3)
    assert promote(kept.moves(), kept.client(), FORMER)
    kept.aliases[MODEL]["candidate"] = kept.aliases[PROMPT]["candidate"] = ONE
    return kept


def settled(kept: AliasStore) -> dict[str, int]:
    """The aliases after one more process has opened the store; what must be true of them whatever happened."""
    assert "production" in kept.aliases[MODEL]
    moves = kept.moves()
    moves.mend(readable)
    assert moves.mend(readable) == [], "mending twice changes nothing"
    assert kept.aliases[MODEL] == kept.aliases[PROMPT]
    last = moves.turns()[-1]
    assert (last.production, last.previous) == (kept.aliases[MODEL]["production"], kept.aliases[MODEL].get("previous"))
    return kept.aliases[MODEL]


def calls_of(number: int) -> int:
    kept, told = begun(), []
    promote(kept.moves(told.append), kept.client(told.append), number)
    return len(told)


CALLS = calls_of(ONE)


def dying_after(calls: int) -> Callable[[str], None]:
    left = iter(range(calls))

    def before(_: str) -> None:
        if next(left, None) is None:
            raise Died

    return before


@pytest.mark.parametrize("calls", range(CALLS + 1))
def test_who_dies_between_two_calls_leaves_the_aliases_as_before_or_as_after(calls: int) -> None:
    kept = begun()
    before = dying_after(calls)
    try:
        promote(kept.moves(before), kept.client(before), ONE)
    except Died:
        assert calls < CALLS
    written = len(kept.lines) == 2
    left = settled(kept)
    assert left == ({"production": ONE, "previous": FORMER} if written else {"production": FORMER, "candidate": ONE})
    assert len(kept.lines) == 1 + written, "no line twice"


class Baton:
    """Two processes, one call at a time: `order` says whose is next; who is not in it any more goes on at the end."""

    def __init__(self, order: Iterable[int]) -> None:
        self._order = iter(order)
        self._whose: int | None = next(self._order, None)
        self._done: set[int] = set()
        self._changed = threading.Condition()
        self.each: Callable[[], None] = lambda: None

    def before(self, own: int) -> Callable[[str], None]:
        def wait(_: str) -> None:
            with self._changed:
                self.each()
                self._changed.wait_for(lambda: self._whose in (own, None) or self._whose in self._done)
                self._whose = next(self._order, None)
                self._changed.notify_all()

        return wait

    def over(self, own: int) -> None:
        with self._changed:
            self._done.add(own)
            self._changed.notify_all()


def at_once(kept: AliasStore, order: Iterable[int], lives: tuple[int | None, int | None] = (None, None)) -> list[Any]:
    """Promote ONE and OTHER in two processes that know nothing of one another; what each was told (None: it died)."""
    baton = Baton(order)
    answers: list[Any] = [None, None]

    def never_without_production() -> None:
        assert "production" in kept.aliases[MODEL]

    baton.each = never_without_production

    def run(own: int, number: int) -> None:
        wait, life = baton.before(own), dying_after(10**6 if lives[own] is None else lives[own])

        def before(name: str) -> None:
            wait(name)
            life(name)

        try:
            answers[own] = promote(kept.moves(before), kept.client(before), number)
        except Died:
            pass
        except BaseException as error:
            answers[own] = error
        finally:
            baton.over(own)

    workers = [threading.Thread(target=run, args=pair) for pair in ((0, ONE), (1, OTHER))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return answers


def two_switches() -> Iterator[list[int]]:
    """All orders in which one process is interrupted by some calls of the other, and then goes on."""
    for first in (0, 1):
        for before in range(CALLS):
            for between in range(1, CALLS + 8):
                yield [first] * before + [1 - first] * between + [first] * (CALLS + 40)


def check(kept: AliasStore, answers: list[Any]) -> None:
    left = settled(kept)
    assert len(kept.lines) == 3, "nobody took the other's move for somebody else's"
    assert left["production"] in (ONE, OTHER)
    if answers == [True, True]:
        assert left["previous"] in (ONE, OTHER), "as if one had come after the other"
        assert left["previous"] != left["production"]
    else:
        assert sorted(answers) == [False, True], "who was not first is told"
        assert left["previous"] == FORMER
        assert left["production"] == (ONE if answers[0] else OTHER)


def test_two_machines_that_promote_at_once_end_as_if_one_had_come_after_the_other() -> None:
    ends = set()
    for order in two_switches():
        kept = begun()
        answers = at_once(kept, order)
        check(kept, answers)
        ends.add((tuple(answers), kept.aliases[MODEL]["production"]))
    assert len(ends) == 4, "each of the two was first, and each lost, in some order"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=3 * CALLS))
def test_in_any_other_order_too(order: list[int]) -> None:
    kept = begun()
    check(kept, at_once(kept, order))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=3 * CALLS), st.integers(0, CALLS), st.none() | st.integers(0, CALLS))
def test_also_where_one_of_them_or_both_die(order: list[int], life: int, other: int | None) -> None:
    kept = begun()
    at_once(kept, order, (life, other))
    left = settled(kept)
    assert left["production"] in (FORMER, ONE, OTHER)
    assert left.get("previous") != left["production"]
    assert len(kept.lines) <= 4, "no move is written down twice"
