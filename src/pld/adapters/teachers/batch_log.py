"""What every batch was asked, in the file of the answers: it outlives the process that handed the batch in.

A batch is `begun` (what it asks is being claimed), `sent` (what it asks stands here, and it may have been handed in),
`found` (its id was guessed from the provider's list), `sure` (its id is known) and `done`. Its claims are made under
its own name; it has a keeper, the process that looks after it. When the keeper dies, another can take it over.
"""

import json
import time
import uuid
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pld.adapters.teachers.answer_store import BATCH_OWNER, AnswerStore, Question
from pld.records import canonical_json, sha256

_AT_ONCE = 500  # keys in one statement


@dataclass(frozen=True)
class OpenBatch:
    """`owner`: of its claims; `id`: the provider's, None while it is not known whether the batch was taken; `created`:
    when it was handed in, in seconds of the epoch; `size`: its requests; `foreign_ids`: found, and not this one."""

    owner: str
    id: str | None
    created: float
    size: int
    sure: bool
    foreign_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Item:
    """One request of a batch: all that is needed to read and keep its answer, whoever fetches it."""

    question: Question
    schema: Mapping[str, Any]
    max_tokens: int


class BatchLog:
    """The batches handed in at `endpoint`; `keeper`: this process, by its name in `store`."""

    def __init__(self, store: AnswerStore, endpoint: str, keeper: str) -> None:
        self._store = store
        self._endpoint = endpoint
        self._keeper = keeper

    def begin(self) -> str:
        """A name for a batch's claims. If the process dies before `sent`, nothing was handed in."""
        owner = f"{BATCH_OWNER}{uuid.uuid4().hex}"
        with self._store.transaction(durable=False) as connection:
            connection.execute(
                "INSERT INTO batches VALUES (?, NULL, ?, ?, 'begun', ?, '[]', '{}')",
                (owner, self._endpoint, self._keeper, time.time()),
            )
        return owner

    def sent(self, owner: str, items: Sequence[Item]) -> OpenBatch:
        """To be called before the batch is handed in."""
        schemas = {id(item.schema): canonical_json(dict(item.schema)) for item in items}
        names = {number: sha256(text) for number, text in schemas.items()}
        by_name = {names[number]: json.loads(text) for number, text in schemas.items()}
        created = time.time()
        with self._store.transaction(durable=True) as connection:
            connection.executemany(
                "INSERT INTO batch_items VALUES (?, ?, ?, ?, ?)",
                (
                    (
                        owner,
                        item.question.key,
                        canonical_json(asdict(item.question)),
                        names[id(item.schema)],
                        item.max_tokens,
                    )
                    for item in items
                ),
            )
            connection.execute(
                "UPDATE batches SET state = 'sent', created = ?, schemas = ? WHERE owner = ?",
                (created, canonical_json(by_name), owner),
            )
        return OpenBatch(owner, None, created, len(items), sure=False)

    def known_as(self, owner: str, batch_id: str, *, sure: bool) -> None:
        """The batch's id at the provider."""
        with self._store.transaction(durable=True) as connection:
            connection.execute(
                "UPDATE batches SET id = ?, state = ? WHERE owner = ?",
                (batch_id, "sure" if sure else "found", owner),
            )

    def not_it(self, batch: OpenBatch) -> None:
        """The id that was found is another batch's."""
        with self._store.transaction(durable=True) as connection:
            connection.execute(
                "UPDATE batches SET id = NULL, state = 'sent', foreign_ids = ? WHERE owner = ?",
                (json.dumps([*batch.foreign_ids, batch.id]), batch.owner),
            )

    def sure_ids(self) -> set[str]:
        """Of all batches that were ever handed in, as far as their ids are known."""
        with self._store.transaction(durable=False) as connection:
            rows = connection.execute("SELECT id FROM batches WHERE state IN ('sure', 'done') AND id IS NOT NULL")
            return {row[0] for row in rows}

    def leave(self, owner: str) -> None:
        """Nobody keeps it from here on."""
        with self._store.transaction(durable=False) as connection:
            connection.execute("UPDATE batches SET keeper = '' WHERE owner = ?", (owner,))

    def take_over(self, task: str, wanted: Container[str], left: Container[str] = ()) -> list[OpenBatch]:
        """Open batches that nobody keeps, and that ask something of `wanted` (keys) or reserve money of `task`; none
        of `left` (owners)."""
        taken = []
        with self._store.transaction(durable=False) as connection:
            rows = connection.execute(
                "SELECT owner, id, keeper, endpoint, state, created, foreign_ids FROM batches "
                "WHERE state != 'done' AND keeper != ?",
                (self._keeper,),
            ).fetchall()
            alive = {keeper: self._store.is_alive(keeper) for keeper in {row[2] for row in rows}}
            for owner, batch_id, keeper, endpoint, state, created, foreign_ids in rows:
                if alive[keeper]:
                    continue
                if state == "begun":
                    connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))
                    connection.execute("DELETE FROM batches WHERE owner = ?", (owner,))
                    continue
                if endpoint != self._endpoint or owner in left:
                    continue
                keys = [row[0] for row in connection.execute("SELECT key FROM batch_items WHERE batch = ?", (owner,))]
                reserves = connection.execute("SELECT 1 FROM claims WHERE owner = ? AND task = ?", (owner, task))
                if reserves.fetchone() or any(key in wanted for key in keys):
                    connection.execute("UPDATE batches SET keeper = ? WHERE owner = ?", (self._keeper, owner))
                    taken.append(
                        OpenBatch(owner, batch_id, created, len(keys), state == "sure", tuple(json.loads(foreign_ids)))
                    )
        return taken

    def keys(self, owner: str) -> set[str]:
        with self._store.transaction(durable=False) as connection:
            return {row[0] for row in connection.execute("SELECT key FROM batch_items WHERE batch = ?", (owner,))}

    def items(self, owner: str, keys: Iterable[str]) -> dict[str, Item]:
        """The batch's items under `keys`."""
        wanted = list(keys)
        found: dict[str, Item] = {}
        with self._store.transaction(durable=False) as connection:
            row = connection.execute("SELECT schemas FROM batches WHERE owner = ?", (owner,)).fetchone()
            schemas = json.loads(row[0]) if row else {}
            for at in range(0, len(wanted), _AT_ONCE):
                some = wanted[at : at + _AT_ONCE]
                marks = ",".join("?" * len(some))
                for key, question, schema, max_tokens in connection.execute(
                    f"SELECT key, question, schema, max_tokens FROM batch_items WHERE batch = ? AND key IN ({marks})",
                    (owner, *some),
                ):
                    found[key] = Item(Question(**json.loads(question)), schemas[schema], max_tokens)
        return found

    def end(self, owner: str) -> None:
        """All that the batch was answered is kept: what it still claims cost nothing, and can be asked again."""
        with self._store.transaction(durable=False) as connection:  # lost in a power cut, it is only read once more
            connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))
            connection.execute("DELETE FROM batch_items WHERE batch = ?", (owner,))
            connection.execute("DELETE FROM batches WHERE owner = ? AND state IN ('begun', 'sent')", (owner,))
            connection.execute("UPDATE batches SET state = 'done', schemas = '{}' WHERE owner = ?", (owner,))
