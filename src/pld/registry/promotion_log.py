"""The moves of `production` in the order in which they were written down, and what follows from them.

A move is valid when it starts from the `production` that the moves before it left: of two that start from the same one,
the first is valid and the second is void. So two people who promote at once, from different machines, end as if one had
come after the other, and nobody's gates were judged against a `production` that was not there any more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pld.records import Record

Kind = Literal["promote", "force", "rollback", "recovered", "outside"]


class Move(Record):
    """`production` goes from version `was` to version `to`, and `previous` is then `previous` (None: no version).

    `recovered`: a move that was begun is taken back, because its version can't be read; `outside`: aliases that were
    found moved by something else than pld. `prompt_sha256` and `commit` are those of `to`; `at` is UTC, ISO 8601.
    """

    kind: Kind
    was: int | None
    to: int | None
    previous: int | None
    reason: str
    by: str
    at: str
    prompt_sha256: str
    commit: str

    def __str__(self) -> str:
        return f"{self.kind}: {version_words(self.was)} → {version_words(self.to)} by {self.by}: {self.reason}"


@dataclass(frozen=True)
class Turn:
    """A move in its place (`number`, from 1), and the versions that the aliases stand for after it."""

    number: int
    move: Move
    void: bool
    production: int | None
    previous: int | None


def replay(written: Mapping[int, Move]) -> list[Turn]:
    """`written`: number → move → each in its turn. After a number that is missing (somebody deleted it) the next move
    is taken at its word."""
    turns: list[Turn] = []
    number, production, previous = 0, None, None
    for here, move in sorted(written.items()):
        void = here == number + 1 and move.was != production
        if not void:
            production, previous = move.to, move.previous
        turns.append(Turn(here, move, void, production, previous))
        number = here
    return turns


def decisions(turns: Sequence[Turn]) -> dict[int, str]:
    """Version → what a person (or a recovery) decided about it last, in words; a version that came by its gates alone,
    or was brought back, has none."""
    found: dict[int, str] = {}
    for turn in turns:
        move = turn.move
        if turn.void:
            continue
        if move.to is not None:
            found.pop(move.to, None)
        if move.kind == "force" and move.to is not None:
            found[move.to] = f"forced: {move.reason}"
        elif move.kind == "rollback" and move.was is not None:
            found[move.was] = f"rolled back: from production to version {move.to}"
        elif move.kind == "recovered" and move.was is not None:
            found[move.was] = f"taken back: {move.reason}"
    return found


def was_rolled_back(turns: Sequence[Turn], version: int) -> bool:
    """Whether the last move that `version` took part in took it from production."""
    own = [turn.move for turn in turns if not turn.void and version in (turn.move.was, turn.move.to)]
    return bool(own) and own[-1].kind in ("rollback", "recovered") and own[-1].was == version


def promoted_at(turns: Sequence[Turn], version: int) -> str | None:
    """When `version` came into production last."""
    return next((turn.move.at for turn in reversed(turns) if not turn.void and turn.move.to == version), None)


def version_words(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
