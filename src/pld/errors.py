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

from pld.redaction import redacted


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
