"""Plays back recorded answers of a Teacher: no key, no network."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from pld.adapters.teachers.answer_export import AnswerLine, numbered_lines, read_answers
from pld.adapters.teachers.paid_teacher import asked_hash
from pld.config.assets import edited_file
from pld.errors import ConfigError, TeacherError
from pld.ports import EXTRACT, Teacher, TeacherAnswer, TeacherRequest
from pld.records import Record, canonical_json


class Recording(Record):
    """One line of a file by example: what the Teacher said about one labelled example."""

    example_id: str
    label: str
    rationale: str
    rule: str


class RecordedTeacher:
    """Plays back `path` (relative to the project), a file of one of two kinds: a Recording a line, found by the id of
    its example, which answers `extract` alone; or what `pld teacher export` wrote, found by what was asked, which
    answers any role that is in it. Leaves out what it has no recording of."""

    def __init__(self, *, path: str) -> None:
        self.name = f"recorded:{Path(path).name}"
        self._path = edited_file(path)

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        """Raises TeacherError for a file that is missing or malformed, and for an answer that is not in it where the
        role is another than `extract`: only examples can be left out."""
        for request in requests:
            if answer := self._recordings.find(request):
                yield answer
            elif request.role != EXTRACT:
                raise self._recordings.missing(request.role)

    def can_answer(self, role: str) -> bool:
        """Whether there is any recording for `role`; none where there is no file."""
        return self._path.exists() and role in self._recordings.roles

    def has(self, request: TeacherRequest) -> bool:
        """Whether there is a recording for `request`."""
        return self._recordings.find(request) is not None

    @cached_property
    def _recordings(self) -> "_Recordings":
        first = next(_lines(self._path), None)
        return _ByQuestion(self._path) if first and _is_exported(first[1]) else _ByExample(self._path)


def check_can_be_asked(teacher: Teacher, where: str, instead: str, role: str) -> None:
    """Before anything is computed: raises ConfigError where the setting `where` needs answers in `role` and `teacher`
    only plays back others; `instead` names the other way out."""
    if isinstance(teacher, RecordedTeacher) and not teacher.can_answer(role):
        raise ConfigError(
            f"expected a Teacher that answers new questions, got {teacher.name}, which plays back old answers "
            f"({where}); set groups.teacher=anthropic or {instead}"
        )


class _Recordings(Protocol):
    roles: frozenset[str]

    def find(self, request: TeacherRequest) -> TeacherAnswer | None: ...

    def missing(self, role: str) -> TeacherError: ...


class _ByExample:
    """Recordings of `extract`, by example id. Each answers one question: the same example in another prompt, which
    tells what was wrong with the answer, has no recording."""

    roles = frozenset([EXTRACT])

    def __init__(self, path: Path) -> None:
        self._by_id: dict[str, Recording] = {}
        self._prompts: dict[str, str] = {}
        places: dict[str, int] = {}
        for number, line in _lines(path):
            recording = _parse(line, f"{path}:{number}")
            if first := places.get(recording.example_id):
                raise TeacherError(
                    f"expected one recording per example, got {recording.example_id!r} again (first in line "
                    f"{first}) ({path}:{number}); remove one"
                )
            places[recording.example_id] = number
            self._by_id[recording.example_id] = recording

    def find(self, request: TeacherRequest) -> TeacherAnswer | None:
        recording = self._by_id.get(request.key) if request.role == EXTRACT else None
        if recording is None or self._prompts.setdefault(request.key, request.prompt) != request.prompt:
            return None
        content = {"rationale": recording.rationale, "rule": recording.rule, "label": recording.label}
        return TeacherAnswer(key=request.key, content=content, recorded=True)

    def missing(self, role: str) -> TeacherError:
        if role == "consolidate":
            return TeacherError(
                "expected merged rules, but recordings by example answer only the extraction of rules "
                "(teacher=recorded); set groups.teacher=anthropic or groups.consolidator=medoid"
            )
        return TeacherError(
            f"expected an answer to {role!r}, but recordings by example answer only the extraction of rules "
            "(teacher=recorded); set groups.teacher=anthropic"
        )


@dataclass(frozen=True)
class _Place:
    line: AnswerLine
    number: int


class _ByQuestion:
    """Exported answers, by what was asked. Of several to one question those without content (a refusal, an answer cut
    off) give way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._by_asked: dict[str, _Place] = {}
        for number, line in read_answers(path):
            if not line.asked:
                continue
            known = self._by_asked.get(line.asked)
            if known is None or known.line.content is None:
                self._by_asked[line.asked] = _Place(line, number)
            elif line.content is not None and canonical_json(line.content) != canonical_json(known.line.content):
                raise TeacherError(
                    f"expected one answer to a question, got that of {line.model} besides that of "
                    f"{known.line.model} in line {known.number} ({path}:{number}); export one model alone (pld "
                    "teacher export --model), or remove one of them"
                )
        self._counts = Counter(place.line.role for place in self._by_asked.values())
        self.roles = frozenset(self._counts)

    def find(self, request: TeacherRequest) -> TeacherAnswer | None:
        place = self._by_asked.get(asked_hash(request))
        if place is None:
            return None
        line = place.line
        return TeacherAnswer(
            key=request.key, content=line.content, error=line.error, recorded=True, usage=dict(line.usage)
        )

    def missing(self, role: str) -> TeacherError:
        held = ", ".join(f"{count:,} of {name}" for name, count in sorted(self._counts.items())) or "none"
        return TeacherError(
            f"expected a recorded answer to a question of {role}, got answers to others ({held}) ({self._path}); "
            "replay the settings and templates that they were asked with, or set groups.teacher=anthropic"
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.exists():
        raise TeacherError(
            f"expected the recorded answers of teacher.path, got no such file ({path}); run `dvc repro` or `dvc "
            "pull`, or set groups.teacher=anthropic"
        )
    yield from numbered_lines(path)


def _is_exported(line: str) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False  # the kind that names the line in its error
    return isinstance(value, dict) and "asked" in value


def _parse(line: str, where: str) -> Recording:
    try:
        return Recording.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "the line"
        raise TeacherError(
            f"expected a JSON object of example_id, label, rationale and rule, got {first['msg']} "
            f"({where}, {at}); correct the line"
        ) from None
