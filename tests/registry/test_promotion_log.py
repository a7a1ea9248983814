from hypothesis import given
from hypothesis import strategies as st

from pld.registry.promotion_log import Kind, Move, decisions, promoted_at, replay, was_rolled_back


def move(was: int | None, to: int | None, kind: Kind = "promote", reason: str = "r") -> Move:
    at = f"2026-01-01T00:00:{to or 0:02}+00:00"
    return Move(
        kind=kind, was=was, to=to, previous=was, reason=reason, by="ada", at=at, prompt_sha256="a" * 64, commit="c"
    )


def log(*moves: Move) -> dict[int, Move]:
    return dict(enumerate(moves, 1))


def test_production_is_where_the_last_valid_move_went_and_previous_where_it_came_from() -> None:
    turns = replay(log(move(None, 1), move(1, 2), move(2, 1, "rollback")))
    assert [(turn.production, turn.previous, turn.void) for turn in turns] == [
        (1, None, False), (2, 1, False), (1, 2, False),
    ]  # fmt: skip


def test_of_two_moves_from_the_same_production_the_second_is_void() -> None:
    turns = replay(log(move(None, 1), move(1, 2), move(1, 3)))
    assert [turn.void for turn in turns] == [False, False, True]
    assert (turns[-1].production, turns[-1].previous) == (2, 1)


def test_after_a_deleted_move_the_next_one_is_taken_at_its_word() -> None:
    turns = replay({1: move(None, 1), 3: move(2, 3), 4: move(3, 2, "rollback")})
    assert [turn.void for turn in turns] == [False, False, False]
    assert (turns[-1].production, turns[-1].previous) == (2, 3)


def test_what_was_decided_last_about_a_version_counts() -> None:
    forced = move(1, 2, "force", "the demo is today")
    assert decisions(replay(log(move(None, 1), forced))) == {2: "forced: the demo is today"}
    back = replay(log(move(None, 1), forced, move(2, 1, "rollback")))
    assert decisions(back) == {2: "rolled back: from production to version 1"}
    assert was_rolled_back(back, 2)
    assert not was_rolled_back(back, 1)
    again = replay(log(move(None, 1), forced, move(2, 1, "rollback"), move(1, 2)))
    assert decisions(again) == {}
    assert not was_rolled_back(again, 2)
    assert promoted_at(again, 2) == "2026-01-01T00:00:02+00:00"
    assert promoted_at(again, 3) is None


def test_a_void_move_decides_nothing() -> None:
    turns = replay(log(move(None, 1), move(None, 2, "force")))
    assert decisions(turns) == {}
    assert promoted_at(turns, 2) is None


@given(st.lists(st.tuples(st.none() | st.integers(1, 4), st.integers(1, 4)), max_size=12))
def test_the_valid_moves_are_a_chain_each_beginning_where_the_one_before_ended(pairs: list[tuple[int, int]]) -> None:
    turns = replay(log(*(move(*pair) for pair in pairs)))
    valid = [turn for turn in turns if not turn.void]
    ends = [None, *(turn.move.to for turn in valid)]
    assert [turn.move.was for turn in valid] == ends[:-1]
    assert all(turn.production == ends[sum(not t.void for t in turns[: n + 1])] for n, turn in enumerate(turns))
