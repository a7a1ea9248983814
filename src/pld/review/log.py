"""The append-only log of reviews, one file for each task, chained by hashes."""

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
_MEND = "take the file back as it was (`git log -p` shows it)"


def log_path(task: str) -> Path:
    """reviews/<task>.jsonl. Raises ReviewError where the task's name makes no file name."""
    if task != Path(task).name or task[:1] in ("", "."):
        raise ReviewError(f"reviews/: wanted a task's name that can name a file, found {task!r:.60}; see conf/task/")
    return FOLDER / f"{task}.jsonl"


def read_log(task: str) -> list[ReviewEntry]:
    """All entries, in turn; none where there is no log. Raises ReviewError, which names the first line that is not as
    it was written."""
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
            at = ".".join(str(part) for part in first["loc"]) or "the line"
            raise ReviewError(f"{path}:{number}: wanted an entry, found at {at}: {first['msg']}; {_MEND}") from None
        fault = chain_fault(entry, entries[-1] if entries else None, task)
        if fault is None and _line(entry) != line + b"\n":  # spaces, keys in another order, Windows line ends
            fault = "wanted the line as it was written, found it written in another way"
        if fault:
            raise ReviewError(f"{path}:{number}: {fault}; {_MEND}")
        entries.append(entry)
    if rest:
        raise ReviewError(f"{path}:{len(lines) + 1}: wanted a whole line, found one without its end; {_MEND}")
    return entries


def record(task: str, prompt_sha256: str, decisions: Sequence[Decision], makes: str) -> tuple[ReviewEntry, bool]:
    """The entry for a sheet, and whether it is new: the same sheet again is one entry. After a crash the log is either
    as before or holds it. Raises ReviewError where the chain is broken."""
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
    """What reviews/<task>.jsonl says of the prompt. Raises ReviewError where the chain is broken."""
    return standing(read_log(task), prompt_sha256, instruction_ids)


def _line(entry: ReviewEntry) -> bytes:
    return (json.dumps(entry.model_dump(mode="json"), ensure_ascii=False) + "\n").encode()


def _replace(path: Path, held: bytes) -> None:
    """Put `held` at `path`, on the disk before this returns. Not appended in place: SIGKILL may cut a write in two."""
    temporary = path.with_name(f".{path.name}.new")  # of a killed import: taken over by the next, under the lock
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
