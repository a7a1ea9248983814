"""Find a data file and read it as text; any fault in it becomes a one-line DataError."""

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pld.config.assets import resolve_path
from pld.errors import DataError

# pattern of the first bytes, format, what to do; the first match counts
_OTHER_FORMATS: Sequence[tuple[bytes, str, str]] = (
    (rb"\x1f\x8b|BZh[1-9]1AY&SY|\xfd7zXZ\x00|7z\xbc\xaf|Rar!\x1a|\x28\xb5\x2f\xfd", "a compressed file", "unpack it"),
    (rb"PK\x03\x04|\xd0\xcf\x11\xe0", "a zip archive or an Excel workbook", "unpack it, or save it as CSV UTF-8"),
    (rb"%PDF-|SQLite format|\x80[\x02-\x05]", "a PDF, database or pickle", "write the rows as .csv or .jsonl"),
    (rb"PAR1", "a Parquet file", "name it .parquet"),
    (
        rb"version https://git-lfs|(?:md5: .*\n)?(?:outs|deps):\s*\n- ",
        "a pointer of Git LFS or DVC",
        "fetch the data file",
    ),
    (rb"(?i)\s*<(?:!doctype html|html|head|\?xml)", "a web page or XML", "download the data file itself"),
    (rb"<{7} ", "a git conflict marker", "resolve the conflict"),
    (rb"\xff\xfe|\xfe\xff|\x00\x00\xfe\xff|.\x00|\x00", "UTF-16, UTF-32 or binary data", "save it as UTF-8 text"),
)


def locate(name: str, setting: str = "reader.path in conf/task/") -> Path:
    """The file that `setting` names: relative to the project, or `package:name/file`. Raises DataError."""
    if not name.isprintable():
        raise DataError(f"expected a path without invisible characters, got {name!r:.200} ({setting}); correct it")
    path = resolve_path(name) if name.startswith("package:") else Path(name)
    try:
        found = "" if path.is_file() else "a directory or device" if path.exists() else "no such file"
    except OSError as error:
        found = (error.strerror or "an error").lower()
    if found:
        raise DataError(
            f"expected a data file, got {found} ({name:.200}); correct {setting}, or run `dvc pull` if only its .dvc "
            "file is in assets/corpus/"
        )
    return path


@contextlib.contextmanager
def opened(path: Path, name: str) -> Iterator[BinaryIO]:
    """The file's bytes. Raises DataError if they can't be read, or were changed meanwhile."""
    try:
        with path.open("rb") as file:
            before = os.fstat(file.fileno())
            fault: Exception | None = None
            try:
                yield file
            except (DataError, UnicodeDecodeError) as error:
                fault = error
            after = os.fstat(file.fileno())
    except OSError as error:
        reason = (error.strerror or "an error").lower()
        raise DataError(
            f"expected a readable file, got {reason} ({name}); correct the file or its permissions"
        ) from None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise DataError(
            f"expected a complete file, got one that changed while it was read ({name}); run again when it is complete"
        ) from None
    if fault is not None:
        raise fault


def check_text(file: BinaryIO, name: str) -> int:
    """The number of lines, after checking that the file is UTF-8 text without NULs and not blank. Raises DataError."""
    if found := other_format(file.read(4096).removeprefix(b"\xef\xbb\xbf")):
        raise DataError(f"expected UTF-8 text, got {found[0]} ({name}); {found[1]}")
    file.seek(0)
    number, blank = 0, True
    for number, line in enumerate(file, 1):
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"expected UTF-8, got byte 0x{line[error.start]:02x} ({name}: line {number}); save the file as UTF-8 "
                "(is it Windows-1252 or Latin-1?)"
            ) from None
        if "\x00" in text:
            raise DataError(f"expected text, got a NUL byte ({name}: line {number}); delete it")
        blank = blank and not text.strip("\ufeff \t\r\n")
    if blank:
        raise DataError(f"expected examples, got an empty file ({name}); add rows, or name another file")
    file.seek(0)
    return number


def read_text(path: Path, name: str) -> str:
    """The file as UTF-8, a byte order mark dropped, line ends as they are."""
    with opened(path, name) as file:
        check_text(file, name)
        return file.read().decode("utf-8-sig")


def other_format(head: bytes) -> tuple[str, str] | None:
    """The format of a file that begins with `head` but is no text, and what to do with it; None if unknown."""
    return next(((kind, remedy) for pattern, kind, remedy in _OTHER_FORMATS if re.match(pattern, head)), None)
