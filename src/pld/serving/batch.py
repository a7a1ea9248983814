"""A file's rows classified chunk by chunk: what is finished stands on disk in `<out>.partial`, and is not done again.

The partial file is a line that says of what it is, then per chunk a line with its length and hash, and its rows as CSV.
"""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pld.artifacts import atomic_path, csv_line, file_sha256
from pld.errors import DataError
from pld.progress import progress
from pld.records import canonical_json
from pld.serving.batch_rows import Cells, CheckedFile
from pld.serving.model import PromptClassifier

CHUNK = 64
"""Rows that are scored together; a process that is killed loses no more than these."""


@dataclass(frozen=True)
class Batch:
    """What is asked for: `out` is the CSV file to write, `prefix` stands before the names of the written columns,
    `skip_bad`: rows that can't be classified are passed over, with the reason in a column of its own."""

    file: CheckedFile
    out: Path
    prefix: str
    skip_bad: bool

    @property
    def partial(self) -> Path:
        return self.out.with_name(f"{self.out.name}.partial")

    def written(self, labels: Sequence[str]) -> list[str]:
        """Names of the columns that come after the file's own."""
        names = ["label", *(f"score_{label}" for label in labels), "margin", "prompt_sha256", "prompt_version"]
        return [self.prefix + name for name in [*names, *(["reason"] if self.skip_bad else [])]]


@dataclass(frozen=True)
class Done:
    """All rows of `out`, of which `resumed` were there already: how many have each label, how many are longer than the
    Student's context, and how many were passed over."""

    rows: int
    resumed: int
    labels: Mapping[str, int]
    too_long: int
    passed_over: int


def classify_file(batch: Batch, model: str, version: int, classifier: PromptClassifier) -> Done:
    """Classify with `version` of the registered `model` and write `batch.out`, in the order of the file's rows, going
    on from where an earlier call was interrupted.

    Raises DataError, before anything is scored, for a bad row unless they are skipped, for a column of the file that
    would be written, and for a partial file of something else or that another process writes.
    """
    file, labels = batch.file, classifier.spec.task.labels
    written = batch.written(labels)
    _check(batch, written)
    header = {
        "file": file_sha256(file.path),
        "model": model,
        "version": version,
        "answers": classifier.spec.key,
        "columns": [*file.columns, *written],
        "fields": dict(file.fields),
        "chunk": CHUNK,
    }
    with _opened(batch, header) as partial:
        resumed = partial.rows
        if resumed < file.rows:
            classifier.warm_up()
        with progress("classify", file.rows) as advance:
            advance(resumed)
            cells = islice(file.stream(), resumed, None)
            while chunk := list(islice(cells, CHUNK)):
                finished, counts = _classified(batch, classifier, chunk, partial.rows, advance)
                with _writing(batch.partial):
                    partial.add(finished, counts)
        with _writing(batch.out), atomic_path(batch.out) as temporary, temporary.open("wb") as whole:
            whole.write(_csv([[*file.columns, *written]]))
            partial.copy_to(whole)
        batch.partial.unlink()
    passed_over = len(file.bad)
    too_long = file.rows - passed_over - partial.labels.total()
    return Done(file.rows, resumed, partial.labels, too_long, passed_over)


def _check(batch: Batch, written: Sequence[str]) -> None:
    file = batch.file
    if twice := [name for name in written if name in file.columns]:
        raise DataError(
            f"{file.path}: wanted no column {', '.join(map(repr, twice))}, which is written, found it there; "
            f"`--prefix pld_` names the written ones pld_label and so on, or rename it"
        )
    if file.bad and not batch.skip_bad:
        more = f" (and {len(file.bad) - 1:,} more rows like it)" if len(file.bad) > 1 else ""
        raise DataError(
            f"{file.path}: {next(iter(file.bad.values()))}; mend it, or pass over such rows with --skip-bad{more}"
        )
    if batch.out.exists() and not batch.partial.exists():
        raise DataError(f"{batch.out}: wanted a new file to write, found one; delete it, or name another one")


def _classified(
    batch: Batch, classifier: PromptClassifier, chunk: Sequence[Cells], start: int, advance: Any
) -> tuple[list[list[str]], Counter[str]]:
    """The finished rows of `chunk`, whose first is row `start` of the file, and how many have each label."""
    file, spec = batch.file, classifier.spec
    good = [at for at in range(len(chunk)) if start + at not in file.bad]
    records = [{field: chunk[at][place] for field, place in file.fields.items()} for at in good]
    found = classifier.classify(records, advance)
    advance(len(chunk) - len(good))
    answers = dict(zip(good, zip(found.labels, found.scores, strict=True), strict=True))
    rows = []
    for at, cells in enumerate(chunk):
        label, scores = answers.get(at, (None, None))
        reason = file.bad.get(start + at, "" if label is not None else "longer than the Student's context")
        figures = [""] * (len(spec.task.labels) + 1)
        if label is not None:
            best, second = np.sort(scores)[[-1, -2]]
            figures = [repr(round(float(value), 6)) for value in (*scores, best - second)]
        own = [label or "", *figures, spec.prompt_sha256, spec.prompt_version]
        rows.append([*cells, *own, *([reason] if batch.skip_bad else [])])
    return rows, Counter(label for label in found.labels if label is not None)


class _Partial:
    """An open partial file. `rows` stand in it, of which `labels` counts the answers."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file = file
        self._start = start  # of the first chunk
        self.rows = 0
        self.labels: Counter[str] = Counter()
        end = start
        for head, _ in self._chunks():
            self.rows += int(head["rows"])
            self.labels.update(head["labels"])
            end = self._file.tell()
        self._file.truncate(end)  # a chunk that was not finished
        self._file.seek(end)

    def add(self, rows: Sequence[Sequence[str]], labels: Counter[str]) -> None:
        """A finished chunk, on disk when this returns."""
        data = _csv(rows)
        head = {"rows": len(rows), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "labels": labels}
        self._file.write(f"{canonical_json(head)}\n".encode() + data)
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows += len(rows)
        self.labels.update(labels)

    def copy_to(self, whole: BinaryIO) -> None:
        for _, data in self._chunks():
            whole.write(data)

    def _chunks(self) -> Iterator[tuple[dict[str, Any], bytes]]:
        """Each finished chunk's head and rows, up to one that is not whole."""
        self._file.seek(self._start)
        while line := self._file.readline():
            try:
                head = json.loads(line)
            except ValueError:
                return
            data = self._file.read(head["bytes"])
            if hashlib.sha256(data).hexdigest() != head["sha256"]:
                return
            yield head, data


@contextmanager
def _opened(batch: Batch, header: Mapping[str, Any]) -> Iterator[_Partial]:
    """The partial file of exactly this work, held against other processes."""
    path, line = batch.partial, f"{canonical_json(header)}\n".encode()
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
    except OSError as error:
        raise DataError(f"{path}: wanted a file that can be written, found {error.strerror}; correct --out") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"{path}: wanted to write it, found another process at it; wait for that one") from None
        found = file.readline()
        if found != line and line.startswith(found):  # new, or killed before the first line was whole
            file.seek(0)
            file.write(line)
        elif found != line:
            raise DataError(_mismatch(path, batch, header, found))
        yield _Partial(file, len(line))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{path}: wanted to write it, found {error.strerror}; mend that, the same command then goes on"
        ) from None


def _mismatch(path: Path, batch: Batch, header: Mapping[str, Any], line: bytes) -> str:
    try:
        found = json.loads(line)
        other = f"sha256 {found['file'][:12]} by {found['model']} version {found['version']}"
        same_file = found["file"] == header["file"]
    except (ValueError, KeyError, TypeError):
        other, same_file = "something else", False
    wanted = f"sha256 {header['file'][:12]} by {header['model']} version {header['version']}"
    way = f"`--version {found['version']}` continues it" if same_file and other != wanted else "finish that one first"
    return (
        f"{path}: wanted rows of {batch.file.path}, {wanted}, found those of {other}"
        f"{', with other settings' if other == wanted else ''}; {way}, or delete it to begin anew"
    )


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    return "".join(csv_line(row) + "\n" for row in rows).encode()
