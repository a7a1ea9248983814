"""The opt-in log of answers in serving: JSON Lines of ServedAnswer, which any number of processes append to.

PLD_SERVING_LOG names the file. Texts are logged only if PLD_SERVING_LOG_INPUTS is true.
"""

import fcntl
import json
import os
import stat
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from pld.errors import ConfigError, DataError
from pld.records import ServedAnswer, inputs_id

LOG_VARIABLE = "PLD_SERVING_LOG"
INPUTS_VARIABLE = "PLD_SERVING_LOG_INPUTS"
# how long an answer waits for the lock
_PATIENCE_S = 1.0
_BLOCK = 1 << 16
_OPENING = b'{"at"'


class ServingLog:
    """The log of one served version. An answer never fails because it can't be logged: that is reported once."""

    def __init__(self, path: Path, with_inputs: bool) -> None:
        self._path = path
        self._with_inputs = with_inputs
        self._lock = threading.Lock()
        self.lost = 0

    @classmethod
    def from_environment(cls) -> "ServingLog | None":
        """None where PLD_SERVING_LOG is unset. Raises ConfigError for a switch that is neither true nor false."""
        switch = os.environ.get(INPUTS_VARIABLE, "false").strip().lower()
        if switch not in ("true", "false"):
            raise ConfigError(f"expected true or false, got {switch!r} ({INPUTS_VARIABLE})")
        path = os.environ.get(LOG_VARIABLE)
        return cls(Path(path).expanduser().absolute(), switch == "true") if path else None

    def add(
        self,
        records: Sequence[Mapping[str, str]],
        labels: Sequence[str | None],
        scores: Sequence[Sequence[float]],
        prompt_sha256: str,
        prompt_version: str,
    ) -> None:
        """One line for each of `records` [n]: its label [n] and scores [n, k]."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        answers = [
            ServedAnswer(
                at=now,
                id=inputs_id(record),
                prompt_sha256=prompt_sha256,
                prompt_version=prompt_version,
                label=label,
                scores=() if label is None else tuple(row),
                inputs=dict(record) if self._with_inputs else None,
            )
            for record, label, row in zip(records, labels, scores, strict=True)
        ]
        try:
            append(self._path, answers)
        except OSError as error:
            with self._lock:
                first, self.lost = not self.lost, self.lost + len(answers)
            if first:
                why = error.strerror or error
                print(f"expected to log answers, got {why} ({self._path}); they are lost meanwhile", file=sys.stderr)
        else:
            with self._lock:
                lost, self.lost = self.lost, 0
            if lost:
                print(f"{self._path}: answers are logged again; {lost} were lost", file=sys.stderr)


def append(path: Path, answers: Sequence[ServedAnswer]) -> None:
    """Append `answers` in one write. The file is opened each time, so that it may be rotated at any time.

    Cuts off the incomplete last line of a killed process first. Raises OSError, and then leaves the file as it was.
    """
    text = "".join(json.dumps(answer.model_dump(mode="json"), ensure_ascii=False) + "\n" for answer in answers)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError("something that is not a file")
        _lock(handle)
        end = _end_of_lines(handle)
        data = text.encode()
        if (written := os.write(handle, data)) < len(data):
            os.ftruncate(handle, end)
            raise OSError(f"room for {written} of {len(data)} bytes")
    finally:
        os.close(handle)


def read(paths: Sequence[Path]) -> list[ServedAnswer]:
    """The answers of several logs, in the order of their lines. Skips, and reports, an incomplete last line, which a
    killed server leaves. Raises DataError that names file and line for any other line that is not a log's."""
    found: list[ServedAnswer] = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise DataError(f"expected a serving log, got {error.strerror or error} ({path}); name its file") from None
        *lines, half = data.split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found.append(ServedAnswer.model_validate_json(line))
            except ValidationError as error:
                raise DataError(
                    f"expected a line of a serving log, got {first_fault(error)} ({path}, line {number}); delete the "
                    "line, or name another file"
                ) from None
        if half:
            print(f"{path}: skipped an incomplete last line", file=sys.stderr)
    return found


def first_fault(error: ValidationError) -> str:
    """Pydantic's first error, with its location in the record."""
    first = error.errors()[0]
    return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))


def _lock(handle: int) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise OSError(f"a lock that another process held for {_PATIENCE_S:g} s") from None
            time.sleep(0.001)
        else:
            return


def _end_of_lines(handle: int) -> int:
    """Cut off an incomplete last line; returns the file's length."""
    end = os.fstat(handle).st_size
    if not end or os.pread(handle, 1, end - 1) == b"\n":
        return end
    start = end
    while start:
        start = max(0, start - _BLOCK)
        if (at := os.pread(handle, _BLOCK, start).rfind(b"\n")) >= 0:
            start += at + 1
            break
    if not _OPENING.startswith(fragment := os.pread(handle, len(_OPENING), start)) and fragment != _OPENING:
        raise OSError("a file that is not a serving log")  # never truncate another kind of file
    os.ftruncate(handle, start)
    return start
