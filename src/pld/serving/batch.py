"""Classifies the rows of a file chunk by chunk; `<out>.partial` keeps finished chunks, so that none is done twice.

The partial file is JSON Lines: first what identifies the work, then the finished rows of one chunk on each line.
"""

import fcntl
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
    file, spec = batch.file, classifier.spec
    columns = [*file.columns, *batch.written(spec.task.labels)]
    _check(batch, columns[len(file.columns) :])
    work = {
        "file": file_sha256(file.path),
        "model": release.model,
        "version": release.number,
        "answers": spec.key,
        "columns": columns,
        "fields": dict(file.fields),
        "rows_per_line": CHUNK,
    }
    labels: Counter[str] = Counter()
    rows = 0
    try:
        with _opened(batch, work) as partial:
            for chunk in _finished(partial):
                rows += len(chunk)
                labels.update(row[len(file.columns)] for row in chunk)
            resumed = rows
            if resumed < file.rows:
                classifier.warm_up()
            with progress("classify", file.rows) as advance:
                advance(resumed)
                cells = islice(file.stream(), resumed, None)
                while given := list(islice(cells, CHUNK)):
                    chunk = _classified(batch, classifier, given, rows, advance)
                    partial.write(f"{json.dumps(chunk)}\n".encode())
                    partial.flush()
                    os.fsync(partial.fileno())
                    rows += len(chunk)
                    labels.update(row[len(file.columns)] for row in chunk)
            with atomic_path(batch.out) as temporary, temporary.open("wb") as whole:
                for chunk in ([columns], *_finished(partial)):
                    whole.writelines(f"{csv_line(row)}\n".encode() for row in chunk)
            batch.partial.unlink()
    except OSError as error:
        raise DataError(
            f"expected to write it, got {error.strerror or error} ({batch.out}); the same command continues once that "
            "is resolved"
        ) from None
    skipped, too_long = len(file.bad), labels.pop("", 0) - len(file.bad)
    return Done(rows, resumed, labels, too_long, skipped)


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
) -> list[list[str]]:
    """The finished rows of `chunk`, which starts at row `start` of the file."""
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
    return rows


@contextmanager
def _opened(batch: Batch, work: Mapping[str, Any]) -> Iterator[BinaryIO]:
    """The partial file of exactly this work, after its header line; locked against other processes."""
    path, header = batch.partial, f"{canonical_json(work)}\n".encode()
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DataError(f"expected to write it, got another process writing it ({path}); wait for it") from None
        found = file.readline()
        if not header.startswith(found):
            raise DataError(
                f"expected rows of {batch.file.path} by {work['model']} version {work['version']} with the same "
                f"options, got those of other work ({path}); finish that with its own command, or delete it"
            )
        if found != header:  # new, or killed while it wrote the header
            file.seek(0)
            file.write(header)
        yield file


def _finished(partial: BinaryIO) -> Iterator[list[list[str]]]:
    """Each finished chunk; cuts off what a killed process left after the last one."""
    partial.seek(0)
    end = len(partial.readline())
    while (line := partial.readline()).endswith(b"\n"):
        try:
            chunk = json.loads(line)
        except ValueError:
            break
        end += len(line)
        yield chunk
    partial.truncate(end)
    partial.seek(end)
