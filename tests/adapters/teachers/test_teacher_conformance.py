"""What the Teacher port promises, over every adapter."""

import json

import pytest

from pld.adapters.teachers.openai_compatible import OpenAICompatibleTeacher
from pld.adapters.teachers.recorded import RecordedTeacher
from pld.ports import Teacher, TeacherRequest
from support.anthropic_server import answer, claude
from support.openai_server import completion

SCHEMA = {
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("rationale", "rule", "label")},
    "required": ["rationale", "rule", "label"],
    "additionalProperties": False,
}
SAID = {"rationale": "It is warm.", "rule": "If it is warm, answer red.", "label": "red"}


@pytest.fixture(params=["anthropic", "openai", "recorded"])
def teacher(request, anthropic_server, openai_server, tmp_path) -> Teacher:
    if request.param == "anthropic":
        anthropic_server(lambda *_: answer(SAID))
        return claude(max_concurrency=3, max_retries=0)
    if request.param == "openai":
        openai_server(lambda *_: completion(SAID))
        return OpenAICompatibleTeacher(
            base_url=None,
            model="toy",
            api_key_variable="PLD_TEACHER_API_KEY",
            max_tokens=512,
            max_tokens_field="max_tokens",
            temperature=None,
            roles={},
            max_concurrency=3,
            max_retries=0,
            timeout_s=5.0,
            extra_body={},
        )
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"example_id": f"e{i}", **SAID}) + "\n" for i in range(9)))
    return RecordedTeacher(path=str(path))


def requests(*keys: str) -> list[TeacherRequest]:
    return [TeacherRequest(key, "extract", "the task", f"question {key}", SCHEMA) for key in keys]


def test_each_request_is_answered_once_under_its_key(teacher):
    keys = [f"e{i}" for i in range(9)]
    found = list(teacher.ask(requests(*keys)))
    assert sorted(item.key for item in found) == keys
    assert all(item.content == SAID and item.error is None for item in found)


def test_asked_again_it_gives_the_same_answer(teacher):
    by_key = [{item.key: item for item in teacher.ask(requests("e1", "e2"))} for _ in range(2)]
    assert by_key[0] == by_key[1]


def test_no_requests_is_no_answers(teacher):
    assert list(teacher.ask([])) == []


def test_its_name_says_where_answers_come_from_without_a_machine_path(teacher, tmp_path):
    assert teacher.name in ("anthropic:claude-test", "openai:toy", "recorded:answers.jsonl")
