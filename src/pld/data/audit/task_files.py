"""Files of a new task: composed and checked before any is written, written whole or not at all."""

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
    """Where a data file belongs: where it is if that is in assets/corpus/ (or in data/, which is a copy of it), else
    assets/corpus/records/ under its own name."""
    for known in (file.absolute(), file.resolve()):
        for folder in (CORPUS, DATA):
            for root in (folder.absolute(), folder.resolve()):
                if known.is_relative_to(root) and (folder == CORPUS or (CORPUS / known.relative_to(root)).exists()):
                    return CORPUS / known.relative_to(root)
    return RECORDS / file.name


def as_seen(place: Path) -> str:
    """The path that settings name for a file in assets/corpus/."""
    return (DATA / place.relative_to(CORPUS)).as_posix()


def composed(task: TaskParams, text: str, groups: dict[str, str]) -> Config:
    """All settings with the new task selected, as the stages would read them. Raises ConfigError where params.yaml or
    conf/ is wrong, or where the task would not be read as it is meant."""
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
            f"conf/task/{task.name}.yaml: wanted {', '.join(wrong)} to be read as written, found another value; take "
            "overrides of task out of params.yaml, and unusual characters out of the names of columns and labels"
        )
    return config


def selected(groups: dict[str, str]) -> str:
    """The text of params.yaml with these options selected, everything else as it stands."""
    try:
        if not CONF.is_dir():
            raise FileNotFoundError
        with PARAMS.open(encoding="utf-8", newline="") as file:
            text = file.read()
        changed = replaced(text, groups)
        before, after = yaml.safe_load(text), yaml.safe_load(changed)
        if after != before | {"groups": before["groups"] | groups}:
            raise ValueError("a form of YAML that is not edited here")
    except FileNotFoundError:
        raise ConfigError(
            f"{PARAMS} and {CONF}/: wanted a project, found none here; run in the project's folder"
        ) from None
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{PARAMS}: wanted groups with {' and '.join(groups)}, found {' '.join(str(error).split()):.120}; select "
            "the task there by hand"
        ) from None
    return changed


def write(source: Path, place: Path, digest: str, texts: dict[Path, str]) -> list[Path]:
    """Copy the data to `place` and write `texts`; those that are there already, as they are to be, are left alone.

    Nothing takes its place before all is written beside it; then the data come first and the last of `texts` last, so
    that whatever stops it leaves whole files, none of which names one that is not there. Returns what was written.
    Raises DataError where the data changed since `digest` (sha256) was taken of them.
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
                    f"{source}: wanted a file that stays as it is, found it changed meanwhile; run this again"
                )
    return written[::-1]


def same_file(source: Path, place: Path) -> bool:
    """Whether `place` is `source`, or has the same content."""
    return place.exists() and (place.samefile(source) or filecmp.cmp(source, place, shallow=False))


def has_answers(config: Config) -> bool:
    """Whether the Teacher is one that can be asked, or plays back answers that are there."""
    if config.teacher["_target_"] != _RECORDED:
        return True
    return edited_file(config.teacher["path"]).exists()


def teachers_to_ask() -> list[str]:
    """Options of conf/teacher/ that are no recordings."""
    options = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in CONF.glob("teacher/*.yaml")}
    return sorted(option for option, settings in options.items() if settings.get("_target_") != _RECORDED)


def is_tracked(file: Path) -> bool:
    """Whether git or DVC has the file, with this content in DVC's case."""
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
