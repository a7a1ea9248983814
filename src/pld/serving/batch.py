"""Classifies the rows of a file chunk by chunk; `<out>.partial` keeps finished chunks, so that none is done twice.

The partial file has a header line that identifies the work, then for each chunk a line with its length and hash, and
its rows as CSV.
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
from pld.serving.model import PromptClassifier, Release

CHUNK = 64
"""Rows that are scored together; a killed process loses at most one chunk."""


@dataclass(frozen=True)
class Batch:
    """Write the labels of `file` to the CSV file `out`. `prefix`: of the names of the written columns; `skip_bad`: skip
    rows that can't be classified, with the reason in a column of its own."""

    file: CheckedFile
    out: Path
    prefix: str
    skip_bad: bool

    @property
    def partial(self) -> Path:
        return self.out.with_name(f"{self.out.name}.partial")

    def written(self, labels: Sequence[str]) -> list[str]:
        """Names of the columns that follow the file's own."""
        names = ["label", *(f"score_{label}" for label in labels), "margin", "prompt_sha256", "prompt_version"]
        return [self.prefix + name for name in [*names, *(["reason"] if self.skip_bad else [])]]


@dataclass(frozen=True)
class Done:
    """All rows of `out`, of which `resumed` were there already: how many have each label, how many are longer than the
    Student's context, and how many were skipped."""

    rows: int
    resumed: int
    labels: Mapping[str, int]
    too_long: int
    skipped: int


def classify_file(batch: Batch, release: Release, classifier: PromptClassifier) -> Done:
    """Classify with `release`'s `classifier` and write `batch.out` in the order of the file's rows, continuing where an
    earlier call was interrupted.

    Raises DataError, before anything is scored, for a bad row unless they are skipped, for a column of the file that
    would be written, and for a partial file of other work or that another process writes.
    """
    file, labels = batch.file, classifier.spec.task.labels
    written = batch.written(labels)
    _check(batch, written)
    header = {
        "file": file_sha256(file.path),
        "model": release.model,
        "version": release.number,
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
    too_long = file.rows - len(file.bad) - partial.labels.total()
    return Done(file.rows, resumed, partial.labels, too_long, skipped=len(file.bad))


def _check(batch: Batch, written: Sequence[str]) -> None:
    file = batch.file
    if twice := [name for name in written if name in file.columns]:
        raise DataError(
            f"expected no column {', '.join(map(repr, twice))}, which pld writes, got one ({file.path}); rename it, or "
            "use `--prefix pld_`, which names the written ones pld_label and so on"
        )
    if file.bad and not batch.skip_bad:
        more = f" (and {len(file.bad) - 1:,} more rows like it)" if len(file.bad) > 1 else ""
        raise DataError(f"{next(iter(file.bad.values()))}{more}; correct it, or skip such rows with --skip-bad")
    if batch.out.exists() and not batch.partial.exists():
        raise DataError(f"expected a new file to write, got an existing one ({batch.out}); delete it, or name another")


def _classified(
    batch: Batch, classifier: PromptClassifier, chunk: Sequence[Cells], start: int, advance: Any
) -> tuple[list[list[str]], Counter[str]]:
    """The finished rows of `chunk`, which starts at row `start` of the file, and how many have each label."""
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
    """An open partial file, which holds `rows` rows; `labels` counts their answers."""

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
        self._file.truncate(end)  # cut off an unfinished chunk
        self._file.seek(end)

    def add(self, rows: Sequence[Sequence[str]], labels: Counter[str]) -> None:
        """Write a finished chunk to disk."""
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
        """Each finished chunk's head and rows, up to an incomplete one."""
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
    """The partial file of exactly this work, locked against other processes."""
    path, line = batch.partial, f"{canonical_json(header)}\n".encode()
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
    except OSError as error:
        raise DataError(f"expected a file that can be written, got {error.strerror} ({path}); correct --out") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"expected to write it, got another process writing it ({path}); wait for it") from None
        found = file.readline()
        if found != line and line.startswith(found):  # new, or killed while it wrote the header
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
            f"expected to write it, got {error.strerror} ({path}); the same command continues once that is resolved"
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
        f"expected rows of {batch.file.path}, {wanted}, got those of "
        f"{other}{', with other settings' if other == wanted else ''} ({path}); {way}, or delete it to start again"
    )


def _csv(rows: Sequence[Sequence[str]]) -> bytes:
    return "".join(csv_line(row) + "\n" for row in rows).encode()
