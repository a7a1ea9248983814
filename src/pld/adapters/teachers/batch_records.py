"""What every batch asked, in the answer store's file: on disk before the batch is submitted, so that any later run can
fetch and store its answers, even after a change of settings."""

import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pld.adapters.teachers.answer_store import AnswerStore, Question
from pld.adapters.teachers.paid_teacher import Account, Call
from pld.records import canonical_json, sha256


@dataclass
class OpenBatch:
    """`owner`: of its claims; `id`: the provider's, None while it is unknown whether it took the batch; `created`: when
    it was submitted, in seconds of the epoch; `keys`: of its questions."""

    owner: str
    id: str | None
    created: float
    keys: frozenset[str]

    def __str__(self) -> str:
        return f"batch {self.id}" if self.id else f"an unconfirmed batch of {len(self.keys):,} requests"


@dataclass(frozen=True)
class Item:
    """One request of a batch: all that is needed to read and store its answer."""

    question: Question
    schema: Mapping[str, Any]
    max_tokens: int


class BatchRecords:
    """The batches that `account` submitted at `endpoint`."""

    def __init__(self, account: Account, endpoint: str) -> None:
        self._account = account
        self._store: AnswerStore = account.store
        self._endpoint = endpoint

    def add(self, calls: Sequence[Call], max_tokens_of: Callable[[str], int]) -> OpenBatch | None:
        """Claim the first of `calls`, as many as the budget allows, and record them; None: not even one."""
        owner, now = f"batch:{uuid.uuid4().hex}", time.time()
        with self._store.transaction() as connection:
            calls = calls[: self._account.claim(calls, owner, connection)]
            if not calls:
                return None
            schemas: dict[str, Mapping[str, Any]] = {}
            for call in calls:
                name = sha256(canonical_json(dict(call.request.schema)))
                schemas[name] = dict(call.request.schema)
                question = canonical_json(asdict(call.question))
                row = (owner, call.question.key, question, name, max_tokens_of(call.question.role))
                connection.execute("INSERT INTO batch_items VALUES (?, ?, ?, ?, ?)", row)
            connection.execute(
                "INSERT INTO batches VALUES (?, NULL, ?, 'open', ?, ?)",
                (owner, self._endpoint, now, canonical_json(schemas)),
            )
        return OpenBatch(owner, None, now, frozenset(call.question.key for call in calls))

    def confirm(self, batch: OpenBatch, batch_id: str) -> None:
        """Record the provider's id."""
        with self._store.transaction() as connection:
            connection.execute("UPDATE batches SET id = ? WHERE owner = ?", (batch_id, batch.owner))
        batch.id = batch_id

    def known_ids(self) -> set[str]:
        """Of all batches that were ever submitted, as far as their ids are known."""
        with self._store.transaction() as connection:
            return {row[0] for row in connection.execute("SELECT id FROM batches WHERE id IS NOT NULL")}

    def open(self) -> list[OpenBatch]:
        """Batches whose answers have not been stored yet."""
        with self._store.transaction() as connection:
            rows = connection.execute(
                "SELECT owner, id, created FROM batches WHERE state = 'open' AND endpoint = ? AND owner IN "
                "(SELECT owner FROM claims WHERE task = ?) ORDER BY created",
                (self._endpoint, self._account.terms.task),
            ).fetchall()
            return [
                OpenBatch(owner, batch_id, created, frozenset(_keys(connection, owner)))
                for owner, batch_id, created in rows
            ]

    def items(self, batch: OpenBatch, keys: Iterable[str]) -> dict[str, Item]:
        """The batch's items under `keys`."""
        with self._store.transaction() as connection:
            (schemas,) = connection.execute("SELECT schemas FROM batches WHERE owner = ?", (batch.owner,)).fetchone()
            rows = connection.execute(
                "SELECT key, question, schema, max_tokens FROM batch_items WHERE batch = ? "
                "AND key IN (SELECT value FROM json_each(?))",
                (batch.owner, json.dumps(list(keys))),
            ).fetchall()
        by_name = json.loads(schemas)
        return {key: Item(Question(**json.loads(asked)), by_name[name], most) for key, asked, name, most in rows}

    def end(self, batch: OpenBatch) -> None:
        """All answers are stored: what the batch still claims cost nothing, and can be asked again."""
        with self._store.transaction() as connection:
            connection.execute("DELETE FROM claims WHERE owner = ?", (batch.owner,))
            connection.execute("DELETE FROM batch_items WHERE batch = ?", (batch.owner,))
            connection.execute("UPDATE batches SET state = 'done', schemas = '{}' WHERE owner = ?", (batch.owner,))


def _keys(connection: Any, owner: str) -> list[str]:
    return [row[0] for row in connection.execute("SELECT key FROM batch_items WHERE batch = ?", (owner,))]
