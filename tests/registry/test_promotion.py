"""Moves in a store that shows each single call; the other files of this folder use a real one."""

import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pld.errors import RegistryError
from pld.registry.promotion import Kind, Move, history, was_rolled_back
from pld.registry.versions import Version, read_versions
from support.alias_store import MODEL, PROMPT, AliasStore

FORMER, TARGET, OTHER = 1, 2, 3
BEFORE = {"production": FORMER, "candidate": TARGET}
AFTER = {"production": TARGET, "previous": FORMER}


class Killed(BaseException):
    pass


def killed_after(calls: int) -> Callable[[str], None]:
    left = iter(range(calls))

    def before(_: str) -> None:
        if next(left, None) is None:
            raise Killed

    return before


def store_with_a_candidate() -> AliasStore:
    kept = AliasStore(versions=3)
    kept.command("promote", FORMER)
    kept.aliases[MODEL]["candidate"] = kept.aliases[PROMPT]["candidate"] = TARGET
    return kept


def versions(kept: AliasStore) -> dict[int, Version]:
    return {version.number: version for version in read_versions(kept.opened()[1], MODEL)}


def moves(kept: AliasStore) -> list[tuple[str, int | None, int, int | None]]:
    return [(move.kind, move.was, move.to, move.previous) for move in history(versions(kept).values())]


def repaired(kept: AliasStore) -> dict[str, int]:
    """The aliases after the next command has opened the store; what must hold whatever happened."""
    kept.opened()[0].repair()
    assert kept.opened()[0].repair() == [], "a second repair has nothing to do"
    assert kept.aliases[MODEL] == kept.aliases[PROMPT]
    assert kept.tags == {}
    assert history(versions(kept).values())[-1].to == kept.aliases[MODEL]["production"]
    return dict(kept.aliases[MODEL])


def number_of_calls() -> int:
    kept, names = store_with_a_candidate(), []
    kept.command("promote", TARGET, names.append)
    return len(names)


CALLS = number_of_calls()


@pytest.mark.parametrize("kind", ["promote", "force"])
@pytest.mark.parametrize("calls", range(CALLS + 1))
def test_a_process_killed_between_two_calls_leaves_the_aliases_as_before_or_as_after(calls: int, kind: Kind) -> None:
    kept = store_with_a_candidate()
    with suppress(Killed):
        kept.command(kind, TARGET, killed_after(calls))
    moved = kept.aliases[MODEL]["production"] == TARGET
    assert repaired(kept) == (AFTER if moved else BEFORE)
    assert moves(kept) == [("promote", None, FORMER, None), (kind, FORMER, TARGET, FORMER)][: 1 + moved]
    assert versions(kept)[TARGET].decision == ("forced: a reason" if moved and kind == "force" else None)


@pytest.mark.parametrize("calls", range(CALLS + 3))
def test_a_rollback_killed_between_two_calls_never_happened_or_is_complete(calls: int) -> None:
    kept = store_with_a_candidate()
    kept.command("promote", TARGET)
    with suppress(Killed):
        kept.command("rollback", FORMER, killed_after(calls))
    back = kept.aliases[MODEL]["production"] == FORMER
    assert repaired(kept) == ({"production": FORMER, "previous": TARGET} if back else AFTER)
    assert was_rolled_back(versions(kept)[TARGET]) == back
    assert len(moves(kept)) == 2 + back


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([FORMER, TARGET, OTHER]), st.integers(0, CALLS + 12)), max_size=6))
def test_a_chain_of_killed_commands_leaves_a_history_without_gaps(commands: list[tuple[int, int]]) -> None:
    kept = store_with_a_candidate()
    for target, calls in commands:
        if kept.aliases[MODEL]["production"] == target:
            continue
        with suppress(Killed):
            kept.command("promote", target, killed_after(calls))
    aliases, found = repaired(kept), history(versions(kept).values())
    assert [move.number for move in found] == list(range(1, len(found) + 1))
    assert [move.was for move in found] == [None, *(move.to for move in found[:-1])]
    assert aliases.get("previous") == found[-1].was


def test_an_interrupted_move_is_reported_as_finished_or_dropped() -> None:
    reports = set()
    for calls in range(CALLS):
        kept = store_with_a_candidate()
        with pytest.raises(Killed):
            kept.command("promote", TARGET, killed_after(calls))
        lines = kept.opened()[0].repair()
        assert all("a move that was begun at 20" in line for line in lines)
        reports |= {line.split()[1] for line in lines}
    assert reports == {"finished", "dropped"}


def test_previous_is_repaired_by_the_next_command() -> None:
    kept = store_with_a_candidate()

    def before(name: str) -> None:
        if kept.aliases[MODEL]["production"] == TARGET and name == "set_model_version_tag":
            raise Killed

    with pytest.raises(Killed):
        kept.command("promote", TARGET, before)
    assert kept.aliases[MODEL] == {"production": TARGET, "candidate": TARGET}
    kept.command("promote", OTHER)
    assert kept.aliases[MODEL] == {"production": OTHER, "previous": TARGET}
    assert moves(kept)[1:] == [("promote", FORMER, TARGET, FORMER), ("promote", TARGET, OTHER, TARGET)]


def test_a_version_that_is_deleted_during_an_interrupted_move_is_no_longer_previous() -> None:
    kept = store_with_a_candidate()

    def before(name: str) -> None:
        if kept.aliases[MODEL]["production"] == TARGET:
            raise Killed

    with pytest.raises(Killed):
        kept.command("promote", TARGET, before)
    del kept.version_tags[FORMER]
    kept.aliases[PROMPT].pop("production")
    assert repaired(kept) == {"production": TARGET}


def test_versions_registered_by_an_earlier_pld_keep_their_aliases_and_decisions() -> None:
    """It kept moves in the prompt pld-<task>-history, and the number of the last one in a tag of the model."""
    kept = AliasStore(versions=3)
    for name in (MODEL, PROMPT):
        kept.aliases[name] = {"production": FORMER, "previous": TARGET}
    kept.tags["pld.moves_applied"] = "3"
    kept.version_tags[TARGET]["pld.decision"] = "rolled back: from production to version 1"
    (line,) = kept.opened()[0].repair()
    assert "it had no history; found: production version 1, previous version 2" in line
    assert kept.aliases[MODEL] == {"production": FORMER, "previous": TARGET}
    assert was_rolled_back(versions(kept)[TARGET])
    assert moves(kept) == [("outside", None, FORMER, TARGET)]
    kept.command("rollback", TARGET)
    assert kept.aliases[MODEL] == AFTER
    assert not was_rolled_back(versions(kept)[TARGET])


def test_a_move_whose_tag_was_edited_by_hand_is_left_out_of_the_history() -> None:
    kept = store_with_a_candidate()
    kept.version_tags[OTHER]["pld.move.0007"] = "{}"
    assert moves(kept) == [("promote", None, FORMER, None)]


def test_an_alias_of_an_unknown_version_is_refused() -> None:
    kept = store_with_a_candidate()
    kept.aliases[MODEL]["previous"] = 9
    with pytest.raises(RegistryError, match="expected aliases of versions that pld registered, got version 9"):
        kept.opened()[0].repair()


class Baton:
    """Lets two processes make one call at a time: `order` says whose is next; after it the first one goes on alone."""

    def __init__(self, order: list[int]) -> None:
        self._order = chain(order, repeat(0))
        self._whose = next(self._order)
        self._holder: int | None = None
        self._done: set[int] = set()
        self._changed = threading.Condition()

    def before(self, own: int) -> Callable[[str], None]:
        def wait(_: str) -> None:
            with self._changed:
                self._release(own)
                self._changed.wait_for(lambda: self._holder is None and self._whose == own)
                self._holder = own

        return wait

    def over(self, own: int) -> None:
        with self._changed:
            self._done.add(own)
            self._release(own)

    def _release(self, own: int) -> None:
        if self._holder == own:
            self._holder = None
            self._whose = next(self._order)
        if self._whose in self._done:
            self._whose = 1 - self._whose
        self._changed.notify_all()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(0, 1), max_size=2 * CALLS))
def test_two_machines_that_promote_at_once_leave_one_of_both_in_production_and_a_store_that_works(
    order: list[int],
) -> None:
    kept = store_with_a_candidate()
    baton = Baton(order)
    errors: list[BaseException] = []

    def run(own: int, target: int) -> None:
        try:
            kept.command("promote", target, baton.before(own))
        except BaseException as error:
            errors.append(error)
        finally:
            baton.over(own)

    workers = [threading.Thread(target=run, args=pair) for pair in ((0, TARGET), (1, OTHER))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert errors == []
    assert "production" in kept.aliases[MODEL]
    left = repaired(kept)
    assert left["production"] in (TARGET, OTHER)
    kept.command("promote", FORMER)
    after = repaired(kept)
    assert (after["production"], after["previous"]) == (FORMER, left["production"])


def test_a_move_is_one_line_for_people() -> None:
    move = Move(
        number=1, kind="promote", was=None, to=2, previous=None, reason="all gates hold", by="ada",
        at="2026-11-29T00:00:00+00:00", prompt_sha256="a" * 64, commit="",
    )  # fmt: skip
    assert str(move) == "promote: none → version 2 by ada: all gates hold"
