"""Finding a data file and reading it as text; what goes wrong here is the user's to mend, so it is one line each."""

from pathlib import Path

from pld.errors import DataError

_CORPUS, _DATA = Path("assets/corpus"), Path("data")
WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def edited_file(name: str) -> Path:
    """The file that a person edits: the one in assets/corpus/ that data.dvc brings to data/, or the named one."""
    named = Path(name)
    if named.is_relative_to(_DATA):
        source = _CORPUS / named.relative_to(_DATA)
        if source.exists() or Path(f"{source}.dvc").exists():
            return source
    return named


def locate(name: str) -> Path:
    """The file that `reader.path` names: relative to the project, or `package:name/file`."""
    if name.startswith("package:"):
        from pld.adapters.assets import resolve_path

        path = resolve_path(name)
    else:
        path = Path(name)
    if path.is_dir():
        raise DataError(f"{name}: wanted a file, found a directory; name a file in it as reader.path in conf/task/")
    if not path.exists():
        raise DataError(
            f"{name}: wanted the task's data, found no such file; correct reader.path in conf/task/, or, if it stands "
            "in assets/corpus/, bring it to data/ with `dvc repro` (after `dvc pull` where only its .dvc file is there)"
        )
    return path


def read_text(path: Path, name: str) -> str:
    """The file as UTF-8, a byte order mark dropped, line ends as they are."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{name}: wanted a file that can be read, found {error.strerror}; correct its rights") from None
    if data.startswith(WIDE_MARKS):
        raise DataError(f"{name}: wanted UTF-8, found UTF-16 or UTF-32; save the file as UTF-8")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{name}: line {line}: wanted UTF-8, found the byte 0x{data[error.start]:02x}; save the file as UTF-8 "
            "(it may be Windows-1252 or Latin-1)"
        ) from None
    if not text.strip():
        raise DataError(f"{name}: wanted examples, found an empty file; put rows in it or correct reader.path")
    at = text.find("\x00")
    if at >= 0:
        line = text.count("\n", 0, at) + 1
        raise DataError(
            f"{name}: line {line}: wanted text, found a NUL byte; delete it, or save the file as UTF-8 if it is UTF-16"
        )
    return text
