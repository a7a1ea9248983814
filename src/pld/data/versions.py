"""Read versions of the task's data set: the splits of a revision, through DVC without a checkout, and those that
`prepare` would make of the current files."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pld.config.composition import compose
from pld.data.diff import Examples, held
from pld.data.readers import read
from pld.data.splits import assemble
from pld.errors import DataError
from pld.records import SPLITS, Example

if TYPE_CHECKING:
    from dvc.fs import DVCFileSystem

_SPLITS = "artifacts/splits"


@dataclass(frozen=True)
class DataVersion:
    """`name`: for messages; `labels`: as the task declares them."""

    name: str
    task: str
    labels: tuple[str, ...]
    examples: Examples


def in_workspace() -> DataVersion:
    """What the next `dvc repro prepare` would make of the task that params.yaml selects and its current file.

    The splits in artifacts/ are ignored, since they may be out of date. Raises ConfigError and DataError as the stages
    do.
    """
    task = compose(Path("conf"), Path("params.yaml")).task
    examples, _ = assemble(task, read(task))
    return DataVersion("the workspace", task.name, task.labels, {example.id: held(example) for example in examples})


def at_revision(revision: str) -> DataVersion:
    """The splits in the dvc.lock of a Git revision (a commit, branch, tag or DVC experiment), from DVC's cache or the
    remote.

    Raises DataError if there is no such revision, no `prepare` in its dvc.lock, or no copy of its outputs.
    """
    with _opened(revision) as (files, folder):
        commit = files.repo.get_rev()[:7]
        name = revision if revision.startswith(commit) else f"{revision} ({commit})"
        summary = json.loads(_content(files, folder, revision, "summary.json"))
        labels = tuple(summary["counts"][SPLITS[0]])
        examples = {}
        for split in SPLITS:
            file = f"{split}.jsonl"
            for line in io.BytesIO(_content(files, folder, revision, file)):
                try:
                    example = Example.model_validate_json(line)
                except ValidationError as error:
                    raise DataError(
                        f"expected examples, got {error.errors()[0]['msg']} ({revision}: {_SPLITS}/{file}); if "
                        "another version of pld wrote them, compare with its own `pld data diff`"
                    ) from None
                examples[example.id] = held(example)
    return DataVersion(name, summary["task"], labels, examples)


@contextmanager
def _opened(revision: str) -> "Iterator[tuple[DVCFileSystem, str]]":
    """The files of a revision, and this folder's path in it; errors of DVC and Git become one line."""
    from dvc.exceptions import DvcException
    from dvc.fs import DVCFileSystem
    from dvc.scm import RevError, SCMError
    from dvc_objects.fs.errors import AuthError, ConfigError, RemoteMissingDepsError

    try:
        files = DVCFileSystem(
            rev=revision or "no revision", subrepos=True
        )  # for an empty one DVC would read the workspace
        folder = Path.cwd().resolve().relative_to(Path(files.repo.scm.root_dir).resolve())
        if not files.repo.fs.isdir(f"/{(folder / '.dvc').as_posix()}"):
            raise DataError(
                f"expected a project under DVC, got no .dvc/ in that revision ({revision}); run `dvc init` and commit"
            )
        yield files, f"/{folder.as_posix()}"
    except RevError:
        raise DataError(
            "expected a commit, branch, tag or experiment, got none of that name "
            f"({revision!r}); `git log --oneline` and `dvc exp show` list them"
        ) from None
    except SCMError:
        raise DataError(f"expected a Git repository, got none ({revision}); run in the project's folder") from None
    except (AuthError, ConfigError, RemoteMissingDepsError, DvcException, ImportError, OSError) as error:
        said = " ".join(str(error).split())
        raise DataError(
            f"expected its splits from DVC's cache or remote, got {said:.200} ({revision}); fix the remote (`dvc "
            "remote list`), or run `dvc fetch` where it can be reached"
        ) from None


def _content(files: "DVCFileSystem", folder: str, revision: str, name: str) -> bytes:
    path = f"{folder.rstrip('/')}/{_SPLITS}/{name}"
    try:
        known = "md5" in files.info(path)
    except FileNotFoundError:
        known = False
    if not known:
        raise DataError(
            f"expected the splits of the stage `prepare` in its dvc.lock, got none ({revision}); name a revision "
            "whose dvc.lock was committed after `dvc repro`"
        )
    try:
        content: bytes = files.read_bytes(path)
    except FileNotFoundError:
        raise DataError(
            f"expected {_SPLITS}/{name} of its dvc.lock, got it neither in DVC's cache nor in the remote ({revision}); "
            "run `dvc push --all-commits` where it was made, or check it out there and run `dvc repro prepare`"
        ) from None
    return content
