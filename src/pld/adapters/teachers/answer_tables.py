"""The SQLite file of the answer store: its tables, and how files of earlier versions are brought up to date."""

import sqlite3
from pathlib import Path

from filelock import FileLock

from pld.errors import TeacherError

_VERSION = 4  # of the tables, kept in PRAGMA user_version
_BUSY_S = 60.0
_TABLES = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, asked TEXT NOT NULL, task TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
    role TEXT NOT NULL, request TEXT NOT NULL, draw INTEGER NOT NULL, way TEXT NOT NULL, answer TEXT NOT NULL,
    usd REAL, paid INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS answers_by_request ON answers (task, role, request);
CREATE INDEX IF NOT EXISTS answers_by_asked ON answers (asked);
CREATE TABLE IF NOT EXISTS waiting (
    asked TEXT PRIMARY KEY, task TEXT NOT NULL, role TEXT NOT NULL, request TEXT NOT NULL, draw INTEGER NOT NULL,
    system TEXT NOT NULL, prompt TEXT NOT NULL, schema TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, owner TEXT NOT NULL, task TEXT NOT NULL, usd REAL NOT NULL);
CREATE TABLE IF NOT EXISTS spent (
    task TEXT PRIMARY KEY, calls INTEGER NOT NULL, usd REAL NOT NULL, unpriced INTEGER NOT NULL,
    lost INTEGER NOT NULL, lost_usd REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    owner TEXT PRIMARY KEY, id TEXT, endpoint TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL,
    schemas TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS batch_items (
    batch TEXT NOT NULL, key TEXT NOT NULL, question TEXT NOT NULL, schema TEXT NOT NULL, max_tokens INTEGER NOT NULL,
    PRIMARY KEY (batch, key)
);
"""
# version 1 kept less: such an answer is found by its key and counts for no task
_FROM_1 = """
INSERT INTO answers SELECT key, '', '', COALESCE(json_extract(about, '$.provider'), ''),
COALESCE(json_extract(about, '$.model'), ''), COALESCE(json_extract(about, '$.role'), ''),
COALESCE(json_extract(about, '$.request'), ''), 0, 'messages', answer, NULL, 0 FROM answers_1;
DROP TABLE answers_1;
"""
# version 2 shared a task among processes: batches had a keeper, and ids that were only guessed
_FROM_2 = """
DELETE FROM batches WHERE state = 'begun';
UPDATE batches SET id = NULL WHERE state = 'found';
UPDATE batches SET state = 'open' WHERE state != 'done';
ALTER TABLE batches DROP COLUMN keeper;
ALTER TABLE batches DROP COLUMN foreign_ids;
"""


def open_database(path: Path) -> sqlite3.Connection:
    """A connection for all threads, in autocommit mode, to the file, which is made or brought up to date if need be.
    Raises OSError, sqlite3.Error, and TeacherError for a file of a later version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # two processes that switch a new file to WAL at once get "database is locked" in spite of the timeout
    with FileLock(f"{path}.lock"):
        path.touch()  # SQLite creates files without group write, whatever the umask
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # survives a power cut, not only a killed process
        _make_tables(connection, path)
    return connection


def _make_tables(connection: sqlite3.Connection, path: Path) -> None:
    """In one transaction, so that a killed process leaves the file as it was."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > _VERSION:
        raise TeacherError(
            f"expected a store of answers of version {_VERSION} at most, got version {version} ({path}); update pld, "
            "or set PLD_CACHE to another folder"
        )
    if version == _VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    with connection:
        if version == 1:
            connection.execute("ALTER TABLE answers RENAME TO answers_1")
        statements = _TABLES + (_FROM_1 if version == 1 else _FROM_2 if version == 2 else "")
        for statement in statements.split(";\n"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_VERSION}")
