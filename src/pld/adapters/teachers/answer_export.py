"""Reads and writes stored answers as JSON Lines, to move them to another store or play them back."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError, model_validator

from pld.adapters.teachers.answer_store import Entry, Question, StoredAnswer
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
    date: str | None = Field(default=None, exclude_if=lambda date: date is None)

    @model_validator(mode="after")
    def _content_or_error(self) -> "AnswerLine":
        if (self.content is None) == (self.error is None):
            raise ValueError("expected either content or error")
        return self

    @property
    def entry(self) -> Entry:
        question = Question(**{field.name: getattr(self, field.name) for field in fields(Question)})
        return Entry(question, StoredAnswer(self.content, self.error, self.usage, self.usd, self.date))


def write_answers(path: Path, entries: Iterable[Entry]) -> int:
    """Write one line for each, all or none of the file; how many they were."""
    count = 0

    def lines() -> Iterator[AnswerLine]:
        nonlocal count
        for entry in entries:
            yield answer_line(entry)
            count += 1

    try:
        write_jsonl(path, lines())
    except OSError as error:
        raise TeacherError(f"expected a file to write answers to, got: {error.strerror or error} ({path})") from None
    return count


def read_answers(path: Path, parse: Callable[[str, str], AnswerLine] | None = None) -> Iterator[tuple[int, AnswerLine]]:
    """Line by line, each with its number; `parse` reads a line with where it stands (None: as it is exported). Raises
    TeacherError, which names file and line, for what is no answer, and for another answer under the same key."""
    known: dict[str, tuple[int, int]] = {}  # key → hash of what was answered, line
    for number, line in numbered_lines(path):
        found = (parse or parse_answer)(line, f"{path}:{number}")
        said = hash(canonical_json([found.content, found.error]))
        first, at = known.setdefault(found.key, (said, number))
        if first != said:
            raise TeacherError(
                f"expected one answer for a key, got another than in line {at} for {found.key[:12]} "
                f"({path}:{number}); remove one of them"
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
        raise TeacherError(f"expected a file of answers, got no such file ({path})") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TeacherError(f"expected recorded answers in UTF-8, got: {error} ({path})") from None


def by(model: str, date: str | None) -> str:
    """Who gave an answer, and when if that is known."""
    return f"{model}, {date}" if date else model


def answer_line(entry: Entry) -> AnswerLine:
    answer = entry.answer
    content = None if answer.content is None else dict(answer.content)
    said = {"content": content, "error": answer.error, "usage": dict(answer.usage), "usd": answer.usd}
    return AnswerLine(**asdict(entry.question), **said, date=answer.date)


def parse_answer(line: str, where: str) -> AnswerLine:
    """One exported line. Raises TeacherError, which names `where` it stands."""
    try:
        return AnswerLine.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"]) or "the line"
        raise TeacherError(
            f"expected an answer as `pld teacher export` writes it, got {first['msg']} ({where}, {at}); correct "
            "or remove the line"
        ) from None
