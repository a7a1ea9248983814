"""Write the files of a new task: composed and checked first, then all written or none."""

import contextlib
import filecmp
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from pld.artifacts import atomic_path, file_sha256
from pld.config.assets import edited_file
from pld.config.composition import compose
from pld.data.task_drafting import replaced
from pld.errors import ConfigError, DataError
from pld.params import Config, TaskParams

CONF, PARAMS, TASKS = Path("conf"), Path("params.yaml"), Path("conf/task")
CORPUS, DATA = Path("assets/corpus"), Path("data")
RECORDS = CORPUS / "records"
_RECORDED = "pld.adapters.teachers.recorded.RecordedTeacher"


def place_of(file: Path) -> Path:
    """Where a data file belongs: where it is, if in assets/corpus/ (or data/, which is a copy of it), else in
    assets/corpus/records/ under its own name."""
    for known in (file.absolute(), file.resolve()):
        for folder in (CORPUS, DATA):
            for root in (folder.absolute(), folder.resolve()):
                if known.is_relative_to(root) and (folder == CORPUS or (CORPUS / known.relative_to(root)).exists()):
                    return CORPUS / known.relative_to(root)
    return RECORDS / file.name


def path_in_data(place: Path) -> str:
    """The path of a file of assets/corpus/ in data/, as settings name it."""
    return (DATA / place.relative_to(CORPUS)).as_posix()


def composed(task: TaskParams, text: str, groups: dict[str, str]) -> Config:
    """All settings with the new task selected, as the stages read them. Raises ConfigError for errors in params.yaml or
    conf/, and if the task is read back with other values."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(CONF, folder / CONF)
        (folder / TASKS / f"{task.name}.yaml").write_text(text, encoding="utf-8")
        (folder / PARAMS).write_text(selected({"task": task.name} | groups), encoding="utf-8")
        try:
            config = compose(folder / CONF, folder / PARAMS)
        except ConfigError as error:
            raise ConfigError(str(error).replace(f"{folder}/", "")) from None
    if config.task != task:
        wrong = [key for key in TaskParams.model_fields if getattr(config.task, key) != getattr(task, key)]
        raise ConfigError(
            f"expected {', '.join(wrong)} to be read as written, got another value (conf/task/{task.name}.yaml); "
            "take overrides of task out of params.yaml, and unusual characters out of the names of columns and "
            "labels"
        )
    return config


def selected(groups: dict[str, str]) -> str:
    """The text of params.yaml with these options selected and everything else unchanged."""
    try:
        if not CONF.is_dir():
            raise FileNotFoundError
        with PARAMS.open(encoding="utf-8", newline="") as file:
            text = file.read()
        changed = replaced(text, groups)
        before, after = yaml.safe_load(text), yaml.safe_load(changed)
        if after != before | {"groups": before["groups"] | groups}:
            raise ValueError("YAML in a form that can't be edited safely")
    except FileNotFoundError:
        raise ConfigError(f"expected a project, got none ({PARAMS}, {CONF}/); run in the project's folder") from None
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise ConfigError(
            f"expected groups with {' and '.join(groups)}, got {' '.join(str(error).split()):.120} ({PARAMS}); "
            "select the task there by hand"
        ) from None
    return changed


def write(source: Path, place: Path, digest: str, texts: dict[Path, str]) -> list[Path]:
    """Copy the data to `place` and write `texts`, skipping files that already have that content.

    All are written to temporary files first; then the data are moved into place first and the last of `texts` last, so
    an interruption leaves whole files, none of which names a missing one. Returns what was written. Raises DataError
    if the data changed since their `digest` (sha256) was taken.
    """
    written = []
    with contextlib.ExitStack() as stack:
        for path, text in reversed(texts.items()):
            if not path.exists() or path.read_bytes() != text.encode():
                stack.enter_context(atomic_path(path)).write_bytes(text.encode())
                written.append(path)
        if not same_file(source, place):
            copy = stack.enter_context(atomic_path(place))
            shutil.copyfile(source, copy)
            written.append(place)
            if file_sha256(copy) != digest:
                raise DataError(
                    f"expected an unchanged file, got one that changed during the check ({source}); run this again"
                )
    return written[::-1]


def same_file(source: Path, place: Path) -> bool:
    """Whether `place` is `source` or has the same content."""
    return place.exists() and (place.samefile(source) or filecmp.cmp(source, place, shallow=False))


def has_answers(config: Config) -> bool:
    """Whether the Teacher answers live, or has recorded answers."""
    if config.teacher["_target_"] != _RECORDED:
        return True
    return edited_file(config.teacher["path"]).exists()


def teachers_to_ask() -> list[str]:
    """Options of conf/teacher/ that answer live."""
    options = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in CONF.glob("teacher/*.yaml")}
    return sorted(option for option, settings in options.items() if settings.get("_target_") != _RECORDED)


def is_tracked(file: Path) -> bool:
    """Whether git or DVC tracks the file (DVC: with this content)."""
    pointer = Path(f"{file}.dvc")
    if pointer.exists():
        with file.open("rb") as held:
            digest = hashlib.file_digest(held, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        return digest in pointer.read_text(encoding="utf-8")
    return _git("ls-files", "--error-unmatch", "--", str(file))


def _git(*arguments: str) -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run(["git", *arguments], capture_output=True, check=False).returncode == 0
    return False
