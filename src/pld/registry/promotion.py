"""Moves of `production` that end either as before or as after, whoever dies on the way.

MLflow moves one alias at a time and knows no transaction and no compare-and-set. What it has is a number that is given
out in the transaction that writes a version. So every move is first written down as a version of the prompt
`pld-<task>-history`, which orders all moves of all machines; the log says where `production` and `previous` point
(`promotion_log`), and the aliases of model and prompt are brought in step with it. Each process, after its last
write, reads log and aliases again and is done only when they agree; so when all are done, they agree. What a process
that died left undone, the next one that opens the registry does: the log is ahead of the tag `pld.moves_applied`.
`production` itself is only ever set from one version that was checked to another, never taken away on the way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pydantic import ValidationError

from pld.errors import RegistryError
from pld.records import canonical_json
from pld.registry.promotion_log import Kind, Move, Turn, decisions, replay, version_words
from pld.registry.store import Store, translated, user_name
from pld.registry.versions import (
    ALIASES,
    CANDIDATE,
    DECISION,
    PREVIOUS,
    PRODUCTION,
    Version,
    pages,
    read_versions,
    unless_there,
)

APPLIED = "pld.moves_applied"
_ROUNDS = 20  # of reading and writing until log and aliases agree; each further one needs another process that writes


@dataclass(frozen=True)
class _Seen:
    """The aliases as they stand, of the model and of the prompt, and the number of the last move that was finished."""

    model: Mapping[str, int]
    prompt: Mapping[str, int]
    applied: int


class Moves:
    """The log of the registered `model` and its `prompt`, kept as versions of the prompt `history`."""

    def __init__(self, store: Store, model: str, prompt: str, history: str, experiment: Callable[[], str]) -> None:
        self._store = store
        self._client = store.client
        self._model = model
        self._prompt = prompt
        self._history = history
        self._experiment = experiment
        self._versions: dict[int, Version] = {}
        self._lost: set[int] = set()  # versions of the prompt that were deleted, as far as it was noticed

    def turns(self) -> list[Turn]:
        """The log, the oldest move first. A line that is no move any more counts as a missing one."""
        from mlflow.exceptions import MlflowException

        written: dict[int, Move] = {}
        try:
            for line in pages(self._client.search_prompt_versions, self._history):
                try:
                    written[int(line.version)] = Move.model_validate_json(line.template)
                except ValidationError:
                    continue
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        return replay(written)

    def make(self, kind: Kind, present: Version | None, to: Version, reason: str, commit: str) -> bool:
        """Write down that `to` follows `present` in production, and do it; False: another process was first."""
        undone = "; a move that was begun is finished by the next `pld` command that reaches the store"
        with translated(self._store.uri, undone):
            was = present.number if present else None
            number = self._write(kind, was, to.number, was, reason, commit)
            turns = self._bring_in_step()
            return not next(turn for turn in turns if turn.number == number).void

    def mend(self, unreadable: Callable[[int, str], str | None]) -> list[str]:
        """Finish the move that a process left half done, or take it back where its version can't be read; write down
        what was moved by something else. `unreadable`: version, sha256 of its prompt → why it can't be read, or None.

        Returns a line for each thing that was done.
        """
        self._versions, self._lost = {}, set()
        seen = self._seen()  # before the log, which is written before any alias: so it is never behind what was seen
        if seen is None:
            return []
        turns = self.turns()
        last = turns[-1] if turns else None
        number, logged = (last.number, (last.production, last.previous)) if last else (0, (None, None))
        aliased = (seen.model.get(PRODUCTION), seen.model.get(PREVIOUS))
        told: list[str] = []
        if seen.applied < number:
            told += self._finish(seen, turns, unreadable)
        elif seen.applied > number:
            told.append(f"{self._history}: its last lines, up to number {seen.applied}, were deleted")
        if seen.applied >= number and aliased != logged:
            told += self._note_outside(aliased, logged)
        elif seen.applied == number and not self._changes(seen, turns):
            return []
        self._bring_in_step()
        return told

    def _finish(self, seen: _Seen, turns: list[Turn], unreadable: Callable[[int, str], str | None]) -> list[str]:
        last = turns[-1]
        done = [turn for turn in turns if turn.number <= seen.applied]
        production, previous = (done[-1].production, done[-1].previous) if done else (None, None)
        begun = next((turn.move for turn in reversed(turns) if not turn.void), last.move)
        moved = last.production is not None and last.production != production
        why = unreadable(last.production, begun.prompt_sha256) if moved and last.production else None
        if why:
            self._write("recovered", last.production, production, previous, why)
            return [
                f"{self._model}: took back a move of production to version {last.production} that was not finished: "
                f"{why}; production is {version_words(production)}"
            ]
        if not self._changes(seen, turns):
            return []
        return [f"{self._model}: finished a move that was begun at {begun.at} ({begun})"]

    def _note_outside(self, aliased: tuple[int | None, int | None], logged: tuple[int | None, int | None]) -> list[str]:
        production, previous = aliased
        words = f"found: production {version_words(production)}, previous {version_words(previous)}"
        for number in aliased:
            if number is not None and self._known(number) is None:
                raise RegistryError(
                    f"{self._model}: wanted aliases of versions that pld registered and checked, {words}, of which "
                    f"version {number} is none; move that alias in MLflow"
                )
        self._write("outside", logged[0], production, previous, words)
        why = "its aliases were moved by something else than pld" if logged[0] else "it had no history"
        return [f"{self._model}: {why}; {words}; written into the history"]

    def _write(
        self, kind: Kind, was: int | None, to: int | None, previous: int | None, reason: str, commit: str = ""
    ) -> int:
        """The number that the store gave the move."""
        target = self._known(to)
        move = Move(
            kind=kind,
            was=was,
            to=to,
            previous=previous,
            reason=reason,
            by=user_name(),
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            prompt_sha256=target.prompt_sha256 if target else "",
            commit=commit,
        )
        unless_there(
            self._client.create_prompt,
            self._history,
            description=f"Every move of {self._model}'s aliases, one version each: written by pld, not a prompt.",
            # the UI lists a prompt in the experiments of this tag
            tags={"_mlflow_experiment_ids": f",{self._experiment()},"},
        )
        text = canonical_json(move.model_dump(mode="json"))
        return int(self._client.create_prompt_version(self._history, text, description=str(move)[:1000]).version)

    def _bring_in_step(self) -> list[Turn]:
        """Move the aliases to where the log says, until a fresh look at both agrees; the log as it then is."""
        for _ in range(_ROUNDS):
            seen = self._seen() or _Seen({}, {}, 0)
            turns = self.turns()
            number = turns[-1].number if turns else 0
            changes = self._changes(seen, turns)
            if not changes and seen.applied == number:
                return turns
            for change in changes:
                change()
            if seen.applied != number:
                self._tell_decisions(turns)
                self._client.set_registered_model_tag(self._model, APPLIED, str(number))
        raise RegistryError(
            f"{self._model}: wanted its aliases to stay where the history says, found others moving them; try again"
        )

    def _changes(self, seen: _Seen, turns: list[Turn]) -> list[Callable[[], object]]:
        """The calls that bring aliases in step, `production` never taken away before it is set; none: they are.

        A version that is gone has no alias, one in production is no candidate, and the prompt's aliases are the
        model's.
        """
        production = turns[-1].production if turns else None
        wanted = {
            PREVIOUS: turns[-1].previous if turns else None,
            PRODUCTION: production,
            CANDIDATE: None if seen.model.get(CANDIDATE) == production else seen.model.get(CANDIDATE),
        }
        versions = {alias: self._known(number) for alias, number in wanted.items()}
        changes: list[Callable[[], object]] = []
        for alias, version in versions.items():
            if version and seen.model.get(alias) != version.number:
                move = self._client.set_registered_model_alias
                changes.append(partial(move, self._model, alias, str(version.number)))
        for alias, version in versions.items():
            if version and seen.prompt.get(alias) != version.prompt_version not in self._lost:
                changes.append(partial(self._point_prompt, alias, version.prompt_version))
        for alias, version in versions.items():
            if not version and alias in seen.model:
                changes.append(partial(self._client.delete_registered_model_alias, self._model, alias))
            if not version and alias in seen.prompt:
                changes.append(partial(self._client.delete_prompt_alias, self._prompt, alias))
        return changes

    def _point_prompt(self, alias: str, version: int) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.set_prompt_alias(self._prompt, alias, version)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._lost.add(version)

    def _tell_decisions(self, turns: list[Turn]) -> None:
        """What was decided about the versions of the last move, for whoever looks at them in MLflow."""
        words = decisions(turns)
        for number in {turns[-1].move.was, turns[-1].move.to} if turns else ():
            version = self._known(number)
            if version and number in words:
                self._client.set_model_version_tag(self._model, str(number), DECISION, words[number])
            elif version:
                self._client.delete_model_version_tag(self._model, str(number), DECISION)

    def _known(self, number: int | None) -> Version | None:
        """The version `number`; what it answers with never changes, so that it is asked for once."""
        if number is not None and number not in self._versions:
            self._versions = {version.number: version for version in read_versions(self._client, self._model)}
        return self._versions.get(number) if number is not None else None

    def _seen(self) -> _Seen | None:
        from mlflow.exceptions import MlflowException

        try:
            model = self._client.get_registered_model(self._model)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        named = f"name = '{self._prompt}' AND tag.`mlflow.prompt.is_prompt` = 'true'"
        prompt = next(iter(self._client.search_registered_models(named)), None)
        return _Seen(_ours(model.aliases), _ours(prompt.aliases if prompt else {}), int(model.tags.get(APPLIED, 0)))


def _ours(aliases: Mapping[str, object]) -> dict[str, int]:
    return {alias: int(str(aliases[alias])) for alias in ALIASES if alias in aliases}
