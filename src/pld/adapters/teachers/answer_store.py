"""Every answer that was paid for, on disk before it is used: SQLite in WAL mode in the per-user cache.

The key is the sha256 of everything that determines the answer, so a rerun pays only for what is new. An answer is
committed (fsync) before `put` returns: a killed process loses only what had not arrived yet.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from pld.errors import TeacherError
from pld.records import canonical_json, sha256

FILE_NAME = "answers.sqlite"
_VERSION = 1  # of the table, kept in PRAGMA user_version
_BUSY_S = 60.0


@dataclass(frozen=True)
class StoredAnswer:
    """`content` fits its schema, or is None and `error` says why (code: words); `usage` is what it cost in tokens."""

    content: Mapping[str, Any] | None
    error: str | None
    usage: Mapping[str, int]


def request_key(determinants: Mapping[str, Any]) -> str:
    """Hex sha256 of the canonical JSON of everything that determines an answer."""
    return sha256(canonical_json(dict(determinants)))


class AnswerStore:
    """Safe for many threads and processes at once: each operation is a transaction on a connection of its own.

    Raises TeacherError when the file can't be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ready = False

    def get(self, key: str) -> StoredAnswer | None:
        with self._connection() as connection:
            row = connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else _read(row[0])

    def put(self, key: str, answer: StoredAnswer, about: Mapping[str, str]) -> StoredAnswer:
        """Keep `answer` durably and return the one that stands: the first that was kept under `key`.

        `about` (provider, model, role, key of the request) is for people who look into the file.
        """
        value = canonical_json({"content": answer.content, "error": answer.error, "usage": dict(answer.usage)})
        with self._connection() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO answers (key, about, answer) VALUES (?, ?, ?)",
                (key, canonical_json(dict(about)), value),
            )
            row = connection.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return _read(row[0])

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self._ready:
                self._create()
            connection = sqlite3.connect(self.path, timeout=_BUSY_S)
            try:
                connection.execute("PRAGMA synchronous = FULL")
                with connection:  # commits, or rolls back on an exception
                    yield connection
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            raise TeacherError(
                f"{self.path}: wanted the store of the Teacher's answers, found: {error}; "
                "make it writable, move it away, or set PLD_CACHE to another folder"
            ) from None

    def _create(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # two processes that switch a new file to WAL at once get "database is locked" in spite of the timeout
        with FileLock(f"{self.path}.lock"):
            connection = sqlite3.connect(self.path, timeout=_BUSY_S)
            try:
                version = connection.execute("PRAGMA user_version").fetchone()[0]
                if version not in (0, _VERSION):
                    raise sqlite3.DatabaseError(f"table version {version}, this pld knows {_VERSION}")
                connection.execute("PRAGMA journal_mode = WAL")
                with connection:
                    connection.execute(
                        "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, about TEXT NOT NULL, "
                        "answer TEXT NOT NULL) WITHOUT ROWID"
                    )
                    connection.execute(f"PRAGMA user_version = {_VERSION}")
            finally:
                connection.close()
        self._ready = True


def _read(text: str) -> StoredAnswer:
    value = json.loads(text)
    return StoredAnswer(value["content"], value["error"], value["usage"])
