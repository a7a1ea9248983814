"""AnthropicTeacher behind the real SDK, against a local server that speaks the Messages API."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pld.adapters.teachers.anthropic import AnthropicTeacher
from pld.errors import TeacherError
from pld.ports import TeacherAnswer, TeacherRequest
from support.anthropic_server import Reply, answer, claude, error

KEY = os.environ.get("ANTHROPIC_API_KEY")  # before the suite takes it away
SCHEMA = {
    "type": "object",
    "properties": {"rule": {"type": "string"}, "label": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["rule", "label"],
    "additionalProperties": False,
}
GOOD = {"rule": "If it is warm, answer red.", "label": "red"}


def requests(count: int) -> list[TeacherRequest]:
    return [TeacherRequest(str(i), "extract", "the task", f"question {i}", SCHEMA) for i in range(count)]


def teacher(**settings: object) -> AnthropicTeacher:
    return claude(**settings)


def ask(wanted: Sequence[TeacherRequest], **settings: object) -> dict[str, TeacherAnswer]:
    return {found.key: found for found in teacher(**settings).ask(wanted)}


def test_every_request_gets_its_own_answer_with_what_it_cost(anthropic_server):
    server = anthropic_server(lambda body, _: answer({**GOOD, "rule": body["messages"][0]["content"]}))
    found = ask(requests(6))
    assert {key: item.content["rule"] for key, item in found.items()} == {str(i): f"question {i}" for i in range(6)}
    assert all(item.usage == {"input_tokens": 100, "output_tokens": 20} for item in found.values())
    assert not any(item.recorded or item.error for item in found.values())
    assert len(server.bodies) == 6


def test_schema_settings_and_key_are_sent_as_the_api_expects(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    ask(requests(1), effort="low")
    (body,) = server.bodies
    assert body["output_config"]["effort"] == "low"
    assert body["output_config"]["format"]["type"] == "json_schema"
    assert body["output_config"]["format"]["schema"]["properties"]["label"] == {"enum": ["red", "blue"]}
    assert (body["model"], body["max_tokens"], body["system"][0]["text"]) == ("claude-test", 512, "the task")
    assert body["messages"] == [{"role": "user", "content": "question 0"}]
    assert server.headers[0]["authorization"] == "Bearer test-key"


def test_no_effort_is_sent_unless_it_is_set(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    ask(requests(1), effort=None)
    assert "effort" not in server.bodies[0]["output_config"]


def test_a_rerun_asks_nothing_and_needs_no_key(anthropic_server, monkeypatch):
    server = anthropic_server(lambda *_: answer(GOOD))
    first = ask(requests(3))
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert ask(requests(3)) == first
    assert len(server.bodies) == 3


def test_a_rerun_pays_only_for_what_is_new(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    ask(requests(3))
    assert len(ask(requests(5))) == 5
    assert sorted(server.prompts) == [f"question {i}" for i in range(5)]


@pytest.mark.parametrize("change", [{"model": "claude-other"}, {"max_tokens": 513}, {"effort": "high"}])
def test_an_answer_is_not_reused_under_settings_that_determine_it(anthropic_server, change):
    server = anthropic_server(lambda *_: answer(GOOD))
    ask(requests(1))
    ask(requests(1), **change)
    assert len(server.bodies) == 2


def test_settings_of_the_transport_do_not_cost_a_second_answer(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    ask(requests(1))
    ask(requests(1), max_concurrency=1, max_retries=9, timeout_s=99.0)
    assert len(server.bodies) == 1


def test_answers_of_another_server_are_not_reused(anthropic_server):
    anthropic_server(lambda *_: answer({**GOOD, "label": "blue"}))
    ask(requests(1))
    anthropic_server(lambda *_: answer(GOOD))
    assert ask(requests(1))["0"].content == GOOD


def test_requests_that_are_alike_are_paid_for_once(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    twins = [TeacherRequest(key, "extract", "the task", "the same", SCHEMA) for key in ("a", "b")]
    assert {key: item.content for key, item in ask(twins).items()} == {"a": GOOD, "b": GOOD}
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [429, 529, 500])
def test_a_busy_service_is_asked_again_after_the_time_it_names(anthropic_server, status):
    def respond(body: object, attempt: int) -> Reply:
        return error(status, "overloaded_error", "busy", retry_after_ms="20") if attempt == 1 else answer(GOOD)

    server = anthropic_server(respond)
    assert ask(requests(2))["1"].content == GOOD
    assert len(server.bodies) == 4


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (answer("", "refusal", stop_details={"type": "refusal", "category": "bio", "explanation": None}), "refusal"),
        (answer("", "refusal"), "refusal"),
        (answer('{"rule": "If', "max_tokens"), "truncated"),
        (answer('{"rule": "If', "model_context_window_exceeded"), "invalid"),
        (answer(""), "empty"),
        (answer('{"rule": "If'), "invalid"),
        (answer("[1]"), "invalid"),
        (answer({**GOOD, "label": "green"}), "invalid"),
        (answer({"rule": "If it is warm, answer red."}), "invalid"),
        (answer({**GOOD, "more": 1}), "invalid"),
    ],
)
def test_a_refused_or_malformed_answer_says_why_and_is_paid_for_once(anthropic_server, reply, code):
    server = anthropic_server(lambda *_: reply)
    for _ in range(2):
        (found,) = ask(requests(1)).values()
        assert found.content is None
        assert found.error.startswith(f"{code}: ")
        assert found.usage["output_tokens"] == 20
    assert len(server.bodies) == 1


def test_one_rejected_request_is_an_answer_and_is_asked_again_next_time(anthropic_server):
    def respond(body: dict, attempt: int) -> Reply:
        if body["messages"][0]["content"] == "question 1" and attempt == 1:
            return error(400, "invalid_request_error", "prompt is too long")
        return answer(GOOD)

    anthropic_server(respond)
    found = ask(requests(3))
    assert (found["1"].content, found["1"].error) == (None, "bad_request: prompt is too long")
    assert (found["0"].content, found["2"].content) == (GOOD, GOOD)
    assert ask(requests(3))["1"].content == GOOD


def test_when_all_requests_are_rejected_the_error_points_at_the_settings(anthropic_server):
    server = anthropic_server(lambda *_: error(400, "invalid_request_error", "effort: not supported"))
    with pytest.raises(TeacherError, match=r"a rejection of each of the first 5 requests: .*effort: not supported"):
        ask(requests(50), max_concurrency=2)
    assert len(server.bodies) < 12


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (error(401, "authentication_error", "invalid key"), r"status 401: invalid key .*ANTHROPIC_API_KEY"),
        (error(402, "billing_error", "no credit"), r"status 402: no credit .*billing"),
        (error(403, "permission_error", "not yours"), r"status 403: not yours .*teacher\.model"),
        (error(404, "not_found_error", "model: claude-test"), r"status 404: model: claude-test .*teacher\.model"),
        (error(429, "rate_limit_error", "slow down", retry_after_ms="1"), r"status 429: .*teacher\.max_concurrency"),
        (error(529, "overloaded_error", "busy", retry_after_ms="1"), r"status 529: busy"),
        (Reply(200, b"", drop=True), r"onnection"),
        (Reply(200, b"<html>a proxy</html>", {"content-type": "text/html"}), r"Messages API.*ANTHROPIC_BASE_URL"),
        (Reply(200, b'{"id": "msg', {"content-type": "application/json"}), r"no JSON.*ANTHROPIC_BASE_URL"),
        (Reply(200, b'{"hello": 1}', {"content-type": "application/json"}), r"Messages API.*ANTHROPIC_BASE_URL"),
    ],
)
def test_a_systemic_error_is_one_line_that_says_what_to_do(anthropic_server, reply, words):
    anthropic_server(lambda *_: reply)
    with pytest.raises(TeacherError, match=words) as caught:
        ask(requests(2), max_retries=1)
    assert "\n" not in str(caught.value)
    assert "test-key" not in str(caught.value)


def test_a_request_over_the_time_limit_is_a_systemic_fault(anthropic_server):
    anthropic_server(lambda *_: answer(GOOD, delay_s=2.0))
    with pytest.raises(TeacherError, match="timed out"):
        ask(requests(1), max_retries=0, timeout_s=0.2)


@pytest.mark.parametrize(
    "bad",
    [
        Reply(200, b"", drop=True),
        Reply(200, b'{"id": "msg', {"content-type": "application/json"}),
        Reply(200, b'{"id": "msg_1"}', cut_at=9),
    ],
    ids=["cut before the headers", "half a body that says it is whole", "cut in the body"],
)
def test_what_is_lost_on_the_way_is_asked_for_again(anthropic_server, bad):
    server = anthropic_server(lambda _, attempt: bad if attempt == 1 else answer(GOOD))
    assert ask(requests(1), timeout_s=1.0)["0"].content == GOOD
    assert len(server.bodies) == 2


def test_a_service_that_asks_to_wait_for_an_hour_is_not_waited_for(anthropic_server):
    anthropic_server(lambda *_: error(429, "rate_limit_error", "the month is used up", retry_after="3600"))
    with pytest.raises(TeacherError, match=r"status 429: the month is used up \(.*it asks to wait 3600 s\)"):
        ask(requests(3), max_retries=10)


def test_a_systemic_error_does_not_wait_for_requests_between_retries(anthropic_server):
    def respond(body: dict, _: int) -> Reply:
        if body["messages"][0]["content"] == "question 0":
            return error(429, "rate_limit_error", "later", retry_after="100")
        while len(server.bodies) < 2:
            time.sleep(0.01)
        return error(401, "authentication_error", "revoked")

    server = anthropic_server(respond)
    began = time.monotonic()
    with pytest.raises(TeacherError, match="401"):
        ask(requests(2))
    assert time.monotonic() - began < 20


def test_answers_in_flight_are_kept_when_the_key_stops_working(anthropic_server):
    gate = threading.Event()
    numbers = itertools.count(1)
    refused: list[str] = []

    def respond(body: dict, _: int) -> Reply:
        if next(numbers) < 4:
            gate.wait(10)
            return answer(GOOD)
        refused.append(body["messages"][0]["content"])
        threading.Timer(0.5, gate.set).start()
        return error(401, "authentication_error", "revoked")

    server = anthropic_server(respond)
    with pytest.raises(TeacherError, match="401"):
        ask(requests(40), max_concurrency=4)
    assert len(server.bodies) == 4
    server.respond = lambda *_: answer(GOOD)
    assert len(ask(requests(4))) == 4
    assert server.prompts[4:] == refused


def test_without_a_key_the_error_names_the_alternative(anthropic_server, monkeypatch):
    server = anthropic_server(lambda *_: answer(GOOD))
    for missing in ("", "  "):
        monkeypatch.setenv("ANTHROPIC_API_KEY", missing)
        with pytest.raises(TeacherError, match=r"ANTHROPIC_API_KEY.*groups\.teacher=recorded"):
            ask(requests(1))
    assert not server.bodies


def test_an_impossible_base_url_is_one_line(monkeypatch, tmp_path):
    monkeypatch.setenv("PLD_CACHE", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    for url in ("http://[", "nonsense"):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        with pytest.raises(TeacherError, match=r"expected .* \(anthropic:claude-test"):
            ask(requests(1), max_retries=0)


def test_as_many_requests_are_in_flight_as_is_set_and_no_more(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD, delay_s=0.05))
    ask(requests(16), max_concurrency=3)
    assert server.most_in_flight == 3


def test_a_caller_that_stops_early_ends_the_requests_and_keeps_what_was_answered(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD, delay_s=0.05))
    answers = teacher(max_concurrency=2).ask(requests(50))
    next(answers)
    answers.close()
    paid = len(server.bodies)
    assert paid < 10
    time.sleep(0.2)
    assert len(server.bodies) == paid
    ask(requests(50), max_concurrency=8)
    assert len(server.bodies) == 50


SCRIPT = """
import json, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
from pld.adapters.teachers.anthropic import AnthropicTeacher
from pld.ports import TeacherRequest
schema = json.loads(sys.argv[1])
teacher = AnthropicTeacher(
    way="messages", model="claude-test", max_tokens=512, effort=None, temperature=None, roles={}, max_concurrency=2,
    max_retries=2, timeout_s=5.0, poll_s=1.0)
wanted = [TeacherRequest(str(i), "extract", "the task", f"question {i}", schema) for i in range(12)]
for answer in teacher.ask(wanted):
    print(answer.key, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_process_that_is_stopped_midway_has_lost_no_answer_that_it_used(anthropic_server, how):
    gate = threading.Event()
    numbers = itertools.count(1)

    def respond(*_: object) -> Reply:
        if next(numbers) > 6:
            gate.wait(10)
        return answer(GOOD, delay_s=0.02)

    server = anthropic_server(respond)
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, json.dumps(SCHEMA)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    used = [child.stdout.readline().strip() for _ in range(6)]
    while len(server.bodies) < 8 and child.poll() is None:  # two more are in flight, and held
        time.sleep(0.02)
    child.send_signal(how)
    if how == signal.SIGINT:
        time.sleep(1.0)
    gate.set()
    child.communicate(timeout=20)
    assert child.returncode != 0
    asked_before = len(server.bodies)
    assert asked_before == 8
    assert len(ask(requests(12))) == 12
    again = {prompt.removeprefix("question ") for prompt in server.prompts[asked_before:]}
    assert not again & set(used)
    # killed: the two in flight are lost and asked again; interrupted: they were awaited and kept
    assert len(again) == (6 if how == signal.SIGKILL else 4)


@pytest.mark.slow
def test_two_processes_at_once_share_the_store_and_pay_once(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD, delay_s=0.01))
    children = [
        subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps(SCHEMA)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for child in children:
        assert sorted(child.communicate(timeout=30)[0].split(), key=int) == [str(i) for i in range(12)]
        assert child.returncode == 0
    assert len(server.bodies) == 12


@pytest.mark.key
@pytest.mark.enable_socket
@pytest.mark.skipif(KEY is None, reason="needs ANTHROPIC_API_KEY")
def test_the_real_service_answers_by_the_schema(monkeypatch, tmp_path):
    import yaml

    from pld.config.build import build

    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("PLD_CACHE", str(tmp_path))
    section = yaml.safe_load(Path("conf/teacher/anthropic.yaml").read_text())
    request = TeacherRequest("k", "extract", "Answer with one rule.", "Fire is warm. Gold label: red", SCHEMA)
    (found,) = build(section, "teacher").ask([request])
    assert found.content["label"] == "red"
