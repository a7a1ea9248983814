"""Every answer that was paid for, on disk before it is used: SQLite in WAL mode in the per-user cache.

An answer's key is the sha256 of everything that determines it, so a rerun pays only for what is new. It is committed
(fsync) before `put` returns: a killed process loses only what had not arrived yet. Before a question is asked it is
claimed, so that two processes never pay for the same one; a claim reserves what the answer can cost at most, so that a
budget holds however many are under way. Who claims holds a file lock of its own (owners/), which the kernel lets go of
when the process dies. WAL needs one machine: a path on a network file system is no place for it.
"""

import json
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pld.errors import TeacherError
from pld.params import BudgetParams
from pld.records import canonical_json, sha256

FILE_NAME = "answers.sqlite"
_VERSION = 2  # of the tables, kept in PRAGMA user_version
_BUSY_S = 60.0
_AT_ONCE = 500  # keys in one statement
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, asked TEXT NOT NULL, task TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    role TEXT NOT NULL, request TEXT NOT NULL, draw INTEGER NOT NULL, way TEXT NOT NULL, answer TEXT NOT NULL,
    usd REAL, paid INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_by_request ON answers (task, role, request);
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, task TEXT NOT NULL, usd REAL NOT NULL);
CREATE TABLE IF NOT EXISTS spent (
    task TEXT PRIMARY KEY, calls INTEGER NOT NULL, usd REAL NOT NULL, unpriced INTEGER NOT NULL,
    lost INTEGER NOT NULL, lost_usd REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    owner TEXT PRIMARY KEY, id TEXT, endpoint TEXT NOT NULL, keeper TEXT NOT NULL, state TEXT NOT NULL,
    created REAL NOT NULL, foreign_ids TEXT NOT NULL, schemas TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS batch_items (
    batch TEXT NOT NULL, key TEXT NOT NULL, question TEXT NOT NULL, schema TEXT NOT NULL, max_tokens INTEGER NOT NULL,
    PRIMARY KEY (batch, key)
);
"""
BATCH_OWNER = "batch:"
"""What the owner of a batch's claims begins with: they outlive the process that submitted it."""

Verdict = Literal["claimed", "answered", "held", "full"]


@dataclass(frozen=True)
class StoredAnswer:
    """`content` fits its schema, or is None and `error` says why (code: words); `usage` is what it cost in tokens,
    `usd` in dollars when it was paid for (None: the price was not known)."""

    content: Mapping[str, Any] | None
    error: str | None
    usage: Mapping[str, int]
    usd: float | None = None


@dataclass(frozen=True)
class Question:
    """What a stored answer is an answer to. `key`: hash of all that determines it; `asked`: hash of what is asked,
    whoever is asked; `request`: the request's key (an example id); `way`: messages | batches | openai."""

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
class Kept:
    """A question with its answer, as it is moved between stores."""

    question: Question
    answer: StoredAnswer


@dataclass(frozen=True)
class Spent:
    """Of one task, ever. `unpriced`: of `calls`, those whose price was not known. `lost`: calls of killed runs whose
    answer never arrived, counted at the most they can have cost; `open_calls` are under way, counted likewise."""

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
    """What the paid answers of one kind cost; `tokens` summed by kind, `usd` of those whose price was known."""

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
    """Safe for many threads and processes at once: each operation is one transaction.

    Raises TeacherError when the file can't be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ready = False
        self._writing = threading.Lock()  # threads that wait here don't poll for SQLite's lock
        self._kept_open: sqlite3.Connection | None = None  # for changes alone: it sees what is not committed yet

    def get(self, key: str) -> StoredAnswer | None:
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, StoredAnswer]:
        """The stored ones of `keys`."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, StoredAnswer] = {}
        with self._connection() as connection:
            for at in range(0, len(wanted), _AT_ONCE):
                some = wanted[at : at + _AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = connection.execute(f"SELECT key, answer, usd FROM answers WHERE key IN ({marks})", some)
                found.update((key, _read(answer, usd)) for key, answer, usd in rows)
        return found

    def put(self, question: Question, answer: StoredAnswer) -> StoredAnswer:
        """Keep a paid `answer` durably, end its claim, and return the one that stands: the first under this key.

        It counts as spent when it is new or was claimed, so the same result of a batch can be put twice.
        """
        return self.put_many([Kept(question, answer)])[0]

    def put_many(self, kept: Sequence[Kept]) -> list[StoredAnswer]:
        """`put` in one transaction: all or none."""
        standing = []
        with self._change(durable=True) as connection:
            for question, answer in ((item.question, item.answer) for item in kept):
                new = _insert(connection, question, answer, paid=True)
                claimed = connection.execute("DELETE FROM claims WHERE key = ?", (question.key,)).rowcount
                if new or claimed:
                    connection.execute(
                        "INSERT INTO spent VALUES (?, 1, ?, ?, 0, 0) ON CONFLICT (task) DO UPDATE SET "
                        "calls = calls + 1, usd = usd + excluded.usd, unpriced = unpriced + excluded.unpriced",
                        (question.task, answer.usd or 0.0, answer.usd is None),
                    )
                row = connection.execute("SELECT answer, usd FROM answers WHERE key = ?", (question.key,)).fetchone()
                standing.append(_read(*row))
        return standing

    def claim(
        self, wanted: Sequence[tuple[str, float | None]], owner: str, task: str, budget: BudgetParams
    ) -> tuple[dict[str, Verdict], Spent]:
        """Claim keys, each with the dollars that its answer can cost at most (None: unknown), in their order. Also
        what `task` had spent and reserved before.

        `answered`: it has an answer by now; `held`: somebody is asking it; `full`: with it the task could go over
        `budget`, counting what is under way.
        """
        verdicts: dict[str, Verdict] = {}
        with self._change() as connection:
            spent = _spent(connection, task)
            calls, usd = spent.all_calls, spent.all_usd
            for key, most in wanted:
                if connection.execute("SELECT 1 FROM answers WHERE key = ?", (key,)).fetchone():
                    verdicts[key] = "answered"
                elif connection.execute("SELECT 1 FROM claims WHERE key = ?", (key,)).fetchone():
                    verdicts[key] = "held"
                elif (budget.calls is not None and calls + 1 > budget.calls) or (
                    budget.usd is not None and usd + (most or 0.0) > budget.usd
                ):
                    verdicts[key] = "full"
                else:
                    connection.execute("INSERT INTO claims VALUES (?, ?, ?, ?)", (key, owner, task, most or 0.0))
                    verdicts[key] = "claimed"
                    calls, usd = calls + 1, usd + (most or 0.0)
        return verdicts, spent

    def release(self, keys: Iterable[str], owner: str) -> None:
        """End claims whose questions cost nothing after all."""
        with self._change() as connection:
            connection.executemany("DELETE FROM claims WHERE key = ? AND owner = ?", [(key, owner) for key in keys])

    @contextmanager
    def owner(self) -> Iterator[str]:
        """A name to claim under, alive until the block ends or the process dies.

        What is still claimed when the block ends was not asked, or cost nothing.
        """
        name = uuid.uuid4().hex
        lock = self._lock_of(name)
        with translated(self.path):
            if not self._ready:
                self._create()
            lock.acquire()
            # the last connection that closes moves the log into the tables: too slow for every operation
            self._kept_open = connection = self._connect(any_thread=True)
        try:
            yield name  # not under `translated`: what goes wrong here need not be the store's fault
        finally:
            try:
                with self._change() as change:
                    change.execute("DELETE FROM claims WHERE owner = ?", (name,))
            finally:
                self._kept_open = None
                connection.close()
                _give_up(lock)

    def end_claims_of_the_dead(self) -> None:
        """A killed process may have paid for what it had asked: its claims become `lost`, and can be asked again."""
        with self._connection() as connection:
            owners = {row[0] for row in connection.execute("SELECT DISTINCT owner FROM claims")}
            owners |= {path.stem for path in self._owners.iterdir()}
        for owner in owners:
            if owner.startswith(BATCH_OWNER):
                continue
            lock = self._lock_of(owner)
            if not self._dead(lock):
                continue
            try:
                self.lose(owner)
            finally:
                _give_up(lock)

    def lose(self, owner: str) -> None:
        """What `owner` claimed may have been paid for, and its answers never come: `lost`, and can be asked again."""
        with self._change(durable=True) as connection:
            rows = connection.execute(
                "SELECT task, COUNT(*), SUM(usd) FROM claims WHERE owner = ? GROUP BY task", (owner,)
            ).fetchall()
            connection.executemany(
                "INSERT INTO spent VALUES (?, 0, 0, 0, ?, ?) ON CONFLICT (task) DO UPDATE SET "
                "lost = lost + excluded.lost, lost_usd = lost_usd + excluded.lost_usd",
                rows,
            )
            connection.execute("DELETE FROM claims WHERE owner = ?", (owner,))

    def is_alive(self, owner: str) -> bool:
        """Whether the process that goes by this name is still there."""
        lock = self._lock_of(owner)
        if dead := self._dead(lock):
            _give_up(lock)
        return not dead

    def stranded(self, task: str) -> int:
        """How many claims of `task` belong to batches that no living process looks after."""
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT batches.keeper, COUNT(*) FROM claims JOIN batches ON batches.owner = claims.owner "
                "WHERE claims.task = ? GROUP BY batches.keeper",
                (task,),
            ).fetchall()
        return sum(count for keeper, count in rows if not self.is_alive(keeper))

    def price(self, task: str, usd_of: Callable[[str, str, Mapping[str, int]], float | None]) -> tuple[str, ...]:
        """Give the paid answers of `task` whose price was not known what `usd_of` (model, way, usage) says now.
        Returns the models of those whose price is still not known."""
        unknown: set[str] = set()
        with self._change(durable=True) as connection:
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
        """All that `task` cost, what is under way included."""
        with self._connection() as connection:
            return _spent(connection, task)

    def spent_by(self) -> list[SpentBy]:
        """What was paid for, by task, role, model and way."""
        found: dict[tuple[str, str, str, str], SpentBy] = {}
        with self._connection() as connection:
            rows = connection.execute(
                "SELECT task, role, model, way, COUNT(*), COALESCE(SUM(usd), 0), SUM(usd IS NULL) FROM answers "
                "WHERE paid GROUP BY task, role, model, way ORDER BY task, role, model, way"
            ).fetchall()
            tokens: dict[tuple[str, str, str, str], dict[str, int]] = {}
            for *kind, name, count in connection.execute(
                "SELECT task, role, model, way, j.key, SUM(j.value) FROM answers, "
                "json_each(answers.answer, '$.usage') AS j WHERE paid GROUP BY task, role, model, way, j.key"
            ):
                tokens.setdefault((kind[0], kind[1], kind[2], kind[3]), {})[name] = count
        for task, role, model, way, calls, usd, unpriced in rows:
            kind_key = (task, role, model, way)
            found[kind_key] = SpentBy(task, role, model, way, calls, tokens.get(kind_key, {}), usd, unpriced)
        return list(found.values())

    def mean_usage(self, role: str, model: str) -> tuple[int, float, float] | None:
        """Past answers of `model` in `role`: how many, and their mean input and output tokens."""
        with self._connection() as connection:
            count, tokens_in, tokens_out = connection.execute(
                "SELECT COUNT(*), AVG(COALESCE(json_extract(answer, '$.usage.input_tokens'), 0) "
                "+ COALESCE(json_extract(answer, '$.usage.cache_read_input_tokens'), 0) "
                "+ COALESCE(json_extract(answer, '$.usage.cache_creation_input_tokens'), 0)), "
                "AVG(COALESCE(json_extract(answer, '$.usage.output_tokens'), 0)) "
                "FROM answers WHERE role = ? AND model = ?",
                (role, model),
            ).fetchone()
        return (count, tokens_in, tokens_out) if count else None

    def refused_share(self, role: str, model: str) -> float:
        """Of the past answers of `model` in `role`, those that were no use (0 where there are none)."""
        with self._connection() as connection:
            share = connection.execute(
                "SELECT AVG(json_extract(answer, '$.error') IS NOT NULL) FROM answers WHERE role = ? AND model = ?",
                (role, model),
            ).fetchone()[0]
        return float(share or 0.0)

    def earlier(self, task: str, role: str, requests: Iterable[str]) -> int:
        """How many of the requests (their keys) have an answer under some wording or setting."""
        with self._connection() as connection:
            known = {
                row[0]
                for row in connection.execute(
                    "SELECT DISTINCT request FROM answers WHERE task = ? AND role = ?", (task, role)
                )
            }
        return sum(request in known for request in set(requests))

    def export(self, task: str | None = None, model: str | None = None) -> Iterator[Kept]:
        """Every answer (of a task, of a model), by key."""
        columns = "key, asked, task, provider, model, role, request, draw, way"
        with self._connection() as connection:
            for row in connection.execute(
                f"SELECT {columns}, answer, usd FROM answers WHERE (?1 IS NULL OR task = ?1) "
                "AND (?2 IS NULL OR model = ?2) ORDER BY key",
                (task, model),
            ):
                yield Kept(Question(*row[:9]), _read(row[9], row[10]))

    def take_in(self, kept: Iterable[Kept]) -> int:
        """Add answers that were paid for elsewhere, all or none; what is there stays. How many were new."""
        with self._change(durable=True) as connection:
            return sum(_insert(connection, item.question, item.answer, paid=False) for item in kept)

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """For what else is kept in this file (batch_log)."""
        with self._change(durable=durable) as connection:
            yield connection

    @contextmanager
    def _change(self, durable: bool = False) -> Iterator[sqlite3.Connection]:
        with self._writing, translated(self.path):
            kept = self._kept_open
            with self._connection() if kept is None else nullcontext(kept) as connection:
                # in WAL mode NORMAL survives a killed process, FULL a power cut too
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                connection.execute("BEGIN IMMEDIATE")
                with connection:  # commits, or rolls back on an exception
                    yield connection

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with translated(self.path):
            if not self._ready:
                self._create()
            connection = self._connect()
            try:
                yield connection
            finally:
                connection.close()

    def _connect(self, any_thread: bool = False) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=not any_thread)

    def _dead(self, lock: FileLock) -> bool:
        """Whether nobody held `lock`, which is held from now on."""
        with translated(self.path):
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
        return True

    @property
    def _owners(self) -> Path:
        return self.path.with_name("owners")

    def _lock_of(self, owner: str) -> FileLock:
        return FileLock(self._owners / f"{owner}.lock", thread_local=False)

    def _create(self) -> None:
        self._owners.mkdir(parents=True, exist_ok=True)
        # two processes that switch a new file to WAL at once get "database is locked" in spite of the timeout
        with FileLock(f"{self.path}.lock"):
            self.path.touch()  # SQLite by itself would leave a group no right to write, whatever the umask says
            connection = self._connect()
            try:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version > _VERSION:
                    raise TeacherError(
                        f"{self.path}: wanted a store of answers of version {_VERSION} at most, found version "
                        f"{version}; update pld, or set PLD_CACHE to another folder"
                    )
                connection.execute("PRAGMA journal_mode = WAL")
                if version < _VERSION:
                    connection.execute("BEGIN IMMEDIATE")
                    with connection:
                        _make_tables(connection, version)
            finally:
                connection.close()
        self._ready = True


# what version 1 did not write down is empty: such an answer is found by its key, and counts for no task
_FROM_1 = """
INSERT INTO answers SELECT key, '', '', COALESCE(json_extract(about, '$.provider'), ''),
COALESCE(json_extract(about, '$.model'), ''), COALESCE(json_extract(about, '$.role'), ''),
COALESCE(json_extract(about, '$.request'), ''), 0, 'messages', answer, NULL, 0 FROM answers_1
"""


def _make_tables(connection: sqlite3.Connection, version: int) -> None:
    """All in the transaction of the caller, so that a killed process leaves the file as it was."""
    if version == 1:
        connection.execute("ALTER TABLE answers RENAME TO answers_1")
    for statement in _TABLES.split(";\n"):
        connection.execute(statement)
    if version == 1:
        connection.execute(_FROM_1)
        connection.execute("DROP TABLE answers_1")
    connection.execute(f"PRAGMA user_version = {_VERSION}")


def _give_up(lock: FileLock) -> None:
    Path(lock.lock_file).unlink(missing_ok=True)  # while it is held: who waits for it sees that it names nothing now
    lock.release()


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """SQLite's and the file system's faults as TeacherError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        found = getattr(error, "strerror", None) or error
        raise TeacherError(
            f"{path}: wanted the store of the Teacher's answers, found: {found}; "
            "make it writable, move it away, or set PLD_CACHE to another folder"
        ) from None


def _insert(connection: sqlite3.Connection, question: Question, answer: StoredAnswer, *, paid: bool) -> int:
    value = canonical_json({"content": answer.content, "error": answer.error, "usage": dict(answer.usage)})
    done = connection.execute(
        "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            question.key,
            question.asked,
            question.task,
            question.provider,
            question.model,
            question.role,
            question.request,
            question.draw,
            question.way,
            value,
            answer.usd,
            paid,
        ),
    )
    return done.rowcount


def _spent(connection: sqlite3.Connection, task: str) -> Spent:
    row = connection.execute(
        "SELECT calls, usd, unpriced, lost, lost_usd FROM spent WHERE task = ?", (task,)
    ).fetchone()
    under_way = connection.execute(
        "SELECT COUNT(*), COALESCE(SUM(usd), 0) FROM claims WHERE task = ?", (task,)
    ).fetchone()
    return Spent(*(row or (0, 0.0, 0, 0, 0.0)), *under_way)


def _read(text: str, usd: float | None) -> StoredAnswer:
    value = json.loads(text)
    return StoredAnswer(value["content"], value["error"], value["usage"], usd)
