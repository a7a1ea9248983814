"""Stores every paid answer of a Teacher on disk before it is used: SQLite in the per-user cache.

- An answer's key is the sha256 of everything that determines it, so a rerun pays only for what is new.
- One process at a time asks the Teacher for a task (a file lock that the kernel frees when the process dies).
- Before a call is made it is claimed with the most that it can cost, so calls in flight count against the budget.
  Claims that a killed run leaves behind become `lost` calls: they may have been paid for.

SQLite's WAL mode and the lock need a local disk, not a network file system.
"""

import json
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pld.adapters.teachers.answer_tables import open_database
from pld.errors import TeacherError
from pld.params import BudgetParams
from pld.records import canonical_json, sha256

FILE_NAME = "answers.sqlite"
RUN = "run"
"""Owner of the claims of the process that asks; a batch's claims have an owner of their own and outlive it."""


@dataclass(frozen=True)
class StoredAnswer:
    """`content` fits its schema, or is None and `error` says why (code: words); `usage` is what it cost in tokens,
    `usd` in dollars when it was paid for (None: the price was unknown); `date`: when an imported one was given, if it
    says so."""

    content: Mapping[str, Any] | None
    error: str | None
    usage: Mapping[str, int]
    usd: float | None = None
    date: str | None = None


@dataclass(frozen=True)
class Question:
    """What a stored answer is an answer to. `key`: hash of all that determines the answer; `asked`: hash of the
    question whatever the model; `request`: the request's key (an example id); `way`: messages | batches | openai."""

    key: str
    asked: str
    task: str
    provider: str
    model: str
    role: str
    request: str
    draw: int
    way: str


@dataclass(frozen=True)
class Entry:
    """A question with its answer."""

    question: Question
    answer: StoredAnswer


@dataclass(frozen=True)
class Spent:
    """Of one task, ever. `unpriced`: of `calls`, those with an unknown price. `lost`: calls of killed runs whose answer
    never arrived, counted at the most that they can have cost; so are `open_calls`, which are in flight."""

    calls: int = 0
    usd: float = 0.0
    unpriced: int = 0
    lost: int = 0
    lost_usd: float = 0.0
    open_calls: int = 0
    open_usd: float = 0.0

    @property
    def all_calls(self) -> int:
        return self.calls + self.lost + self.open_calls

    @property
    def all_usd(self) -> float:
        return self.usd + self.lost_usd + self.open_usd


@dataclass(frozen=True)
class SpentBy:
    """What the paid answers of one kind cost; `tokens` summed by kind, `usd` of those with a known price."""

    task: str
    role: str
    model: str
    way: str
    calls: int
    tokens: Mapping[str, int]
    usd: float
    unpriced: int


def request_key(determinants: Mapping[str, Any]) -> str:
    """Hex sha256 of the canonical JSON of everything that determines an answer."""
    return sha256(canonical_json(dict(determinants)))


class AnswerStore:
    """Safe for many threads and processes: each operation is one transaction, on disk (fsync) when it returns.

    Raises TeacherError when the file can't be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._one_at_a_time = threading.RLock()  # on the connection, which all threads share

    def get(self, key: str) -> StoredAnswer | None:
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, StoredAnswer]:
        """The stored ones of `keys`."""
        rows = self._rows(
            "SELECT key, answer, usd FROM answers WHERE key IN (SELECT value FROM json_each(?))",
            json.dumps(list(keys)),
        )
        return {key: _read(answer, usd) for key, answer, usd in rows}

    def stored_keys(self, keys: Iterable[str]) -> set[str]:
        """Those of `keys` that have an answer."""
        rows = self._rows(
            "SELECT key FROM answers WHERE key IN (SELECT value FROM json_each(?))", json.dumps(list(keys))
        )
        return {row[0] for row in rows}

    def put(self, question: Question, answer: StoredAnswer) -> StoredAnswer:
        return self.put_many([Entry(question, answer)])[0]

    def put_many(self, entries: Sequence[Entry]) -> list[StoredAnswer]:
        """Keep paid answers, end their claims, and return the stored answers: the first under each key stays.

        An answer counts as spent when it is new or was claimed, so a batch's result can be put twice.
        """
        stored = []
        with self.transaction() as connection:
            for question, answer in ((entry.question, entry.answer) for entry in entries):
                new = _insert(connection, question, answer, paid=True)
                claimed = connection.execute("DELETE FROM claims WHERE key = ?", (question.key,)).rowcount
                if new or claimed:
                    connection.execute(
                        "INSERT INTO spent VALUES (?, 1, ?, ?, 0, 0) ON CONFLICT (task) DO UPDATE SET "
                        "calls = calls + 1, usd = usd + excluded.usd, unpriced = unpriced + excluded.unpriced",
                        (question.task, answer.usd or 0.0, answer.usd is None),
                    )
                row = connection.execute("SELECT answer, usd FROM answers WHERE key = ?", (question.key,)).fetchone()
                stored.append(_read(*row))
        return stored

    @contextmanager
    def asking(self, task: str) -> Iterator[None]:
        """The right to ask for `task`, which one process has at a time; waits for it.

        What an earlier run claimed and left without a batch is lost. What is still claimed for RUN at the end was not
        asked, or cost nothing.
        """
        folder = self.path.with_name("asking")
        lock = FileLock(folder / f"{sha256(task)[:16]}.lock", thread_local=False)
        with _translated(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                print(f"another run is asking the Teacher for task {task!r}: waiting for it", file=sys.stderr)
                lock.acquire(poll_interval=0.1)
        try:
            with self.transaction() as connection:
                _lose(connection, "task = ? AND owner NOT IN (SELECT owner FROM batches WHERE state = 'open')", task)
            yield
        finally:
            try:
                with self.transaction() as connection:
                    connection.execute("DELETE FROM claims WHERE owner = ? AND task = ?", (RUN, task))
            finally:
                lock.release()

    def claim(
        self,
        calls: Sequence[tuple[str, float | None]],
        task: str,
        budget: BudgetParams,
        owner: str = RUN,
        within: sqlite3.Connection | None = None,
    ) -> int:
        """Claim the first of `calls` (key, the most dollars it can cost or None), as many as the budget allows, within
        a transaction if there is one already. Returns how many.

        Raises TeacherError where one of them is in flight for another task, or in a batch that this key can't reach.
        """
        if within is None:
            with self.transaction() as connection:
                return self.claim(calls, task, budget, owner, connection)
        spent = _spent(within, task)
        count, usd = spent.all_calls, spent.all_usd
        for number, (key, most) in enumerate(calls):
            count, usd = count + 1, usd + (most or 0.0)
            if (budget.calls is not None and count > budget.calls) or (budget.usd is not None and usd > budget.usd):
                return number
            claimed = within.execute("SELECT task FROM claims WHERE key = ?", (key,)).fetchone()
            if claimed:
                raise TeacherError(
                    f"expected new questions, got one that is in flight for task {claimed[0]!r} ({self.path}); wait "
                    "for its run to end (if it was killed, run it again), or use the key that submitted its batch"
                )
            within.execute("INSERT INTO claims VALUES (?, ?, ?, ?)", (key, owner, task, most or 0.0))
        return len(calls)

    def release(self, keys: Iterable[str]) -> None:
        """End claims of questions that cost nothing after all."""
        with self.transaction() as connection:
            connection.executemany("DELETE FROM claims WHERE key = ?", [(key,) for key in keys])

    def lose(self, owner: str) -> None:
        """Count what `owner` claimed as lost: it may have been paid for, and its answers will never come."""
        with self.transaction() as connection:
            _lose(connection, "owner = ?", owner)

    def price(self, task: str, usd_of: Callable[[str, str, Mapping[str, int]], float | None]) -> tuple[str, ...]:
        """Price the paid answers of `task` whose price was unknown, by `usd_of` (model, way, usage). Returns the models
        of those whose price is still unknown."""
        unknown: set[str] = set()
        with self.transaction() as connection:
            rows = connection.execute(
                "SELECT key, model, way, answer FROM answers WHERE task = ? AND paid AND usd IS NULL", (task,)
            ).fetchall()
            for key, model, way, answer in rows:
                usd = usd_of(model, way, _read(answer, None).usage)
                if usd is None:
                    unknown.add(model)
                    continue
                connection.execute("UPDATE answers SET usd = ? WHERE key = ?", (usd, key))
                connection.execute(
                    "UPDATE spent SET usd = usd + ?, unpriced = unpriced - 1 WHERE task = ?", (usd, task)
                )
        return tuple(sorted(unknown))

    def spent(self, task: str) -> Spent:
        """All that `task` cost, calls in flight included."""
        with self.transaction() as connection:
            return _spent(connection, task)

    def spent_by(self) -> list[SpentBy]:
        """What was paid for, by task, role, model and way."""
        kind = "task, role, model, way"
        tokens: dict[tuple[str, ...], dict[str, int]] = {}
        for *key, name, count in self._rows(
            f"SELECT {kind}, j.key, SUM(j.value) FROM answers, json_each(answers.answer, '$.usage') AS j "
            f"WHERE paid GROUP BY {kind}, j.key"
        ):
            tokens.setdefault(tuple(key), {})[name] = count
        return [
            SpentBy(task, role, model, way, calls, tokens.get((task, role, model, way), {}), usd, unpriced)
            for task, role, model, way, calls, usd, unpriced in self._rows(
                f"SELECT {kind}, COUNT(*), COALESCE(SUM(usd), 0), SUM(usd IS NULL) FROM answers "
                f"WHERE paid GROUP BY {kind} ORDER BY {kind}"
            )
        ]

    def mean_output_tokens(self, role: str, model: str) -> tuple[int, float] | None:
        """How many answers of `model` in `role` are stored, and their mean output tokens; None: there are none."""
        ((count, tokens),) = self._rows(
            "SELECT COUNT(*), AVG(COALESCE(json_extract(answer, '$.usage.output_tokens'), 0)) FROM answers "
            "WHERE role = ? AND model = ?",
            role,
            model,
        )
        return (count, tokens) if count else None

    def export(self, task: str | None = None, model: str | None = None) -> Iterator[Entry]:
        """Every answer (of a task, of a model), by key."""
        keys = self._rows(
            "SELECT key FROM answers WHERE (?1 IS NULL OR task = ?1) AND (?2 IS NULL OR model = ?2) ORDER BY key",
            task,
            model,
        )
        columns = "key, asked, task, provider, model, role, request, draw, way"
        for (key,) in keys:  # one at a time: answers fill the memory
            for row in self._rows(f"SELECT {columns}, answer, usd FROM answers WHERE key = ?", key):
                yield Entry(Question(*row[:9]), _read(row[9], row[10]))

    def by_question(self, asked: Iterable[str]) -> dict[str, Entry]:
        """The answers to the questions with these hashes, whatever the model; of several the first with content."""
        rows = self._rows(
            "SELECT key, asked, task, provider, model, role, request, draw, way, answer, usd FROM answers "
            "WHERE asked IN (SELECT value FROM json_each(?)) ORDER BY rowid",
            json.dumps(list(asked)),
        )
        found: dict[str, Entry] = {}
        for row in rows:
            entry = Entry(Question(*row[:9]), _read(row[9], row[10]))
            if found.setdefault(entry.question.asked, entry).answer.content is None:
                found[entry.question.asked] = entry
        return found

    def add_unpaid(self, entries: Iterable[Entry]) -> int:
        """Add answers that were paid for elsewhere, all or none; stored ones stay. Returns how many were new."""
        with self.transaction() as connection:
            added = 0
            for question, answer in ((entry.question, entry.answer) for entry in entries):
                added += _insert(connection, question, answer, paid=False)
                if answer.content is not None:
                    connection.execute("DELETE FROM waiting WHERE asked = ?", (question.asked,))
            return added

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._one_at_a_time, _translated(self.path):
            connection = self._open()
            connection.execute("BEGIN IMMEDIATE")
            with connection:  # commits, or rolls back on an exception
                yield connection

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._one_at_a_time, _translated(self.path):
            return self._open().execute(statement, values).fetchall()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = open_database(self.path)
        return self._connection


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """SQLite's and the file system's errors as TeacherError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        words = getattr(error, "strerror", None) or error
        raise TeacherError(
            f"expected the store of the Teacher's answers, got: {words} ({path}); make it writable, move it away, or "
            "set PLD_CACHE to another folder"
        ) from None


def _insert(connection: sqlite3.Connection, question: Question, answer: StoredAnswer, *, paid: bool) -> int:
    said = {"content": answer.content, "error": answer.error, "usage": dict(answer.usage)}
    value = canonical_json(said | ({"date": answer.date} if answer.date else {}))
    row = (*astuple(question), value, answer.usd, paid)
    return connection.execute(f"INSERT OR IGNORE INTO answers VALUES ({', '.join('?' * 12)})", row).rowcount


def _lose(connection: sqlite3.Connection, which: str, value: str) -> None:
    connection.execute(
        f"INSERT INTO spent SELECT task, 0, 0, 0, COUNT(*), SUM(usd) FROM claims WHERE {which} GROUP BY task "
        "ON CONFLICT (task) DO UPDATE SET lost = lost + excluded.lost, lost_usd = lost_usd + excluded.lost_usd",
        (value,),
    )
    connection.execute(f"DELETE FROM claims WHERE {which}", (value,))


def _spent(connection: sqlite3.Connection, task: str) -> Spent:
    row = connection.execute(
        "SELECT calls, usd, unpriced, lost, lost_usd FROM spent WHERE task = ?", (task,)
    ).fetchone()
    in_flight = connection.execute(
        "SELECT COUNT(*), COALESCE(SUM(usd), 0) FROM claims WHERE task = ?", (task,)
    ).fetchone()
    return Spent(*(row or (0, 0.0, 0, 0, 0.0)), *in_flight)


def _read(text: str, usd: float | None) -> StoredAnswer:
    value = json.loads(text)
    return StoredAnswer(value["content"], value["error"], value["usage"], usd, value.get("date"))
