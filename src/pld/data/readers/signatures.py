"""Files that are something else than their ending says, by how they begin, and what to do with each."""

import re
from collections.abc import Sequence

from pld.errors import DataError

_UNPACK = "unpack it first"
_CSV = "save it as CSV UTF-8"
_WRITE = "write the rows as .csv, .jsonl or .parquet"
_AGAIN = "download the data file itself"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")

# the beginning as a pattern of bytes, what it is, what to do; the first that fits
_BEGINNINGS: Sequence[tuple[bytes, str, str]] = (
    (rb"\x1f\x8b", "a gzip archive", _UNPACK),
    (rb"BZh[1-9]1AY&SY", "a bzip2 archive", _UNPACK),
    (rb"\xfd7zXZ\x00|7z\xbc\xaf\x27\x1c|Rar!\x1a|\x28\xb5\x2f\xfd", "a packed archive", _UNPACK),
    (rb"PK(?:\x03\x04|\x05\x06)", "a zip archive or an Excel workbook (.xlsx)", f"{_UNPACK}, or {_CSV}"),
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)", _CSV),
    (rb"%PDF-", "a PDF", _WRITE),
    (rb"SQLite format 3\x00", "a SQLite database", _WRITE),
    (rb"\x80[\x02-\x05][\x80-\xff}\](c]", "a Python pickle", _WRITE),
    (rb"ARROW1\x00|FEA1|Obj\x01|ORC|\x89HDF", "a table in another binary format", _WRITE),
    (rb"PAR1", "a Parquet file", "name it .parquet"),
    (rb"PARE", "an encrypted Parquet file", "write it again unencrypted"),
    (rb"version https://git-lfs\.github\.com/", "a pointer of Git LFS", "fetch the file with `git lfs pull`"),
    (rb"(?:md5: .*\n)?(?:frozen: .*\n)?(?:deps|outs):\s*\n- ", "a .dvc file", "fetch the data with `dvc pull`"),
    (rb"(?i)\s*<(?:!doctype html|html|head|\?xml)", "a web page or XML", f"{_AGAIN} (this may be a login page)"),
    (rb"<{7} ", "a conflict that git left", "choose one side"),
)


def refuse_foreign(head: bytes, name: str) -> None:
    """`head`: how a file that is to be text begins. Raises DataError for what is known as something else."""
    plain = head.removeprefix(b"\xef\xbb\xbf")
    if plain.startswith(_WIDE_MARKS):
        raise DataError(f"{name}: wanted UTF-8, found UTF-16 or UTF-32; save the file as UTF-8")
    if found := kind_of(plain):
        raise DataError(f"{name}: wanted a file of text, found {found[0]}; {found[1]}")
    if plain.count(0) * 4 > len(plain):
        raise DataError(f"{name}: wanted UTF-8, found NUL bytes all over (UTF-16 or UTF-32?); save the file as UTF-8")


def kind_of(head: bytes) -> tuple[str, str] | None:
    """What a file that begins so is, and what to do with it; None where that is not known."""
    for pattern, kind, remedy in _BEGINNINGS:
        if re.match(pattern, head):
            return kind, remedy
    return None
