"""OfflineTeacher: what it plays, what waits, and what it says."""

import json

import pytest

from pld.adapters.teachers.answer_store import AnswerStore
from pld.adapters.teachers.offline import OfflineTeacher, waiting
from pld.adapters.teachers.paid_teacher import Terms, asked_hash
from pld.errors import WaitingError
from pld.params import BudgetParams
from pld.ports import TeacherAnswer, TeacherRequest
from support.kept_answers import SAID, kept


@pytest.fixture
def store(tmp_path, monkeypatch) -> AnswerStore:
    monkeypatch.setenv("PLD_CACHE", str(tmp_path / "cache"))
    return AnswerStore(tmp_path / "cache/answers.sqlite")


def teacher(recorded=None) -> OfflineTeacher:
    return OfflineTeacher(recorded=recorded, terms=Terms("colours", BudgetParams(usd=None, calls=None), None))


def question(key: str, role: str = "consolidate") -> TeacherRequest:
    return TeacherRequest(key, role, "the task", f"question {key}", {"type": "object"})


def asked(teacher: OfflineTeacher, *keys: str, role: str = "consolidate") -> tuple[list[TeacherAnswer], str]:
    """What it answers, and what it says at the end."""
    found = []
    try:
        for answer in teacher.ask([question(key, role) for key in keys]):
            found.append(answer)
    except WaitingError as error:
        return found, str(error)
    return found, ""


def test_what_the_store_holds_is_answered_whoever_gave_it_and_the_rest_waits(store):
    paid = kept("a", request=question("a"), model="claude-paid")
    store.put(paid.question, paid.answer)
    found, said = asked(teacher(), "b", "a", "c")
    assert [(item.key, item.content) for item in found] == [("a", SAID)]
    assert "got 2 questions without one" in said
    assert "pld teacher questions --out" in said
    assert "\n" not in said
    left = waiting(store, "colours")
    assert [(item.request, item.prompt) for item in left] == [("b", "question b"), ("c", "question c")]
    assert left[0].asked == asked_hash(question("b"))


def test_questions_of_one_run_wait_together_and_replace_those_of_the_run_before(store):
    old = teacher()
    asked(old, "a")
    _, said = asked(old, "b", "c")
    assert "got 3 questions" in said
    asked(teacher(), "c", "d")
    assert [item.request for item in waiting(store)] == ["c", "d"]
    asked(teacher(), "e", role="resolve")  # of another role: another stage asks it
    assert [item.request for item in waiting(store)] == ["c", "d", "e"]


def test_recordings_by_example_are_played_and_examples_without_one_are_left_out(store, tmp_path):
    path = tmp_path / "colours.jsonl"
    path.write_text(json.dumps({"example_id": "e1", **SAID}) + "\n")
    found, said = asked(teacher(str(path)), "e1", "e2", role="extract")
    assert [(item.key, item.recorded, said) for item in found] == [("e1", True, "")]
    _, said = asked(teacher(str(tmp_path / "none.jsonl")), "e1", role="extract")
    assert "got 1 question without" in said
