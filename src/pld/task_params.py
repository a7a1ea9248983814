"""Typed settings of a task: its labels and fields, and where its examples are read."""

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, model_validator

from pld.records import LONGEST_PROMPT, SPLITS, Split, Task


class Section(BaseModel):
    """A section of the settings: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BenchmarkReader(Section):
    """A public benchmark that an installed package ships."""

    format: Literal["stereoset_bias", "stereoset_stance", "logiqa", "privacy_policy"]
    path: str

    @property
    def source(self) -> str:
        """The file or files, for messages."""
        return self.path


class ContractNliReader(Section):
    """Contract-NLI in its authors' JSON: one file (`path`), split by contract, or a file per split (`splits`).
    `context`: what the Student reads of a contract: all, the annotated passages (filled up to `passages` with those
    nearest to the hypothesis), or the nearest alone; at most `max_words` (null: no limit)."""

    format: Literal["contract_nli"]
    path: str | None
    splits: dict[Split, str] | None
    context: Literal["whole", "evidence", "nearest"]
    passages: Annotated[int, Field(gt=0)]
    max_words: Annotated[int, Field(gt=0)] | None

    @property
    def files(self) -> dict[Split | None, str]:
        """Split → file; None: the file brings no split."""
        return {None: self.path} if self.path is not None else {split: (self.splits or {})[split] for split in SPLITS}

    @property
    def source(self) -> str:
        """The file or files, for messages."""
        return ", ".join(self.files.values())

    @model_validator(mode="after")
    def _one_source(self) -> "ContractNliReader":
        if (self.path is None) == (self.splits is None):
            raise ValueError("expected either path (one file) or splits (a file for each split), the other null")
        if self.splits is not None and set(self.splits) != set(SPLITS):
            raise ValueError(f"expected a file for each of {list(SPLITS)}, got {list(self.splits)}")
        return self


class RecordsReader(Section):
    """The user's own CSV, JSONL or Parquet file (by its ending), one example per row.

    `fields` maps the task's input fields to columns; `id`, `group` and `split` name columns or are null. With `options`
    (columns; null: none) the label column holds the text of one of these columns: the first column is the first
    declared label, and so on. `derive` names the held-out split that the split column lacks: the rows of the other one
    are divided by hash.
    """

    format: Literal["records"]
    path: str
    fields: dict[str, str]
    label: str
    options: tuple[str, ...] | None
    id: str | None
    group: str | None
    split: str | None
    derive: Literal["validation", "test"] | None = None

    @property
    def source(self) -> str:
        """The file or files, for messages."""
        return self.path


class TaskParams(Task):
    """A Task and where to read its examples. A `path` is relative to the project, or `package:name/file`."""

    reader: Annotated[BenchmarkReader | ContractNliReader | RecordsReader, Discriminator("format")]

    @property
    def bare(self) -> Task:
        """The Task without its reader, as it is registered with a prompt."""
        return Task(**{name: getattr(self, name) for name in Task.model_fields})

    @model_validator(mode="after")
    def _consistent(self) -> "TaskParams":
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"expected two or more different labels, got {list(self.labels)}")
        if not re.fullmatch(r"[\w\-.]{1,200}", self.name, re.ASCII):
            raise ValueError(
                f"expected a name of at most 200 letters, digits, hyphens, dots or underscores, which can name a "
                f"registered model, got {self.name!r:.80}"
            )
        if (length := len(self.base_instruction)) > LONGEST_PROMPT:
            raise ValueError(
                f"expected a base_instruction of at most {LONGEST_PROMPT:,} characters, which MLflow's registry takes "
                f"as a prompt, got {length:,}; shorten it"
            )
        if not self.fields or len(set(self.fields)) < len(self.fields):
            raise ValueError(f"expected one or more different input fields, got {list(self.fields)}")
        if isinstance(self.reader, RecordsReader) and self.reader.derive and self.reader.split is None:
            raise ValueError(f"expected a split column with derive {self.reader.derive}, got none")
        if isinstance(self.reader, RecordsReader) and set(self.reader.fields) != set(self.fields):
            raise ValueError(
                f"expected a column for each of the task's fields {list(self.fields)}, got {list(self.reader.fields)}"
            )
        return self
