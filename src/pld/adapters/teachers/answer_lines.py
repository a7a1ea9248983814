"""Stored answers as JSON Lines: how they move from one store to another, and into a recording."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from pld.adapters.teachers.answer_store import Kept, Question, StoredAnswer
from pld.artifacts import write_jsonl
from pld.errors import TeacherError
from pld.records import Record, canonical_json

Count = Annotated[int, Field(ge=0)]


class AnswerLine(Record):
    """One answer, flat; the fields are those of Question and StoredAnswer. `asked` is empty where an old version of
    the store did not keep it."""

    key: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
    asked: Annotated[str, Field(pattern=r"\A([0-9a-f]{64})?\z")]
    task: str
    provider: str
    model: str
    role: str
    request: str
    draw: Count
    way: str
    content: dict[str, Any] | None
    error: str | None
    usage: dict[str, Count]
    usd: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None

    @model_validator(mode="after")
    def _content_or_error(self) -> "AnswerLine":
        if (self.content is None) == (self.error is None):
            raise ValueError("wanted either content or error")
        return self

    @property
    def kept(self) -> Kept:
        question = Question(
            self.key, self.asked, self.task, self.provider, self.model, self.role, self.request, self.draw, self.way
        )
        return Kept(question, StoredAnswer(self.content, self.error, self.usage, self.usd))


def write_answers(path: Path, kept: Iterable[Kept]) -> int:
    """Write one line for each, all or none of the file; how many they were."""
    count = 0

    def lines() -> Iterator[AnswerLine]:
        nonlocal count
        for item in kept:
            yield _line(item)
            count += 1

    try:
        write_jsonl(path, lines())
    except OSError as error:
        raise TeacherError(f"{path}: wanted a file to write answers to, found: {error.strerror or error}") from None
    return count


def read_answers(path: Path) -> Iterator[tuple[int, AnswerLine]]:
    """Line by line, each with its number. Raises TeacherError, which names file and line, for what is no answer, and
    for another answer under the same key."""
    known: dict[str, tuple[int, int]] = {}  # key → hash of what was answered, line
    for number, line in numbered_lines(path):
        found = _parse(line, f"{path}:{number}")
        said = hash(canonical_json([found.content, found.error]))
        first, at = known.setdefault(found.key, (said, number))
        if first != said:
            raise TeacherError(
                f"{path}:{number}: wanted one answer for a key, found another than in line {at} for {found.key[:12]}; "
                "remove one of them"
            )
        yield number, found


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a file in UTF-8 that are not blank, with their numbers. Raises TeacherError."""
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line
    except FileNotFoundError:
        raise TeacherError(f"{path}: wanted a file of answers, found no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TeacherError(f"{path}: wanted recorded answers in UTF-8, found: {error}") from None


def _line(kept: Kept) -> AnswerLine:
    question, answer = kept.question, kept.answer
    return AnswerLine(
        key=question.key,
        asked=question.asked,
        task=question.task,
        provider=question.provider,
        model=question.model,
        role=question.role,
        request=question.request,
        draw=question.draw,
        way=question.way,
        content=_plain(answer.content),
        error=answer.error,
        usage=dict(answer.usage),
        usd=answer.usd,
    )


def _plain(content: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if content is None else dict(content)


def _parse(line: str, where: str) -> AnswerLine:
    try:
        return AnswerLine.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "the line"
        raise TeacherError(
            f"{where}: wanted an answer as `pld teacher export` writes it, found at {at}: {first['msg']}; "
            "mend or remove the line"
        ) from None
