"""Write the files of a new task: composed and checked first, then all written or none."""

import contextlib
import filecmp
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from pld.artifacts import atomic_path
from pld.config.assets import edited_file
from pld.config.composition import compose
from pld.errors import ConfigError
from pld.params import Config
from pld.task_params import TaskParams

CONF, PARAMS, TASKS = Path("conf"), Path("params.yaml"), Path("conf/task")
CORPUS, DATA = Path("assets/corpus"), Path("data")
RECORDS = CORPUS / "records"
_RECORDED = "pld.adapters.teachers.recorded.RecordedTeacher"


def place_of(file: Path) -> Path:
    """Where a data file belongs: where it is, if in assets/corpus/ (or data/, which is a copy of it), else in
    assets/corpus/records/ under its own name."""
    for folder in (CORPUS, DATA):
        for known, root in ((file.absolute(), folder.absolute()), (file.resolve(), folder.resolve())):
            if known.is_relative_to(root) and (place := CORPUS / known.relative_to(root)).exists():
                return place
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
    if not (CONF.is_dir() and PARAMS.is_file()):
        raise ConfigError(f"expected a project, got none ({PARAMS}, {CONF}/); run in the project's folder")
    with PARAMS.open(encoding="utf-8", newline="") as file:
        text = changed = file.read()
    for role, option in groups.items():
        changed = re.sub(rf"(?m)^(groups:\s*$(?:\n(?: .*| *#.*)?$)*?\n +{role}: *)[^\s#]+", rf"\g<1>{option}", changed)
    try:
        before, after = yaml.safe_load(text), yaml.safe_load(changed)
        if after == before | {"groups": before["groups"] | groups}:
            return changed
    except (TypeError, KeyError, yaml.YAMLError):
        pass
    raise ConfigError(
        f"expected groups with a line for {' and '.join(groups)}, got others ({PARAMS}); select the task there by hand"
    )


def write(source: Path, place: Path, texts: dict[Path, str]) -> list[Path]:
    """Copy the data to `place` and write `texts`, skipping files that already have that content.

    All are written to temporary files first; then the data are moved into place first and the last of `texts` last, so
    an interruption leaves whole files, none of which names a missing one. Returns what was written.
    """
    written = []
    with contextlib.ExitStack() as stack:
        for path, text in reversed(texts.items()):
            if not path.exists() or path.read_bytes() != text.encode():
                stack.enter_context(atomic_path(path)).write_bytes(text.encode())
                written.append(path)
        if not same_file(source, place):
            shutil.copyfile(source, stack.enter_context(atomic_path(place)))
            written.append(place)
    return written[::-1]


def same_file(source: Path, place: Path) -> bool:
    """Whether `place` is `source` or has the same content."""
    return place.exists() and (place.samefile(source) or filecmp.cmp(source, place, shallow=False))


def has_answers(config: Config) -> bool:
    """Whether the Teacher answers new questions, or has recorded answers."""
    if config.teacher["_target_"] != _RECORDED:
        return True
    return edited_file(config.teacher["path"]).exists()


def teachers_to_ask() -> list[str]:
    """Options of conf/teacher/ that answer new questions."""
    options = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in CONF.glob("teacher/*.yaml")}
    return sorted(option for option, settings in options.items() if settings.get("_target_") != _RECORDED)


def is_tracked(file: Path) -> bool:
    """Whether git tracks the file, or DVC with this content."""
    pointer = Path(f"{file}.dvc")
    if pointer.exists():
        return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() in pointer.read_text(encoding="utf-8")
    with contextlib.suppress(OSError):
        return (
            subprocess.run(["git", "ls-files", "--error-unmatch", "--", str(file)], capture_output=True).returncode == 0
        )
    return False
