"""The Teacher's answers of an earlier day, played back: no key, no network."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from pld.errors import ConfigError, TeacherError
from pld.ports import Teacher, TeacherAnswer, TeacherRequest
from pld.records import Record


class Recording(Record):
    """One line of the file: what the Teacher said about one labelled example."""

    example_id: str
    label: str
    rationale: str
    rule: str


class RecordedTeacher:
    """Answers `extract` requests by example id; leaves out what has no recording. `path` is relative to the project."""

    def __init__(self, *, path: str) -> None:
        self.name = f"recorded:{Path(path).name}"
        self._path = Path(path)

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        """Raises TeacherError for a role that was not recorded and for a file that is missing or malformed."""
        for request in requests:
            _check_role(request.role)
        recordings = self._read() if requests else {}
        for request in requests:
            if recording := recordings.get(request.key):
                content = {"rationale": recording.rationale, "rule": recording.rule, "label": recording.label}
                yield TeacherAnswer(key=request.key, content=content, recorded=True)

    def _read(self) -> dict[str, Recording]:
        try:
            lines = self._path.read_bytes().decode().split("\n")
        except FileNotFoundError:
            raise TeacherError(
                f"{self._path}: wanted the recorded answers of teacher.path, found no such file; "
                "run `dvc repro` or `dvc pull`, or set groups.teacher=anthropic"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise TeacherError(f"{self._path}: wanted recorded answers in UTF-8, found: {error}") from None
        recordings: dict[str, Recording] = {}
        places: dict[str, int] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            recording = _parse(line, f"{self._path}:{number}")
            if first := places.get(recording.example_id):
                raise TeacherError(
                    f"{self._path}:{number}: wanted one recording per example, found {recording.example_id!r} "
                    f"again (first in line {first}); remove one"
                )
            places[recording.example_id] = number
            recordings[recording.example_id] = recording
        return recordings


def check_can_be_asked(teacher: Teacher, where: str, instead: str) -> None:
    """Before anything is computed: raises ConfigError where the setting `where` needs new answers and `teacher` only
    plays back old ones; `instead` names the other way out."""
    if isinstance(teacher, RecordedTeacher):
        raise ConfigError(
            f"{where}: wanted a Teacher that answers new questions, found {teacher.name}, which plays back old "
            f"answers; set groups.teacher=anthropic or {instead}"
        )


def _check_role(role: str) -> None:
    if role == "consolidate":
        raise TeacherError(
            "teacher=recorded: wanted merged rules, but recordings answer only the extraction of rules; "
            "set groups.teacher=anthropic or groups.consolidator=medoid"
        )
    if role != "extract":
        raise TeacherError(
            f"teacher=recorded: wanted an answer to {role!r}, but recordings answer only the extraction of rules; "
            "set groups.teacher=anthropic"
        )


def _parse(line: str, where: str) -> Recording:
    try:
        return Recording.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "the line"
        raise TeacherError(
            f"{where}: wanted a JSON object of example_id, label, rationale and rule, found at {at}: "
            f"{first['msg']}; mend the line"
        ) from None
