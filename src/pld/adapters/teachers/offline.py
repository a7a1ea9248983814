"""A Teacher without a connection: its questions wait in the answer store until somebody answers them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from pld.adapters.teachers.answer_export import AnswerLine, answer_line, by, parse_answer
from pld.adapters.teachers.answer_store import (
    FILE_NAME,
    AnswerStore,
    Entry,
    Question,
    StoredAnswer,
    request_key,
)
from pld.adapters.teachers.paid_teacher import Terms, asked_hash, read_answer
from pld.adapters.teachers.recorded import RecordedTeacher
from pld.artifacts import atomic_path
from pld.config.assets import cache_folder
from pld.errors import TeacherError, WaitingError
from pld.ports import EXTRACT, TeacherAnswer, TeacherRequest
from pld.records import Record, canonical_json

OFFLINE = "offline"


@dataclass(frozen=True)
class WaitingQuestion:
    """A question without an answer; `schema` is JSON."""

    asked: str
    task: str
    role: str
    request: str
    draw: int
    system: str
    prompt: str
    schema: str


class OfflineAnswer(Record):
    """One line that answers a waiting question; `model`: who answered."""

    asked: Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
    content: dict[str, Any]
    model: Annotated[str, Field(min_length=1)]
    date: str | None = None


class OfflineTeacher:
    """Answers what the store holds, whoever gave the answer; `recorded` (null: none) names recordings by example, which
    are played where the file is there."""

    name = OFFLINE

    def __init__(self, *, recorded: str | None, terms: Terms | None = None) -> None:
        self._task = terms.task if terms else ""
        recordings = RecordedTeacher(path=recorded) if recorded else None
        self._recorded = recordings if recordings and recordings.can_answer(EXTRACT) else None
        self._waiting: dict[str, TeacherRequest] = {}
        self._roles: set[str] = set()

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        """Raises WaitingError once all stored answers are given, if there are other questions: the store keeps these
        instead of those that an earlier run left behind."""
        store = AnswerStore(cache_folder() / FILE_NAME)
        hashes = {request.key: asked_hash(request) for request in requests}
        known = store.by_question(hashes.values())
        new: dict[str, TeacherRequest] = {}
        for request in requests:
            if self._recorded and self._plays(request):
                yield from self._recorded.ask([request])
            elif entry := known.get(hashes[request.key]):
                yield _given(request, entry)
            else:
                new[hashes[request.key]] = request
        for role in {request.role for request in requests} - self._roles:
            forget(store, self._task, role)
            self._roles.add(role)
        if not new:
            return
        self._waiting |= new
        wait_for(store, [self._question(asked, request) for asked, request in new.items()])
        count = len(self._waiting)
        raise WaitingError(
            f"expected answers of the offline Teacher, got {count:,} question{'s' * (count > 1)} without one "
            f"({store.path}); write them with `pld teacher questions --out questions.jsonl`, answer them, "
            "`pld teacher import answers.jsonl`, and run `dvc repro` again"
        )

    def without_answer(self, store: AnswerStore, requests: Sequence[TeacherRequest]) -> list[TeacherRequest]:
        """Those of `requests` that would wait."""
        known = store.by_question(map(asked_hash, requests))
        return [item for item in requests if not self._plays(item) and asked_hash(item) not in known]

    def _plays(self, request: TeacherRequest) -> bool:
        """Where examples are recorded, those without a recording are left out, as by a recording alone."""
        return self._recorded is not None and (request.role == EXTRACT or self._recorded.has(request))

    def _question(self, asked: str, request: TeacherRequest) -> WaitingQuestion:
        schema = canonical_json(dict(request.schema))
        return WaitingQuestion(
            asked, self._task, request.role, request.key, request.draw, request.system, request.prompt, schema
        )


def wait_for(store: AnswerStore, questions: Sequence[WaitingQuestion]) -> None:
    """Keep questions until they are answered."""
    with store.transaction() as connection:
        statement = "INSERT OR REPLACE INTO waiting VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        connection.executemany(statement, map(astuple, questions))


def forget(store: AnswerStore, task: str, role: str) -> None:
    """Drop the questions that an earlier run left behind."""
    with store.transaction() as connection:
        connection.execute("DELETE FROM waiting WHERE task = ? AND role = ?", (task, role))


def waiting(store: AnswerStore, task: str | None = None) -> list[WaitingQuestion]:
    """The questions without an answer (of a task), in the order in which they came up."""
    with store.transaction() as connection:
        rows = connection.execute("SELECT * FROM waiting WHERE ?1 IS NULL OR task = ?1 ORDER BY rowid", (task,))
        return [WaitingQuestion(*row) for row in rows.fetchall()]


def write_questions(path: Path, questions: Sequence[WaitingQuestion]) -> None:
    """One JSON line for each, with all that is needed to answer it."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for question in questions:
            line = {name: getattr(question, name) for name in ("asked", "task", "role", "system", "prompt")}
            file.write(json.dumps(line | {"schema": json.loads(question.schema)}, ensure_ascii=False) + "\n")


def answer_parser(store: AnswerStore) -> Callable[[str, str], AnswerLine]:
    """Reads a line (with where it stands) as an answer to a waiting question, or as `pld teacher export` writes it.
    Raises TeacherError for what is neither, and for what does not fit the question's schema."""
    questions = {question.asked: question for question in waiting(store)}

    def parse(line: str, where: str) -> AnswerLine:
        if not _is_offline(line):
            return parse_answer(line, where)
        try:
            given = OfflineAnswer.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            at = ".".join(str(part) for part in first["loc"]) or "the line"
            raise TeacherError(
                f"expected a JSON object of asked, content, model and, if known, date, got {first['msg']} "
                f"({where}, {at}); correct the line"
            ) from None
        question = questions.get(given.asked)
        if question is None:
            if earlier := store.by_question([given.asked]).get(given.asked):
                return answer_line(earlier)  # imported before: the existing answer stays
            raise TeacherError(
                f"expected an answer to a question that waits, got one to {given.asked[:12]} ({where}); answer those "
                "of `pld teacher questions`, or run the stage that asks it first"
            )
        try:
            content = read_answer(json.dumps(given.content), json.loads(question.schema))
        except ValueError as error:
            raise TeacherError(
                f"expected an answer that fits its question's schema, got {error} ({where}); correct the line"
            ) from None
        return answer_line(_entry(question, given, content))

    return parse


def _is_offline(line: str) -> bool:
    try:
        value = json.loads(line)
    except ValueError:
        return False
    return isinstance(value, dict) and "key" not in value


def _entry(question: WaitingQuestion, given: OfflineAnswer, content: Mapping[str, Any]) -> Entry:
    key = request_key({"provider": OFFLINE, "model": given.model, "asked": given.asked})
    about = (question.task, OFFLINE, given.model, question.role, question.request, question.draw, OFFLINE)
    return Entry(Question(key, given.asked, *about), StoredAnswer(content, None, {}, None, given.date))


def _given(request: TeacherRequest, entry: Entry) -> TeacherAnswer:
    question, answer = entry.question, entry.answer
    by_hand = question.provider == OFFLINE
    return TeacherAnswer(
        key=request.key,
        content=answer.content,
        error=answer.error,
        usage=answer.usage,
        source=by(question.model, answer.date) if by_hand else "",
    )
