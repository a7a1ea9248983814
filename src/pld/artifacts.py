"""Read and write the files of stages: UTF-8, atomic, a trailing newline, keys in a fixed order."""

import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from pld.errors import ArtifactError
from pld.records import Message, Messages

SHIPS = Path("review/final")
"""Folder under artifacts/ with what ships: the final instructions, prompt and calibration, after review."""

PROMPT_FILE = "system_prompt.md"
MESSAGES_FILE = "messages.json"

R = TypeVar("R", bound=BaseModel)
_MESSAGES = TypeAdapter(Annotated[tuple[Message, ...], Field(min_length=1)])


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    temporary.chmod(0o644)
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A new empty folder to fill, which replaces the folder `path` when the block ends without an error.

    A link to a folder stays, and what it points to is replaced. A mount point stays, and its files are replaced.
    """
    path = path.resolve() if path.is_symlink() else path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    temporary.chmod(0o755)
    try:
        yield temporary
        try:
            _exchange([(temporary, path)], temporary.with_name(f"{temporary.name}.old"))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _fill(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(mounted: Path, new: Path) -> None:
    """Replace what a mount point holds by copies of what `new` holds; what is there is removed last."""
    copies = Path(tempfile.mkdtemp(dir=mounted, prefix=".new."))
    old = copies.with_name(f"{copies.name}.old")
    try:
        shutil.copytree(new, copies, dirs_exist_ok=True)
        held = {entry.name for entry in mounted.iterdir()} - {copies.name, "lost+found"}
        names = sorted(held | {entry.name for entry in copies.iterdir()})
        _exchange([(copies / name, mounted / name) for name in names], old)
    finally:
        shutil.rmtree(copies, ignore_errors=True)


def _exchange(pairs: list[tuple[Path, Path]], old: Path) -> None:
    """Move each first path to the second, whose content is kept in `old` till all are in place. After an error the
    paths are as before."""
    undo: list[tuple[Path, Path]] = []
    old.mkdir()
    try:
        for new, place in pairs:
            for source, target in ((place, old / place.name), (new, place)):
                if source.exists() or source.is_symlink():
                    source.rename(target)
                    undo.append((target, source))
    except BaseException:  # Ctrl-C too
        for target, source in reversed(undo):
            target.rename(source)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` unchanged (without adding a newline)."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())


def csv_line(cells: Sequence[str]) -> str:
    """A CSV row without its line end. Line ends inside cells survive: Python 3.11's csv quotes a lone carriage return
    only when it is part of the writer's own line end."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n")


def write_json(path: Path, value: BaseModel | Mapping[str, Any]) -> None:
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    write_text(path, json.dumps(plain, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record.model_dump(mode="json"), ensure_ascii=False) + "\n")


def write_prompt(folder: Path, messages: Messages) -> None:
    """Write a prompt to `folder`: messages.json is what is measured and registered, system_prompt.md its system message
    for people."""
    write_text(folder / PROMPT_FILE, messages[0].content)
    dumped = [message.model_dump() for message in messages]
    write_text(folder / MESSAGES_FILE, json.dumps(dumped, ensure_ascii=False, indent=2) + "\n")


def read_prompt(folder: Path) -> tuple[Message, ...]:
    """The prompt in `folder`. Raises ArtifactError where a file is missing or broken, or they disagree."""
    path = folder / MESSAGES_FILE
    try:
        text = read_text(folder / PROMPT_FILE)
        messages = _MESSAGES.validate_json(read_text(path))
    except UnicodeDecodeError as error:
        raise ArtifactError(f"expected UTF-8, got {error} ({folder / PROMPT_FILE}); run `dvc repro`") from None
    except ValidationError as error:
        raise ArtifactError(_mismatch(str(path), Message, error)) from None
    if messages[0] != Message(role="system", content=text):
        raise ArtifactError(
            f"expected the system message of {path}, got another text ({folder / PROMPT_FILE}); run `dvc repro`"
        )
    return messages


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_text(path: Path) -> str:
    with _opened(path) as file:
        return file.read().decode()


def read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise ArtifactError(f"expected JSON, got {error} ({path}); run `dvc repro` to make it again") from None


def read_record(path: Path, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(read_text(path))
    except ValidationError as error:
        raise ArtifactError(_mismatch(str(path), kind, error)) from None


def read_jsonl(path: Path, kind: type[R]) -> list[R]:
    records = []
    with _opened(path) as lines:
        for number, line in enumerate(lines, 1):  # in bytes, so that only a line feed ends a line
            if line == b"\n":
                continue
            try:
                records.append(kind.model_validate_json(line))
            except ValidationError as error:
                raise ArtifactError(_mismatch(f"{path}:{number}", kind, error)) from None
    return records


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        remedy = f"wait for {busy}" if (busy := _running_dvc()) else "run `dvc repro`"
        raise ArtifactError(f"expected the output of an earlier stage, got no such file ({path}); {remedy}") from None


def _running_dvc() -> str | None:
    """The command that now runs a stage, whose outputs DVC has removed; None inside a stage and where none runs."""
    if "DVC_ROOT" in os.environ:
        return None
    try:
        locked = json.loads(Path(".dvc/tmp/rwlock").read_bytes())["write"].values()
        holders = {int(held["pid"]): str(held["cmd"]) for held in locked}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    for process, command in holders.items():
        with contextlib.suppress(ProcessLookupError):
            with contextlib.suppress(PermissionError):  # another user's
                os.kill(process, 0)
            return f"`{command}` (process {process}), which is running"
    return None


def _mismatch(where: str, kind: type[BaseModel], error: ValidationError) -> str:
    first = error.errors()[0]
    at = ".".join(str(part) for part in first["loc"]) or "the record"
    return f"expected a {kind.__name__}, got {first['msg']!r} at {at} ({where}); run `dvc repro` to make it again"
