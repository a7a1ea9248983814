"""Every error that a user can cause or fix; the CLI prints it as one line and exits with status 1.

PldError
├── ConfigError      a key, a value or a choice in conf/ or params.yaml
├── DataError        a row, a file or a split of the user's data
├── AssetError       an installed asset package or its cached weights
├── TeacherError     the Teacher can't be used at all (key, quota, unreachable, missing recordings)
│   └── BudgetError  the next call could cost more than the task's budget
├── ExtractionError  too many answers of the Teacher were refused
├── DistillError     clustering, consolidation or rendering left nothing to ship
├── StudentError     the Student can't be loaded or can't score
├── ArtifactError    a stage's file is missing or wrong
├── ReviewError      a review sheet, or the log of reviews
└── RegistryError    tracking store, registry, gates, aliases

A bad example is a record in `rejected.jsonl`, not an error; these are for systemic faults. A message has the form
`expected X, got Y (file:line); do Z` and repeats no secret.
"""

import errno

from pld.redaction import redacted

_FULL = "free some space (artifacts/, .dvc/cache, PLD_CACHE and TMPDIR are written to)"
_CLOSED = "make it writable for this user"
_REMEDIES = {errno.ENOSPC: _FULL, errno.EDQUOT: _FULL}
_REMEDIES |= {errno.EACCES: _CLOSED, errno.EPERM: _CLOSED, errno.EROFS: _CLOSED}


class PldError(Exception):
    """Root of the tree; `str(error)` is the one line that the user sees."""

    def __str__(self) -> str:
        return redacted(super().__str__())


class ConfigError(PldError):
    pass


class DataError(PldError):
    pass


class AssetError(PldError):
    pass


class TeacherError(PldError):
    pass


class BudgetError(TeacherError):
    pass


class WaitingError(TeacherError):
    """The offline Teacher's questions wait to be answered."""


class ExtractionError(PldError):
    pass


class DistillError(PldError):
    pass


class StudentError(PldError):
    pass


class ArtifactError(PldError):
    pass


class RegistryError(PldError):
    pass


class ReviewError(PldError):
    pass


def fault_of_machine(error: OSError) -> str:
    """A full disk, a read-only folder and the like in one line. Writers replace whole files, so nothing is damaged."""
    code = errno.ENOSPC if "requested and" in str(error) else error.errno  # NumPy's tofile says only what it wrote
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    place = f" ({error.filename})" if error.filename else ""
    remedy = f"; {_REMEDIES[code]} and run it again" if code in _REMEDIES else ""
    return redacted(f"expected files that can be read and written, got: {reason}{place}{remedy}")
