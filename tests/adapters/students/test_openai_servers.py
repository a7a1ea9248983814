"""The Student behind a scripted server with known probabilities: each kind of server, and failures."""

import json
import socket
import time
import warnings

import numpy as np
import pytest

from pld.adapters.students.openai_compatible import OpenAICompatibleStudent
from pld.errors import StudentError
from pld.records import Message
from support.local_server import Reply, json_reply
from support.openai_server import MODEL, ScriptedOpenAIServer, label_logprob, refused

KINDS = ["vllm", "sglang", "llama_cpp"]
SYSTEM = [Message(role="system", content="say a colour")]
LABELS = ["red", "blue", "blueish", "green"]


def student(server, **changes):
    settings = {
        "name": "toy-student",
        "server": server.kind,
        "base_url": server.url,
        "model": MODEL,
        "api_key_variable": "PLD_STUDENT_API_KEY",
        "choice": "logprobs",
        "top_logprobs": 28,
        "max_concurrency": 4,
        "max_retries": 2,
        "timeout_s": 5.0,
        "extra_body": {},
    }
    return OpenAICompatibleStudent(**(settings | changes))


def turns(text):
    return [{"role": "system", "content": SYSTEM[0].content}, {"role": "user", "content": text}]


def failing(status, attempts, **headers):
    """A server of which the chat fails for the first `attempts` of each request."""

    def respond(path, body, attempt):
        return refused(status, "busy", **headers) if "chat" in path and attempt <= attempts else None

    return ScriptedOpenAIServer(respond=respond)


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_sums_the_labels_tokens_and_its_end_where_labels_nest(kind):
    with ScriptedOpenAIServer(kind) as server:
        flat = ["red", "blue", "grey"]
        scores = student(server).score(SYSTEM, ["sky", "grass"], flat)
        wanted = [[label_logprob(turns(text), label) for label in flat] for text in ("sky", "grass")]
        np.testing.assert_allclose(scores, wanted, atol=1e-9)
        nested = student(server).score(SYSTEM, ["sky"], LABELS)
        assert (nested < [label_logprob(turns("sky"), label) for label in LABELS]).all()


@pytest.mark.parametrize(("kind", "knows_asked"), [("vllm", True), ("llama_cpp", True)])
def test_a_token_outside_the_top_logprobs_is_requested_separately(kind, knows_asked):
    with ScriptedOpenAIServer(kind, knows_asked=knows_asked) as server:
        scores = student(server, top_logprobs=1).score(SYSTEM, ["sky"], ["red", "grey"])
        np.testing.assert_allclose(
            scores, [[label_logprob(turns("sky"), label) for label in ("red", "grey")]], atol=1e-9
        )


@pytest.mark.parametrize(("kind", "knows_asked"), [("vllm", False), ("sglang", True)])
def test_a_token_that_cannot_be_requested_gets_an_upper_bound_that_decides_no_row(kind, knows_asked):
    texts = [f"text {i}" for i in range(40)]
    labels = ["r", "b", "g"]
    with ScriptedOpenAIServer(kind, knows_asked=knows_asked) as server, pytest.warns(UserWarning, match="upper bounds"):
        scores = student(server, top_logprobs=9).score(SYSTEM, texts, labels)
    true = np.array([[label_logprob(turns(text), label) for label in labels] for text in texts])
    decided = ~np.isnan(scores).any(axis=1)
    assert 0 < decided.sum() < len(texts)
    assert np.isnan(scores[~decided]).all()
    assert (scores[decided] >= true[decided] - 1e-9).all()
    assert (scores[decided] > true[decided] + 1e-6).any()
    assert (scores[decided].argmax(axis=1) == true[decided].argmax(axis=1)).all()
    best = scores[decided].argmax(axis=1)
    np.testing.assert_allclose(scores[decided].max(axis=1), true[decided][np.arange(len(best)), best], atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "constraint"),
    [
        ("vllm", {"structured_outputs": {"choice": ["red", "blue"]}}),
        ("sglang", {"regex": "(red|blue)"}),
        ("llama_cpp", {"grammar": 'root ::= "red" | "blue"'}),
    ],
)
def test_a_constrained_answer_gives_a_ranking_of_finite_scores(kind, constraint):
    with ScriptedOpenAIServer(kind) as server:
        scores = student(server, choice="constrained").score(SYSTEM, ["sky"], ["red", "blue"])
        assert scores.tolist() == [[-1.0, 0.0]]
        (body,) = server.chats()
        assert body.items() >= constraint.items()
        assert body["temperature"] == 0


def test_an_answer_against_the_constraint_is_an_error():
    with (
        ScriptedOpenAIServer() as server,
        pytest.raises(StudentError, match=r"expected one of red, green, got 'blue'.*check student\.server"),
    ):
        student(server, choice="constrained").score(SYSTEM, ["sky"], ["red", "green"])


@pytest.mark.parametrize("kind", KINDS)
def test_prefill_bypasses_the_servers_cache_and_label_beginnings_are_continued(kind):
    with ScriptedOpenAIServer(kind) as server:
        made = student(server)
        made.prefill(SYSTEM)
        made.prefill(SYSTEM)
        first, second = server.chats()
        if kind == "llama_cpp":
            assert first["cache_prompt"] is second["cache_prompt"] is False
        else:
            assert first["cache_salt"] != second["cache_salt"]
        made.score(SYSTEM, ["sky"], ["red", "rose"])
        continued = [body for body in server.chats() if body["messages"][-1]["role"] == "assistant"]
        assert {body["messages"][-1]["content"] for body in continued} == {"r", "re", "ro", "ros"}
        assert all(body["continue_final_message"] and not body["add_generation_prompt"] for body in continued)


@pytest.mark.parametrize(("default_system", "first"), [("be nice", "system"), (None, "user")])
def test_a_templates_default_system_text_is_replaced_by_an_empty_one(default_system, first):
    with ScriptedOpenAIServer(default_system=default_system) as server:
        student(server).score([], ["sky"], ["red", "blue"])
    assert {body["messages"][0]["role"] for body in server.chats()} == {first}


@pytest.mark.parametrize("kind", KINDS)
def test_token_counts_are_the_servers(kind):
    with ScriptedOpenAIServer(kind) as server:
        made = student(server)
        opening = 3 if kind == "sglang" else 0  # {a:
        assert made.count_text_tokens("red") == 3
        assert made.count_tokens([]) == 0
        assert made.count_tokens(SYSTEM) == len("{s:say a colour}") + opening
        shot = [*SYSTEM, Message(role="user", content="u"), Message(role="assistant", content="red")]
        assert made.count_tokens(shot) == len("{s:say a colour}{u:u}{a:red}") + opening


def test_a_chat_that_leaves_no_room_for_an_answer_gets_no_text():
    with ScriptedOpenAIServer() as server:
        found = student(server).generate([SYSTEM, [Message(role="user", content="x" * 150)]], max_tokens=60)
    assert [bool(item.text) for item in found] == [True, False]
    assert not found[1].finished
    assert found[1].tokens == 0


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_retried(status):
    with failing(status, 2, retry_after_ms="20") as server:
        scores = student(server, top_logprobs=28).score(SYSTEM, ["sky"], ["red", "blue"])
        assert np.isfinite(scores).all()


def test_retry_after_is_obeyed():
    with failing(429, 1, retry_after="1") as server:
        started = time.monotonic()
        student(server).generate([SYSTEM], 1)
        assert time.monotonic() - started >= 1.0
        assert len(server.chats()) == 2


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(429, "lower student.max_concurrency"), (500, "look into the server"), (400, "student.extra_body")],
)
def test_a_server_that_stays_busy_or_refuses_is_a_one_line_error(status, remedy):
    with failing(status, 99, retry_after_ms="1") as server, pytest.raises(StudentError) as raised:
        student(server).score(SYSTEM, [f"text {i}" for i in range(50)], ["red", "blue"])
    line = str(raised.value)
    assert f"status {status}: " in line
    assert remedy in line
    assert "\n" not in line
    assert len(server.chats()) < 50  # what waited was dropped


@pytest.mark.parametrize(
    "garbage",
    [
        Reply(200, b"<html>hello</html>", {"content-type": "text/html"}),
        Reply(200, b"{not json"),
        json_reply({"choices": []}),
        json_reply({"choices": None}),
        json_reply(["x"]),
        json_reply({"choices": [{"index": 0, "message": None}]}),
        json_reply({"choices": [{"index": 0, "message": {"content": "x"}, "logprobs": None}]}),
        json_reply({"choices": [{"index": 0, "message": {"content": "x"}, "logprobs": {"content": []}}]}),
    ],
    ids=str,
)
def test_a_malformed_answer_is_a_one_line_error(garbage):
    def respond(path, body, attempt):
        return garbage if "chat" in path else None

    with ScriptedOpenAIServer(respond=respond) as server, pytest.raises(StudentError, match="toy-student") as raised:
        student(server, max_retries=0).score(SYSTEM, ["sky"], ["red", "blue"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("path", ["/v1/models", "/tokenize", "/apply-template"])
@pytest.mark.parametrize(
    "garbage", [json_reply({}), json_reply([]), Reply(200, b"hello", {"content-type": "text/plain"})], ids=str
)
def test_a_server_of_another_kind_is_a_one_line_error(path, garbage):
    def respond(asked, body, attempt):
        return garbage if asked == path else None

    with ScriptedOpenAIServer(respond=respond) as server, pytest.raises(StudentError, match=r"check|set") as raised:
        student(server, max_retries=0).score(SYSTEM, ["sky"], ["red", "blue"])
    assert "\n" not in str(raised.value)


def test_an_absent_or_silent_server_is_an_error_with_a_remedy():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ScriptedOpenAIServer() as server:
        gone = student(server, base_url=f"http://127.0.0.1:{port}/v1", max_retries=1)
    with pytest.raises(StudentError, match=r"(?i)refused.*start the server, or set student\.base_url"):
        gone.score(SYSTEM, ["sky"], LABELS)

    def respond(path, body, attempt):
        return json_reply({}, delay_s=0.5) if "chat" in path else None

    with (
        ScriptedOpenAIServer(respond=respond) as server,
        pytest.raises(StudentError, match=r"within 0\.1 s.*timed out.*student\.timeout_s"),
    ):
        student(server, timeout_s=0.1, max_retries=0).generate([SYSTEM], 1)


def test_a_dropped_connection_is_retried():
    def respond(path, body, attempt):
        return Reply(200, b"", drop=True) if "chat" in path and attempt == 1 else None

    with ScriptedOpenAIServer(respond=respond) as server:
        assert np.isfinite(student(server).score(SYSTEM, ["sky"], ["r", "b"])).all()


def test_only_the_key_of_the_named_variable_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "another service's")
    monkeypatch.setenv("OPENAI_ORG_ID", "another service's")
    monkeypatch.setenv("MY_KEY", "sesame")
    with ScriptedOpenAIServer() as server:
        student(server, api_key_variable="MY_KEY").generate([SYSTEM], 1)
        student(server, api_key_variable="UNSET").generate([SYSTEM], 1)
    sent = json.dumps([own.headers for own in server.requests])
    assert "another service" not in sent
    assert {own.headers["authorization"] for own in server.requests} == {"Bearer sesame", "Bearer none"}


def test_the_address_comes_from_the_settings_or_the_environment(monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with ScriptedOpenAIServer() as server:
        with pytest.raises(StudentError, match=r"student\.base_url and OPENAI_BASE_URL .*; set one"):
            student(server, base_url=None).count_text_tokens("a")
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        assert student(server, base_url=None).count_text_tokens("a") == 1


def test_a_model_that_is_not_served_is_an_error_that_lists_the_served_ones():
    with (
        ScriptedOpenAIServer() as server,
        pytest.raises(StudentError, match=r"the model 'other', got toy .*; set student\.model"),
    ):
        student(server, model="other").score(SYSTEM, ["sky"], LABELS)


def test_concurrency_is_limited_and_equal_inputs_are_requested_once():
    with ScriptedOpenAIServer(respond=lambda *_: time.sleep(0.01)) as server:
        finished = []
        texts = [f"text {i % 10}" for i in range(30)]
        scores = student(server, max_concurrency=3).score(SYSTEM, texts, ["r", "b"], finished.append)
    assert server.most_in_flight == 3
    assert len(server.chats()) == 10
    assert sum(finished) == 30
    assert (scores[:10] == scores[10:20]).all()


def test_extra_body_is_sent_with_every_request():
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    with ScriptedOpenAIServer() as server:
        student(server, extra_body=extra).score(SYSTEM, ["sky"], ["r", "b"])
    posted = [own.body for own in server.requests if own.path != "/v1/models"]
    assert all(body.items() >= extra.items() for body in posted)


def test_a_label_whose_beginnings_are_tokenised_differently_is_refused():
    def respond(path, body, attempt):
        # "re" becomes one token, so nothing can be asked after the "r" and "e" of "red"
        text = body.get("content", "")
        if path == "/tokenize" and text.endswith("{a:re"):
            return json_reply({"tokens": [*map(ord, text[:-2]), 999]})
        return None

    with (
        ScriptedOpenAIServer(respond=respond) as server,
        pytest.raises(StudentError, match=r"label 'red'.*choice=constrained"),
    ):
        student(server).score(SYSTEM, ["sky"], ["red", "blue"])


def test_complete_top_logprobs_cause_no_warning():
    with ScriptedOpenAIServer("sglang") as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        student(server, top_logprobs=28).score(SYSTEM, ["sky"], ["red", "blue"])


def test_a_probability_that_underflows_is_a_bound():
    def respond(path, body, attempt):
        if "chat" not in path:
            return None
        entries = [
            {"token": letter, "id": ord(letter), "logprob": value} for letter, value in (("r", -1.0), ("b", -3e38))
        ]
        content = [{**entries[0], "top_logprobs": entries}]
        return json_reply({"choices": [{"index": 0, "message": {"content": "r"}, "logprobs": {"content": content}}]})

    with ScriptedOpenAIServer(respond=respond) as server, pytest.warns(UserWarning, match="upper bounds"):
        assert student(server).score(SYSTEM, ["sky"], ["r", "b"]).tolist() == [[-1.0, -103.0]]
