"""Read versions of the task's data set: the splits of a revision, through DVC without a checkout, and those that
`prepare` would make of the current files."""

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pld.config.composition import compose
from pld.data.diff import Examples
from pld.data.readers import read
from pld.data.splits import assemble
from pld.errors import DataError
from pld.records import SPLITS, Example

_SPLITS = "artifacts/splits"
_FILES = ("summary.json", *(f"{split}.jsonl" for split in SPLITS))


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
    return DataVersion("the workspace", task.name, task.labels, {example.id: example for example in examples})


def at_revision(revision: str) -> DataVersion:
    """The splits in the dvc.lock of a Git revision (a commit, branch, tag or DVC experiment), from DVC's cache or the
    remote.

    Raises DataError if there is no such revision, no `prepare` in its dvc.lock, or no copy of its outputs.
    """
    from dvc.exceptions import DvcException
    from dvc.fs import DVCFileSystem
    from dvc.scm import RevError, SCMError
    from dvc_objects.fs.errors import AuthError, ConfigError, RemoteMissingDepsError

    try:
        # for an empty revision DVC would read the workspace
        files = DVCFileSystem(rev=revision or "no revision", subrepos=True)
        project = Path("/") / Path.cwd().resolve().relative_to(Path(files.repo.scm.root_dir).resolve())
        if not files.repo.fs.isdir((project / ".dvc").as_posix()):
            raise FileNotFoundError("a revision without .dvc/")
        content = {name: files.read_bytes((project / _SPLITS / name).as_posix()) for name in _FILES}
        commit = files.repo.get_rev()[:7]
    except RevError:
        raise DataError(
            "expected a commit, branch, tag or experiment, got none of that name "
            f"({revision!r}); `git log --oneline` and `dvc exp show` list them"
        ) from None
    except (SCMError, DvcException, AuthError, ConfigError, RemoteMissingDepsError, ImportError, OSError) as error:
        raise DataError(
            f"expected {_SPLITS}/ of its dvc.lock in DVC's cache or remote, got {' '.join(str(error).split()):.200} "
            f"({revision}); run `dvc push --all-commits` where it was made, or name a revision committed after `dvc "
            "repro`"
        ) from None
    summary = json.loads(content[_FILES[0]])
    try:
        read_back = [Example.model_validate_json(line) for name in _FILES[1:] for line in content[name].splitlines()]
    except ValidationError as error:
        raise DataError(
            f"expected examples, got {error.errors()[0]['msg']} ({revision}: {_SPLITS}/); if another version of pld "
            "wrote them, compare with its own `pld data diff`"
        ) from None
    name = revision if revision.startswith(commit) else f"{revision} ({commit})"
    labels = tuple(summary["counts"][SPLITS[0]])
    return DataVersion(name, summary["task"], labels, {example.id: example for example in read_back})
