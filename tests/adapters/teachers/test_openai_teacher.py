"""OpenAICompatibleTeacher behind the real SDK, against a local server that speaks chat completions."""

import builtins
import json
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from pld.adapters.teachers.openai_compatible import OpenAICompatibleTeacher
from pld.config.build import build
from pld.errors import ConfigError, TeacherError
from pld.ports import TeacherAnswer, TeacherRequest
from support.local_server import Reply
from support.openai_server import completion, refused

SCHEMA = {
    "type": "object",
    "properties": {"rule": {"type": "string"}, "label": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["rule", "label"],
    "additionalProperties": False,
}
GOOD = {"rule": "If it is warm, answer red.", "label": "red"}


def requests(count: int, draw: int = 0, role: str = "extract") -> list[TeacherRequest]:
    return [TeacherRequest(str(i), role, "the task", f"question {i}", SCHEMA, draw) for i in range(count)]


def teacher(**settings: object) -> OpenAICompatibleTeacher:
    given = {"base_url": None, "model": "toy", "api_key_variable": "MY_KEY", "max_tokens": 512, "temperature": None}
    more = {"max_tokens_field": "max_tokens", "roles": {}, "extra_body": {}}
    transport = {"max_concurrency": 4, "max_retries": 2, "timeout_s": 5.0}
    return OpenAICompatibleTeacher(**{**given, **more, **transport, **settings})  # type: ignore[arg-type]


def ask(wanted: Sequence[TeacherRequest], **settings: object) -> dict[str, TeacherAnswer]:
    return {found.key: found for found in teacher(**settings).ask(wanted)}


def test_every_request_gets_its_own_answer_with_what_it_cost_under_the_names_of_the_messages_api(openai_server):
    openai_server(lambda body, _: completion({**GOOD, "rule": body["messages"][1]["content"]}, cached=60))
    found = ask(requests(6))
    assert {key: item.content["rule"] for key, item in found.items()} == {str(i): f"question {i}" for i in range(6)}
    usage = {"input_tokens": 40, "cache_read_input_tokens": 60, "output_tokens": 20}
    assert all(item.usage == usage for item in found.values())


def test_schema_settings_and_key_are_sent_as_these_servers_expect(openai_server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sesame")
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "of another service")
    server = openai_server(lambda *_: completion(GOOD))
    ask(requests(1), temperature=0.5, extra_body={"chat_template_kwargs": {"enable_thinking": False}})
    assert server.bodies == [
        {
            "model": "toy",
            "messages": [{"role": "system", "content": "the task"}, {"role": "user", "content": "question 0"}],
            "max_tokens": 512,
            "temperature": 0.5,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
            },
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]
    assert [own.path for own in server.requests] == ["/v1/chat/completions"]
    assert server.headers[0]["authorization"] == "Bearer sesame"
    assert "of another service" not in json.dumps(server.headers)


def test_the_limit_travels_as_the_field_that_is_set_and_roles_have_settings_of_their_own(openai_server):
    server = openai_server(lambda *_: completion(GOOD))
    ask(requests(1), max_tokens_field="max_completion_tokens")
    section = yaml.safe_load(Path("conf/teacher/openai.yaml").read_text())
    built = build(section | {"roles": {"consolidate": {"model": "bigger", "max_tokens": 99}}}, "teacher")
    list(built.ask(requests(1, role="consolidate")))
    assert "max_tokens" not in server.bodies[0]
    assert server.bodies[0]["max_completion_tokens"] == 512
    assert (server.bodies[1]["model"], server.bodies[1]["max_tokens"]) == ("bigger", 99)
    assert built.name == f"openai:{section['model']}"


def test_only_later_draws_have_a_seed(openai_server):
    server = openai_server(lambda *_: completion(GOOD))
    for draw in (0, 1, 2):
        ask(requests(1, draw))
    assert [body.get("seed") for body in server.bodies] == [None, 1, 2]


def test_a_rerun_asks_nothing(openai_server):
    server = openai_server(lambda *_: completion(GOOD))
    first = ask(requests(3))
    assert ask(requests(3), max_concurrency=1, max_retries=9, timeout_s=99.0, api_key_variable="OTHER") == first
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    "change", [{"model": "other"}, {"max_tokens": 513}, {"temperature": 1.0}, {"extra_body": {"top_p": 0.9}}]
)
def test_an_answer_is_not_reused_under_settings_that_determine_it(openai_server, change):
    server = openai_server(lambda *_: completion(GOOD))
    ask(requests(1))
    ask(requests(1), **change)
    assert len(server.bodies) == 2


def test_one_server_has_one_address_however_it_is_given_and_another_server_is_asked_anew(openai_server, monkeypatch):
    server = openai_server(lambda *_: completion(GOOD))
    ask(requests(1))
    monkeypatch.delenv("OPENAI_BASE_URL")
    ask(requests(1), base_url=f"{server.url}/")
    assert len(server.bodies) == 1
    other = openai_server(lambda *_: completion({**GOOD, "label": "blue"}))
    assert ask(requests(1))["0"].content["label"] == "blue"
    assert len(other.bodies) == 1


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        (completion('{"rule": "If', "length"), "truncated: stopped at max_tokens 512"),
        (completion(None, refusal="I can't\nhelp"), "refusal: the model declined (I can't help)"),
        (completion("", "content_filter"), "refusal: the model declined"),
        (completion(None), "empty: "),
        (completion("  "), "empty: "),
        (completion('{"rule": "If'), "invalid: not JSON"),
        (completion(f"```json\n{json.dumps(GOOD)}\n```"), "invalid: not JSON"),
        (completion({**GOOD, "label": "green"}), "invalid: $.label"),
        (completion({"rule": "If it is warm, answer red."}), "invalid: "),
    ],
)
def test_a_refused_or_malformed_answer_says_why_and_is_paid_for_once(openai_server, reply, code):
    server = openai_server(lambda *_: reply)
    for _ in range(2):
        (found,) = ask(requests(1)).values()
        assert found.content is None
        assert found.error.startswith(code)
        assert found.usage["output_tokens"] == 20
    assert len(server.bodies) == 1


def test_reasoning_content_is_ignored(openai_server):
    openai_server(lambda *_: completion(GOOD, reasoning_content="Hmm. {"))
    assert ask(requests(1))["0"].content == GOOD


def test_a_server_that_does_not_count_is_taken_to_have_used_the_most(openai_server):
    bare = json.loads(completion(GOOD).body)
    del bare["usage"]
    openai_server(lambda *_: Reply(200, json.dumps(bare).encode()))
    usage = ask(requests(1))["0"].usage
    assert usage["output_tokens"] == 512
    assert usage["input_tokens"] > 1000


@pytest.mark.parametrize(
    "bad",
    [
        refused(429, "slow down", retry_after="0.02"),
        refused(529, "busy", retry_after="0.02"),
        refused(503, "loading model"),
        Reply(200, b"", drop=True),
        Reply(200, b'{"id": "c', {"content-type": "application/json"}),
        Reply(200, b'{"id": "c1"}', cut_at=7),
    ],
    ids=["429", "529", "503", "cut before the headers", "half a body that says it is whole", "cut in the body"],
)
def test_a_request_that_fails_on_the_way_is_made_again(openai_server, bad):
    server = openai_server(lambda _, attempt: bad if attempt == 1 else completion(GOOD))
    assert ask(requests(1))["0"].content == GOOD
    assert len(server.bodies) == 2


def test_one_rejected_request_is_an_answer_and_is_asked_again_next_time(openai_server):
    def respond(body: dict, attempt: int) -> Reply:
        if body["messages"][1]["content"] == "question 1" and attempt == 1:
            return refused(400, "the request exceeds the context size")
        return completion(GOOD)

    openai_server(respond)
    found = ask(requests(3))
    assert (found["1"].content, found["1"].error) == (None, "bad_request: the request exceeds the context size")
    assert ask(requests(3))["1"].content == GOOD


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (refused(401, "Invalid API Key"), r"status 401: Invalid API Key .*openai:toy.*MY_KEY"),
        (refused(403, "not yours"), r"status 403: not yours .*MY_KEY"),
        (refused(404, "no such model"), r"status 404: no such model .*teacher\.model .*teacher\.base_url"),
        (refused(429, "quota", retry_after="3600"), r"status 429: quota .*it asks to wait 3600 s"),
        (refused(500, "broken"), r"status 500: broken .*teacher\.base_url"),
        (Reply(200, b"", drop=True), r"Connection error.*teacher\.base_url"),
        (Reply(200, b'{"id": "c'), r"no JSON"),
        (Reply(200, b"<html>a proxy</html>", {"content-type": "text/html"}), r"chat completion.*teacher\.base_url"),
        (Reply(200, b'{"hello": 1}'), r"chat completion.*teacher\.base_url"),
        (completion(GOOD, delay_s=3.0), r"timed out.*teacher\.timeout_s"),
    ],
)
def test_a_systemic_error_is_one_line_that_says_what_to_do(openai_server, monkeypatch, reply, words):
    monkeypatch.setenv("MY_KEY", "sesame")
    openai_server(lambda *_: reply)
    with pytest.raises(TeacherError, match=words) as caught:
        ask(requests(2), max_retries=0, timeout_s=1.0)
    assert "\n" not in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_a_systemic_error_does_not_wait_for_requests_between_retries(openai_server):
    def respond(body: dict, _: int) -> Reply:
        if body["messages"][1]["content"] == "question 0":
            return refused(429, "later", retry_after="100")
        while len(server.bodies) < 2:
            time.sleep(0.01)
        return refused(401, "revoked")

    server = openai_server(respond)
    began = time.monotonic()
    with pytest.raises(TeacherError, match="401"):
        ask(requests(2))
    assert time.monotonic() - began < 20


def test_an_address_is_needed_and_has_to_be_one(monkeypatch, tmp_path):
    monkeypatch.setenv("PLD_CACHE", str(tmp_path))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ConfigError, match=r"teacher\.base_url and OPENAI_BASE_URL; set one"):
        ask(requests(1))
    with pytest.raises(ConfigError, match=r"expected a client.*teacher\.base_url"):
        ask(requests(1), base_url="http://host:port")


def test_without_the_extra_it_says_what_to_install(openai_server, monkeypatch):
    openai_server(lambda *_: completion(GOOD))
    real = builtins.__import__

    def without(name: str, *more: object) -> object:
        if name == "openai":
            raise ImportError(name)
        return real(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match="expected the package openai, got none; install pld's extra openai"):
        ask(requests(1))


def test_no_address_is_in_its_name_or_in_the_store(openai_server, tmp_path):
    server = openai_server(lambda *_: completion(GOOD))
    asked = teacher()
    list(asked.ask(requests(1)))
    assert asked.name == "openai:toy"
    port = server.url.rsplit(":", 1)[1].removesuffix("/v1")
    assert all(port.encode() not in path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())
