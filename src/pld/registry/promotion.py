"""Crash-safe moves of the alias `production`, and their history.

MLflow has no transactions; its write of one alias is the atomic step. A move is made in this order: the registered
model's tag `pld.moving` announces it; `production` moves; the move becomes a tag of the version it brought into
production (the history); `previous`, `candidate` and the prompt's aliases follow; the announcement is removed. Where a
process died on the way, the next command reads the announcement: if `production` had not moved yet, it drops it; else
it repeats the remaining writes, all of which are idempotent. So a move ends as if it never began, or complete.

The caller holds the store's file lock, which keeps the processes of one machine apart. Two machines that share a
server do not see each other's lock, and MLflow can't compare and set. If both move `production` at the same moment,
both report success and the later alias write wins; the history may show two moves from the same version, or the
loser's last, and `previous` is right for one of them only. The next command brings the prompt's aliases back in step
and records where `production` is; check `pld status`, and move it again if it is not where it should be.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ValidationError

from pld.errors import RegistryError
from pld.records import Record, canonical_json
from pld.registry.store import Store, translated, user_name
from pld.registry.versions import (
    ALIASES,
    CANDIDATE,
    DECISION,
    PREVIOUS,
    PRODUCTION,
    Version,
    read_model,
    read_versions,
)

MOVING = "pld.moving"  # tag of the registered model, while a move is being made
MOVE = "pld.move."  # and the move's number: tag of the version that it brought into production
_ROLLED_BACK = (
    "rolled back",
    "taken back",
)  # how the decision on such a version begins; the second is of old versions


Kind = Literal["promote", "force", "rollback", "outside"]


class Move(Record):
    """`production` went from version `was` to version `to`, and `previous` then was `previous` (None: no version).

    `outside`: something other than pld moved the aliases. `prompt_sha256` and `commit` are those of `to`; `at` is UTC,
    ISO 8601.
    """

    number: int
    kind: Kind
    was: int | None
    to: int
    previous: int | None
    reason: str
    by: str
    at: str
    prompt_sha256: str
    commit: str

    def __str__(self) -> str:
        return f"{self.kind}: {_words(self.was)} → {_words(self.to)} by {self.by}: {self.reason}"


def history(versions: Iterable[Version]) -> list[Move]:
    """Every move that the tags of `versions` record, the oldest first."""
    moves = []
    for version in versions:
        for key, value in version.tags.items():
            if key.startswith(MOVE):
                with suppress(ValidationError):  # edited by hand
                    moves.append(Move.model_validate_json(value))
    return sorted(moves, key=lambda move: (move.number, move.at))


def was_rolled_back(version: Version) -> bool:
    """Whether a rollback took it out of production, and nobody has promoted it since."""
    return (version.decision or "").startswith(_ROLLED_BACK)


class Aliases:
    """The aliases of the registered `model` and of its registered `prompt`."""

    def __init__(self, store: Store, model: str, prompt: str) -> None:
        self._store = store
        self._client = store.client
        self._model = model
        self._prompt = prompt

    def move(self, kind: Kind, to: Version, versions: Sequence[Version], reason: str, commit: str) -> None:
        """Make `to` production and the present production previous. `versions`: all, as they are now."""
        former = next((version.number for version in versions if PRODUCTION in version.aliases), None)
        move = _next_move(history(versions), kind, to, was=former, previous=former, reason=reason, commit=commit)
        with translated(self._store.uri, "; the next `pld` command that reaches the store finishes or drops the move"):
            self._client.set_registered_model_tag(self._model, MOVING, _json(move))
            self._client.set_registered_model_alias(self._model, PRODUCTION, str(to.number))
            self._finish(move, versions)
            self._align(read_versions(self._client, self._model))

    def repair(self) -> list[str]:
        """Finish or drop a move that was interrupted, record one that was made outside pld, and bring the aliases
        `candidate` and the prompt's in step. Returns a line for each move that this concerned.

        Raises RegistryError for an alias of a version that pld did not register.
        """
        model = read_model(self._client, self._model)
        if model is None:
            return []
        versions = read_versions(self._client, self._model)
        aliased = {alias: int(number) for alias, number in model.aliases.items() if alias in ALIASES}
        for alias, number in aliased.items():
            if number not in {version.number for version in versions}:
                raise RegistryError(
                    f"expected aliases of versions that pld registered, got version {number} as {alias} "
                    f"({self._model}); move that alias in MLflow"
                )
        lines = []
        if MOVING in model.tags:
            move = Move.model_validate_json(model.tags[MOVING])
            moved = aliased.get(PRODUCTION) == move.to
            if moved:
                self._finish(move, versions)
            else:
                self._client.delete_registered_model_tag(self._model, MOVING)
            done = "finished" if moved else "dropped"
            lines.append(f"{self._model}: {done} a move that was begun at {move.at} ({move})")
            versions = read_versions(self._client, self._model)
        lines += self._record_outside_move(versions)
        self._align(versions)
        return lines

    def _record_outside_move(self, versions: Sequence[Version]) -> list[str]:
        aliased = {alias: version for version in versions for alias in version.aliases}
        production, moves = aliased.get(PRODUCTION), history(versions)
        was = moves[-1].to if moves else None
        if production is None or production.number == was:
            return []
        previous = aliased[PREVIOUS].number if PREVIOUS in aliased else None
        found = f"found: production {_words(production.number)}, previous {_words(previous)}"
        self._record(_next_move(moves, "outside", production, was=was, previous=previous, reason=found, commit=""))
        why = "something other than pld moved its aliases" if moves else "it had no history"
        return [f"{self._model}: {why}; {found}; recorded in the history"]

    def _finish(self, move: Move, versions: Sequence[Version]) -> None:
        """The writes to the model after `production` has moved; all are idempotent."""
        there = {version.number for version in versions}
        self._record(move)
        if move.kind == "force":
            self._client.set_model_version_tag(self._model, str(move.to), DECISION, f"forced: {move.reason}")
        else:
            self._client.delete_model_version_tag(self._model, str(move.to), DECISION)
        if move.kind == "rollback" and move.was in there:
            words = f"{_ROLLED_BACK[0]}: from production to version {move.to}"
            self._client.set_model_version_tag(self._model, str(move.was), DECISION, words)
        if move.previous in there:
            self._client.set_registered_model_alias(self._model, PREVIOUS, str(move.previous))
        else:
            self._client.delete_registered_model_alias(self._model, PREVIOUS)
        self._client.delete_registered_model_tag(self._model, MOVING)

    def _record(self, move: Move) -> None:
        self._client.set_model_version_tag(self._model, str(move.to), f"{MOVE}{move.number:04}", _json(move))

    def _align(self, versions: Sequence[Version]) -> None:
        """Drop `candidate` from the version in production, and copy the model's aliases to the prompt."""
        from mlflow.exceptions import MlflowException

        aliased = {alias: version for version in versions for alias in version.aliases if alias in ALIASES}
        if PRODUCTION in aliased and aliased.get(CANDIDATE) == aliased[PRODUCTION]:
            self._client.delete_registered_model_alias(self._model, CANDIDATE)
            del aliased[CANDIDATE]
        named = f"name = '{self._prompt}' AND tag.`mlflow.prompt.is_prompt` = 'true'"
        prompt = next(iter(self._client.search_registered_models(named)), None)
        found = {alias: int(number) for alias, number in (prompt.aliases if prompt else {}).items()}
        for alias in ALIASES:
            if alias not in aliased:
                if alias in found:
                    self._client.delete_prompt_alias(self._prompt, alias)
            elif found.get(alias) != (number := aliased[alias].prompt_version):
                try:
                    self._client.set_prompt_alias(self._prompt, alias, number)
                except MlflowException as error:
                    if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # that version of the prompt was deleted
                        raise


def _next_move(moves: Sequence[Move], kind: Kind, to: Version, **fields: Any) -> Move:
    number, at = moves[-1].number + 1 if moves else 1, datetime.now(UTC).isoformat(timespec="seconds")
    return Move(number=number, kind=kind, to=to.number, prompt_sha256=to.prompt_sha256, by=user_name(), at=at, **fields)


def _json(move: Move) -> str:
    return canonical_json(move.model_dump(mode="json"))


def _words(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
