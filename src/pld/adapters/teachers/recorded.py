"""Plays back recorded answers of a Teacher: no key, no network."""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pld.adapters.teachers.answer_export import by, numbered_lines, read_answers
from pld.adapters.teachers.paid_teacher import asked_hash
from pld.config.assets import edited_file
from pld.errors import ConfigError, TeacherError
from pld.ports import CONSOLIDATE, EXTRACT, Teacher, TeacherAnswer, TeacherRequest
from pld.records import Record, canonical_json


class Recording(Record):
    """One line of a file by example: what the Teacher said about one labelled example."""

    example_id: str
    label: str
    rationale: str
    rule: str


class RecordedTeacher:
    """Plays back `path` (relative to the project), of one of two kinds: a Recording a line, found by the id of its
    example, which answers `extract` alone; or what `pld teacher export` wrote, found by the question, which answers any
    role in it. Beside a file of the first kind, one of the second is played too if it is there: `NAME.answers.jsonl`
    beside `NAME.jsonl`. Leaves out examples and consolidations without a recording."""

    def __init__(self, *, path: str) -> None:
        self.name = f"recorded:{Path(path).name}"
        self._path = edited_file(path)
        self._prompts: dict[str, str] = {}  # by example
        self._consolidated: set[str] = set()  # requests that had an answer
        self._missing: set[str] = set()  # requests that had none

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        """Raises TeacherError for a file that is missing or malformed, and for an answer that is not in it where the
        role is another than `extract` and `consolidate`: only these can do without."""
        for request in requests:
            if answer := self._find(request):
                yield answer
            if request.role == CONSOLIDATE:
                (self._consolidated if answer else self._missing).add(request.key)
            elif answer is None and request.role != EXTRACT:
                counts = Counter(answer.role for answer in self._answers.values())
                held = ", ".join(f"{count:,} of {role}" for role, count in sorted(counts.items())) or "none"
                raise TeacherError(
                    f"expected a recorded answer to a question of {request.role}, got answers to others ({held}) "
                    f"({self._path}); replay the settings and templates that they were asked with, or set "
                    f"groups.teacher=anthropic"
                )

    def warning(self) -> str | None:
        """What to do about questions of consolidation without a recorded answer, for which single rules stand in; None:
        there were none."""
        missing = len(self._missing - self._consolidated)  # one that was refused is asked again: no question of its own
        if not missing:
            return None
        return (
            f"{missing:,} of {len(self._missing | self._consolidated):,} questions of consolidation have no recorded "
            f"answer ({self.name}): medoids stand in for them; answer them with groups.teacher=offline or anthropic, "
            "or set groups.consolidator=medoid"
        )

    def unknown(self, example_ids: Collection[str]) -> list[str]:
        """Ids of recordings by example that are not among `example_ids`."""
        return (
            [identity for identity in _read_examples(self._path) if identity not in example_ids]
            if self._by_example
            else []
        )

    def can_answer(self, role: str) -> bool:
        """Whether there is any recording for `role`; none where there is no file."""
        return self._path.exists() and any(answer.role == role for answer in self._answers.values())

    def has(self, request: TeacherRequest) -> bool:
        """Whether there is a recording for `request`."""
        return self._find(request) is not None

    def _find(self, request: TeacherRequest) -> TeacherAnswer | None:
        """A recording by example answers one prompt: one that repeats what was wrong with the answer has none."""
        found = self._answers.get(asked_hash(request))
        if found is None and self._by_example:
            found = self._answers.get(request.key)
            if found and self._prompts.setdefault(request.key, request.prompt) != request.prompt:
                return None
        if found is None or found.role != request.role:
            return None
        return TeacherAnswer(
            key=request.key,
            content=found.content,
            error=found.error,
            recorded=True,
            usage=dict(found.usage),
            source=f"recorded: {by(found.model, found.date)}" if found.model else "",
        )

    @cached_property
    def _by_example(self) -> bool:
        first = next(_lines(self._path), None)
        return first is None or not _is_exported(first[1])

    @cached_property
    def _answers(self) -> "dict[str, _Recorded]":
        """By example, and by the question's hash."""
        if not self._by_example:
            return _read_export(self._path)
        beside = self._path.with_suffix(".answers.jsonl")
        return _read_examples(self._path) | (_read_export(beside) if beside.exists() else {})


@dataclass(frozen=True)
class _Recorded:
    role: str
    model: str
    content: Mapping[str, Any] | None
    error: str | None
    usage: Mapping[str, int]
    number: int  # of the line
    date: str | None = None


def _read_examples(path: Path) -> dict[str, _Recorded]:
    """By example id."""
    found: dict[str, _Recorded] = {}
    for number, line in _lines(path):
        recording = _parse(line, f"{path}:{number}")
        if first := found.get(recording.example_id):
            raise TeacherError(
                f"expected one recording per example, got {recording.example_id!r} again (first in line "
                f"{first.number}) ({path}:{number}); remove one"
            )
        content = {"rationale": recording.rationale, "rule": recording.rule, "label": recording.label}
        found[recording.example_id] = _Recorded(EXTRACT, "", content, None, {}, number)
    return found


def _read_export(path: Path) -> dict[str, _Recorded]:
    """By the question's hash. Of several answers to one question those without content (refused, cut off) give way."""
    found: dict[str, _Recorded] = {}
    for number, line in read_answers(path):
        known = found.get(line.asked)
        if not line.asked or (known is not None and known.content is not None and line.content is None):
            continue
        if known is None or known.content is None:
            found[line.asked] = _Recorded(
                line.role, line.model, line.content, line.error, line.usage, number, line.date
            )
        elif canonical_json(line.content) != canonical_json(known.content):
            raise TeacherError(
                f"expected one answer to a question, got that of {line.model} besides that of {known.model} in line "
                f"{known.number} ({path}:{number}); export one model alone (pld teacher export --model), or remove one "
                "of them"
            )
    return found


def check_can_be_asked(teacher: Teacher, where: str, instead: str, role: str) -> None:
    """Before anything is computed: raises ConfigError where the setting `where` needs answers in `role` and `teacher`
    only plays back others; `instead` names the other way out."""
    if isinstance(teacher, RecordedTeacher) and not teacher.can_answer(role):
        raise ConfigError(
            f"expected a Teacher that answers new questions, got {teacher.name}, which plays back old answers "
            f"({where}); set groups.teacher=anthropic or {instead}"
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    if not path.exists():
        raise TeacherError(
            f"expected the recorded answers of teacher.path, got no such file ({path}); add it (`pld teacher export` "
            "writes one where a Teacher was asked), correct teacher.path, or set groups.teacher=anthropic"
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
