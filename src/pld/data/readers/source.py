"""Finding a data file and reading it as text; what goes wrong here is the user's to mend, so it is one line each."""

import codecs
import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pld.config.assets import resolve_path
from pld.data.readers.signatures import refuse_foreign
from pld.errors import DataError

_CHUNK = 1 << 18
_NO_FILES = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def locate(name: str, setting: str = "reader.path in conf/task/") -> Path:
    """The file that `setting` names: relative to the project, or `package:name/file`. Raises DataError."""
    if not name.isprintable():
        raise DataError(f"{name!r:.200}: wanted a path, found characters in it that can't be seen; correct {setting}")
    path = resolve_path(name) if name.startswith("package:") else Path(name)
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{name}: {_nothing_at(path, setting)}") from None
    except OSError as error:
        raise DataError(
            f"{name:.200}: wanted the task's data, found {_reason(error)}; correct {setting}, or what stands there"
        ) from None
    if kind == stat.S_IFDIR:
        raise DataError(f"{name}: wanted a file, found a directory; name a file in it as {setting}")
    if kind != stat.S_IFREG:
        raise DataError(
            f"{name}: wanted a file, found {_NO_FILES.get(kind, 'something else')}; write the data to a file and name "
            f"it as {setting}"
        )
    return path


def _nothing_at(path: Path, setting: str) -> str:
    if path.is_symlink():
        return (
            f"wanted the task's data, found a link to {str(path.readlink())!r:.200}, which is not there; bring that "
            "file back (`dvc checkout` or `dvc pull` where DVC made the link), or put the data themselves here"
        )
    return (
        f"wanted the task's data, found no such file; correct {setting}, or bring it with `dvc pull` where only its "
        ".dvc file stands in assets/corpus/"
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
            f"{name}: wanted a file that can be read, found {_reason(error)}; correct the file or its rights"
        ) from None
    with file:
        before = _version(os.fstat(file.fileno()))
        try:
            yield file
        except (DataError, OSError, UnicodeDecodeError) as error:
            _check_unchanged(path, name, before)
            if isinstance(error, OSError):
                raise DataError(
                    f"{name}: wanted a file that can be read to its end, found {_reason(error)}; copy the file again"
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
            f"{name}: wanted a file that nobody writes to, found it changed while it was read; run again when it is "
            "complete"
        )


def check_text(file: BinaryIO, name: str) -> int:
    """Number of line ends in a file that is known, then, to be UTF-8 text without NULs and with something in it.

    It is read in pieces, and stands at its beginning again. Raises DataError.
    """
    refuse_foreign(file.read(4096), name)
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
                f"{name}: line {line + _line_ends(text[:at])}: wanted text, found a NUL byte{_behind(tail + text[:at])}"
                "; delete it, or save the file as UTF-8 if it is UTF-16"
            )
        if not chunk:
            break
        feeds += text.count("\n")
        returns += text.count("\r")
        blank = blank and not text.strip()
        tail = text[-80:]
    if blank:
        raise DataError(f"{name}: wanted examples, found an empty file; put rows in it or correct reader.path")
    file.seek(0)
    return feeds or returns


def _not_utf8(error: UnicodeDecodeError, name: str, line: int, tail: str) -> str:
    before = bytes(error.object[: error.start]).decode("utf-8", "replace")
    where = f"{name}: line {line + _line_ends(before)}: wanted UTF-8, found "
    if error.reason == "unexpected end of data":
        return f"{where}half of a character at the file's end{_behind(tail + before)}; copy the whole file again"
    byte = error.object[error.start]
    return (
        f"{where}the byte 0x{byte:02x}{_behind(tail + before)}; save the file as UTF-8 (it may be Windows-1252 or "
        "Latin-1)"
    )


def _line_ends(text: str) -> int:
    return text.count("\n") or text.count("\r")


def _behind(text: str) -> str:
    """What stands in front of the place, as far as it is in the same line."""
    near = text[-80:].replace("\r", "\n").rpartition("\n")[2][-20:]
    return f" after {near!r}" if near else ""


def read_text(path: Path, name: str) -> str:
    """The file as UTF-8, a byte order mark dropped, line ends as they are."""
    with opened(path, name) as file:
        check_text(file, name)
        return file.read().decode("utf-8-sig")
