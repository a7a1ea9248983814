"""Find a data file and read it as text; whatever is wrong with it becomes a one-line DataError."""

import codecs
import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from pld.config.assets import resolve_path
from pld.errors import DataError

_CHUNK = 1 << 18
_UNPACK = "unpack it first"
_CSV = "save it as CSV UTF-8"
_WRITE = "write the rows as .csv, .jsonl or .parquet"
_AGAIN = "download the data file itself"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")

# pattern of the first bytes, format, what to do; the first match counts
_BEGINNINGS: Sequence[tuple[bytes, str, str]] = (
    (rb"\x1f\x8b", "a gzip archive", _UNPACK),
    (rb"BZh[1-9]1AY&SY", "a bzip2 archive", _UNPACK),
    (rb"\xfd7zXZ\x00|7z\xbc\xaf\x27\x1c|Rar!\x1a|\x28\xb5\x2f\xfd", "a compressed archive", _UNPACK),
    (rb"PK(?:\x03\x04|\x05\x06)", "a zip archive or an Excel workbook (.xlsx)", f"{_UNPACK}, or {_CSV}"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)", _CSV),
    (rb"%PDF-", "a PDF", _WRITE),
    (rb"SQLite format 3\x00", "a SQLite database", _WRITE),
    (rb"\x80[\x02-\x05][\x80-\xff}\](c]", "a Python pickle", _WRITE),
    (rb"ARROW1\x00|FEA1|Obj\x01|ORC|\x89HDF", "a table in another binary format", _WRITE),
    (rb"PAR1", "a Parquet file", "name it .parquet"),
    (rb"PARE", "an encrypted Parquet file", "write it again unencrypted"),
    (rb"version https://git-lfs\.github\.com/", "a Git LFS pointer", "run `git lfs pull`"),
    (rb"(?:md5: .*\n)?(?:frozen: .*\n)?(?:deps|outs):\s*\n- ", "a .dvc file", "run `dvc pull` and name the data file"),
    (rb"(?i)\s*<(?:!doctype html|html|head|\?xml)", "a web page or XML", f"{_AGAIN} (is this a login page?)"),
    (rb"<{7} ", "a git conflict marker", "resolve the conflict"),
)
_NO_FILES = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def locate(name: str, setting: str = "reader.path in conf/task/") -> Path:
    """The file that `setting` names: relative to the project, or `package:name/file`. Raises DataError."""
    if not name.isprintable():
        raise DataError(f"expected a path without invisible characters, got {name!r:.200} ({setting}); correct it")
    path = resolve_path(name) if name.startswith("package:") else Path(name)
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(_nothing_at(path, name, setting)) from None
    except OSError as error:
        raise DataError(f"expected a data file, got {_reason(error)} ({name:.200}); correct {setting}") from None
    if kind == stat.S_IFDIR:
        raise DataError(f"expected a file, got a directory ({name}); point {setting} at a file in it")
    if kind != stat.S_IFREG:
        raise DataError(
            f"expected a file, got {_NO_FILES.get(kind, 'something else')} ({name}); write the data to a file and "
            f"point {setting} at it"
        )
    return path


def _nothing_at(path: Path, name: str, setting: str) -> str:
    if path.is_symlink():
        return (
            f"expected a data file, got a link to {str(path.readlink())!r:.200}, which doesn't exist ({name}); restore "
            "that file (`dvc checkout` or `dvc pull` if DVC made the link), or put the data here"
        )
    return (
        f"expected a data file, got no such file ({name}); correct {setting}, or run `dvc pull` if only its .dvc file "
        "is in assets/corpus/"
    )


def _reason(error: OSError) -> str:
    return (error.strerror or "an error").lower()


@contextlib.contextmanager
def opened(path: Path, name: str) -> Iterator[BinaryIO]:
    """The file's bytes. Raises DataError where they can't be read, and where somebody writes to the file meanwhile."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(
            f"expected a readable file, got {_reason(error)} ({name}); correct the file or its permissions"
        ) from None
    with file:
        before = _version(os.fstat(file.fileno()))
        try:
            yield file
        except (DataError, OSError, UnicodeDecodeError) as error:
            _check_unchanged(path, name, before)
            if isinstance(error, OSError):
                raise DataError(
                    f"expected a file readable to its end, got {_reason(error)} ({name}); copy the file again"
                ) from None
            raise
        _check_unchanged(path, name, before)


def _version(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check_unchanged(path: Path, name: str, before: tuple[int, int, int]) -> None:
    try:
        same = _version(path.stat()) == before
    except OSError:
        same = False
    if not same:
        raise DataError(
            f"expected a complete file, got one that changed while it was read ({name}); run again when it is complete"
        )


def check_text(file: BinaryIO, name: str) -> int:
    """The number of line ends, after checking that the file is UTF-8 text without NULs and not blank.

    Reads in chunks, then seeks back to the beginning. Raises DataError.
    """
    _refuse_foreign(file.read(4096), name)
    file.seek(0)
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    feeds = returns = 0
    blank = True
    tail = ""
    while True:
        chunk = file.read(_CHUNK)
        line = (feeds or returns) + 1
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise DataError(_not_utf8(error, name, line, tail)) from None
        at = text.find("\x00")
        if at >= 0:
            raise DataError(
                f"expected text, got a NUL byte{_behind(tail + text[:at])} ({name}: line "
                f"{line + _line_ends(text[:at])}); delete it, or save the file as UTF-8 if it is UTF-16"
            )
        if not chunk:
            break
        feeds += text.count("\n")
        returns += text.count("\r")
        blank = blank and not text.strip()
        tail = text[-80:]
    if blank:
        raise DataError(f"expected examples, got an empty file ({name}); add rows, or correct reader.path")
    file.seek(0)
    return feeds or returns


def _not_utf8(error: UnicodeDecodeError, name: str, line: int, tail: str) -> str:
    before = bytes(error.object[: error.start]).decode("utf-8", "replace")
    got, remedy = f"byte 0x{error.object[error.start]:02x}", "save the file as UTF-8 (is it Windows-1252 or Latin-1?)"
    if error.reason == "unexpected end of data":
        got, remedy = "half a character at the end of the file", "copy the whole file again"
    return f"expected UTF-8, got {got}{_behind(tail + before)} ({name}: line {line + _line_ends(before)}); {remedy}"


def _line_ends(text: str) -> int:
    return text.count("\n") or text.count("\r")


def _behind(text: str) -> str:
    """The text before the place, on the same line."""
    near = text[-80:].replace("\r", "\n").rpartition("\n")[2][-20:]
    return f" after {near!r}" if near else ""


def read_text(path: Path, name: str) -> str:
    """The file as UTF-8, a byte order mark dropped, line ends as they are."""
    with opened(path, name) as file:
        check_text(file, name)
        return file.read().decode("utf-8-sig")


def _refuse_foreign(head: bytes, name: str) -> None:
    """Raises DataError where the first bytes of a text file are those of a known other format."""
    plain = head.removeprefix(b"\xef\xbb\xbf")
    if plain.startswith(_WIDE_MARKS):
        raise DataError(f"expected UTF-8, got UTF-16 or UTF-32 ({name}); save the file as UTF-8")
    if found := kind_of(plain):
        raise DataError(f"expected a text file, got {found[0]} ({name}); {found[1]}")
    if plain.count(0) * 4 > len(plain):
        raise DataError(
            f"expected UTF-8, got NUL bytes throughout (UTF-16 or UTF-32?) ({name}); save the file as UTF-8"
        )


def kind_of(head: bytes) -> tuple[str, str] | None:
    """The format of a file with these first bytes, and what to do with it; None if unknown."""
    for pattern, kind, remedy in _BEGINNINGS:
        if re.match(pattern, head):
            return kind, remedy
    return None
