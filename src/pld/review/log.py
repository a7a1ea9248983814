"""The append-only log of review decisions: one JSONL file per task, chained by hashes."""

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from pld.errors import ReviewError
from pld.review.decisions import (
    Decision,
    ReviewEntry,
    ReviewStanding,
    chain_fault,
    entry_after,
    same_again,
    standing,
)

FOLDER = Path("reviews")
_RESTORE = "restore the file (`git log -p` shows its history)"


def log_path(task: str) -> Path:
    """reviews/<task>.jsonl. Raises ReviewError if the task's name can't be a file name."""
    if task != Path(task).name or task[:1] in ("", "."):
        raise ReviewError(f"expected a task name that can be a file name, got {task!r:.60} (reviews/); see conf/task/")
    return FOLDER / f"{task}.jsonl"


def read_log(task: str) -> list[ReviewEntry]:
    """All entries, oldest first; none without a log. Raises ReviewError naming the first line that was changed."""
    path = log_path(task)
    try:
        held = path.read_bytes()
    except FileNotFoundError:
        return []
    *lines, rest = held.split(b"\n")
    entries: list[ReviewEntry] = []
    for number, line in enumerate(lines, 1):
        try:
            entry = ReviewEntry.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = "".join(f", {part}" for part in first["loc"][:1])
            got = f"{first['msg'][:1].lower()}{first['msg'][1:]}"
            raise ReviewError(f"expected a review entry, got {got} ({path}:{number}{where}); {_RESTORE}") from None
        fault = chain_fault(entry, entries[-1] if entries else None, task)
        if fault is None and _line(entry) != line + b"\n":  # spaces, keys in another order, Windows line ends
            fault = "expected the line byte for byte as written, got other white space or key order"
        if fault:
            raise ReviewError(f"{fault} ({path}:{number}); {_RESTORE}")
        entries.append(entry)
    if rest:
        raise ReviewError(f"expected a complete line, got one without a line end ({path}:{len(lines) + 1}); {_RESTORE}")
    return entries


def record(task: str, prompt_sha256: str, decisions: Sequence[Decision], makes: str) -> tuple[ReviewEntry, bool]:
    """The entry for a sheet, and whether it is new: importing a sheet again adds none. Crash-safe: the log either holds
    the entry or is unchanged. Raises ReviewError if the chain is broken."""
    from filelock import FileLock

    path = log_path(task)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with FileLock(FOLDER / f".{path.name}.lock"):
        entries = read_log(task)
        if held := same_again(entries, prompt_sha256, decisions, makes):
            return held, False
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        entry = entry_after(entries[-1] if entries else None, now, task, prompt_sha256, decisions, makes)
        _replace(path, b"".join(map(_line, [*entries, entry])))
        return entry, True


def standing_of(task: str, prompt_sha256: str, instruction_ids: Sequence[str]) -> ReviewStanding:
    """What reviews/<task>.jsonl says about the prompt. Raises ReviewError if the chain is broken."""
    return standing(read_log(task), prompt_sha256, instruction_ids)


def _line(entry: ReviewEntry) -> bytes:
    return (json.dumps(entry.model_dump(mode="json"), ensure_ascii=False) + "\n").encode()


def _replace(path: Path, held: bytes) -> None:
    """Write `held` durably. Appending in place is not enough: SIGKILL can cut a write in two."""
    temporary = path.with_name(f".{path.name}.new")  # left over by a killed import: overwritten under the lock
    with temporary.open("wb") as file:
        file.write(held)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
