"""`way: batches` behind the real SDK, against a local server that speaks the Message Batches API."""

import json
import random
import threading
import time

import pytest

from pld.adapters.teachers import batches
from pld.adapters.teachers.answer_store import Spent
from pld.adapters.teachers.paid_teacher import most_tokens
from pld.errors import BudgetError, TeacherError
from pld.pricing import worst_usd
from support.anthropic_server import answer, error
from support.asked_batches import ONE_USD, PRICE, answers_of, ask, rules, spent
from support.batch_desk import wait_until
from support.batch_run import requests
from support.local_server import Reply


def test_requests_are_handed_in_together_and_each_gets_its_own_answer_for_half_the_price(server):
    found = ask(requests(20))
    assert rules(found) == answers_of(20)
    assert server.desk.sizes == [20]
    assert not server.bodies
    assert spent() == Spent(calls=20, usd=pytest.approx(20 * ONE_USD))


def test_a_request_in_a_batch_has_the_parameters_of_a_message_and_an_hour_of_cache(server):
    ask(requests(1), effort="low", temperature=0.5)
    ((params,),) = (batch.requests.values() for batch in server.desk.batches.values())
    assert params["system"] == [
        {"type": "text", "text": "the task", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    ]
    assert params["messages"] == [{"role": "user", "content": "question 0"}]
    assert (params["temperature"], params["output_config"]["effort"], params["max_tokens"]) == (0.5, "low", 50)


def test_results_may_come_twice_in_any_order_and_with_unknown_ids(server):
    def written(lines: list[str]) -> list[str]:
        stranger = {"custom_id": "stranger", "result": json.loads(lines[0])["result"]}
        both = [*lines, *lines, json.dumps(stranger)]
        random.Random(0).shuffle(both)
        return both

    server.desk.written = written
    assert rules(ask(requests(20))) == answers_of(20)
    assert spent().calls == 20


@pytest.mark.parametrize("fate", ["expired", "canceled", "api_error", "overloaded_error"])
def test_what_was_not_answered_is_asked_again_and_nothing_else(server, fate):
    unlucky = set[str]()

    def decide(key: str, times: int) -> str:
        if times == 1 and len(unlucky) < 2:
            unlucky.add(key)
            return fate
        return "succeeded"

    server.desk.fate = decide
    assert rules(ask(requests(20))) == answers_of(20)
    assert server.desk.sizes == [20, 2]
    assert set(server.desk.paid.values()) == {1}
    assert spent() == Spent(calls=20, usd=pytest.approx(20 * ONE_USD))


def test_a_request_that_no_batch_answers_ends_the_run_with_the_others_kept(server):
    stuck: list[str] = []
    server.desk.fate = lambda key, times: "expired" if key == (stuck or stuck.append(key) or stuck)[0] else "succeeded"
    with pytest.raises(TeacherError, match=r"1 request, got none in 3 batches \(the last time: expired\).*kept"):
        ask(requests(5))
    assert server.desk.sizes == [5, 1, 1]
    assert spent() == Spent(calls=4, usd=pytest.approx(4 * ONE_USD))


def test_one_request_that_is_rejected_is_an_answer_and_is_asked_again_next_time(server):
    server.respond = lambda body, _: (
        error(400, "invalid_request_error", "prompt is too long")
        if body["messages"][0]["content"] == "question 1"
        else answer({"rule": body["messages"][0]["content"]})
    )
    found = ask(requests(3))
    assert (found["1"].content, found["1"].error) == (None, "bad_request: prompt is too long")
    server.respond = lambda body, _: answer({"rule": body["messages"][0]["content"]})
    assert rules(ask(requests(3))) == answers_of(3)
    assert server.desk.sizes == [3, 1]


def test_a_truncated_answer_says_why_and_is_paid_for_once(server):
    server.respond = lambda *_: answer('{"rule": "If', "max_tokens")
    for _ in range(2):
        assert ask(requests(1))["0"].error == "truncated: stopped at max_tokens 50"
    assert server.desk.sizes == [1]


def test_an_error_of_the_account_in_every_batch_is_one_line_with_the_answers_kept(server):
    server.desk.fate = lambda key, times: "billing_error" if key[0] in "01234567" else "succeeded"
    with pytest.raises(TeacherError, match=r"got none in 3 batches \(the last time: billing_error: .*are kept"):
        ask(requests(30))
    kept = sum(server.desk.paid.values())
    assert spent().all_calls == spent().calls == kept > 0
    server.desk.fate = lambda key, times: "succeeded"
    assert rules(ask(requests(30))) == answers_of(30)
    assert server.desk.sizes == [30, *[30 - kept] * 3]


def test_results_that_break_off_are_fetched_again(server, monkeypatch):
    monkeypatch.setattr(batches, "_AT_ONCE", 4)
    server.desk.cut_results = 3
    assert rules(ask(requests(20))) == answers_of(20)
    assert server.desk.sizes == [20]
    assert spent().calls == 20


def test_results_that_never_come_whole_are_one_line_and_a_rerun_fetches_them(server):
    server.desk.cut_results = 1000
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_SILENCE_S", 0.1)
        with pytest.raises(TeacherError, match=r"expected word of 1 batches, .*run again, it takes them up"):
            ask(requests(20))
    server.desk.cut_results = 0
    assert rules(ask(requests(20))) == answers_of(20)
    assert server.desk.sizes == [20]


def test_a_provider_that_is_away_for_a_while_is_waited_for(server):
    server.desk.ends_after = 4

    def away() -> None:
        wait_until(lambda: len(server.desk.seen) >= 2)
        server.die()
        time.sleep(0.3)
        server.come_back()

    threading.Thread(target=away, daemon=True).start()
    assert rules(ask(requests(20), max_retries=0)) == answers_of(20)
    assert server.desk.sizes == [20]


def test_a_provider_that_stays_silent_is_one_line_and_the_next_run_takes_the_batch_up(server, monkeypatch, capsys):
    monkeypatch.setattr(batches, "_SILENCE_S", 0.1)
    server.desk.on_create = lambda number: setattr(server, "down", True) or True
    with pytest.raises(TeacherError, match=r"expected word of 1 batches.*go on at the provider.*run again") as caught:
        ask(requests(9), max_retries=0)
    assert "\n" not in str(caught.value)
    assert "batch msgbatch_001 is at the provider; the next run fetches its answers" in capsys.readouterr().err
    assert spent().open_calls == 9
    server.down = False
    assert rules(ask(requests(9))) == answers_of(9)
    assert server.desk.sizes == [9]
    assert spent() == Spent(calls=9, usd=pytest.approx(9 * ONE_USD))


@pytest.mark.parametrize(
    ("confirmed", "body"),
    [
        (True, b"<html>a proxy</html>"),
        (True, b'{"hello": 1}'),
        (False, b"<html>a proxy</html>"),
        (False, b'{"hello": 1}'),
        (False, b'{"data": [{"hello": 1}]}'),
        (False, b"[1]"),
    ],
)
def test_malformed_responses_are_retried_for_a_while_and_then_one_line(server, monkeypatch, confirmed, body):
    monkeypatch.setattr(batches, "_SILENCE_S", 0.1)
    server.desk.on_create = lambda number: confirmed
    reply = Reply(200, body, {"content-type": "text/html" if b"<" in body else "application/json"})
    server.desk.nonsense = lambda number: reply
    with pytest.raises(TeacherError, match=r"expected word of 1 batches") as caught:
        ask(requests(5), max_retries=1)
    assert "\n" not in str(caught.value)
    server.desk.nonsense, server.desk.on_create = lambda number: None, lambda number: True
    assert rules(ask(requests(5))) == answers_of(5)
    assert server.desk.sizes == [5]


def test_a_provider_that_answers_now_and_then_is_not_silent(server, monkeypatch):
    monkeypatch.setattr(batches, "_SILENCE_S", 0.1)
    server.desk.ends_after = 8
    server.desk.nonsense = lambda number: None if number % 3 else Reply(200, b"[1]")
    assert rules(ask(requests(3))) == answers_of(3)


def test_a_batch_whose_confirmation_was_lost_is_found_in_the_list_and_not_handed_in_twice(server):
    for first in (20, 30, 40):
        ask(requests(9, first=first))

    def others(number: int) -> None:
        theirs = [{"custom_id": f"theirs-{i}", "params": {"messages": [{"content": "x"}]}} for i in range(2)]
        if number == 4:
            server.desk.serve("POST", "/v1/messages/batches", {"requests": theirs}, server.url)

    server.desk.refuse_create = others
    server.desk.on_create = lambda number: number == 5  # theirs
    assert rules(ask(requests(9))) == answers_of(9)
    assert server.desk.sizes == [9, 9, 9, 2, 9]
    assert spent().calls == 36
    read = [line.split("/")[-2] for line in server.desk.seen if line.endswith("/results")]
    assert read == ["msgbatch_001", "msgbatch_002", "msgbatch_003", "msgbatch_005", "msgbatch_005"]


def test_a_batch_that_was_not_taken_is_handed_in_again(server):
    server.desk.refuse_create = lambda number: error(500, "api_error", "oops") if number == 1 else None
    assert rules(ask(requests(9))) == answers_of(9)
    assert server.desk.asked_to_create == 2
    assert server.desk.sizes == [9]


def test_no_other_batch_is_handed_in_before_one_that_was_not_confirmed_is_found(server, monkeypatch):
    monkeypatch.setattr(batches, "_MOST_REQUESTS", 3)
    server.desk.on_create = lambda number: number > 1
    assert rules(ask(requests(6))) == answers_of(6)
    assert server.desk.sizes == [3, 3]
    assert server.desk.seen[:2] == ["POST /v1/messages/batches", "GET /v1/messages/batches"]


@pytest.mark.parametrize("taken", [True, False])
def test_somebody_elses_batch_of_the_same_size_does_not_pass_for_ones_own(server, taken):
    def refuse(number: int) -> Reply | None:
        if number > 1:
            return None
        theirs = [{"custom_id": f"theirs-{i}", "params": {"messages": [{"content": "x"}]}} for i in range(9)]
        server.desk.serve("POST", "/v1/messages/batches", {"requests": theirs}, server.url)
        return None if taken else error(500, "api_error", "oops")

    server.desk.refuse_create = refuse
    server.desk.on_create = lambda number: number == 2  # theirs
    assert rules(ask(requests(9))) == answers_of(9)
    assert server.desk.sizes == [9, 9]
    assert spent().calls == 9


def test_a_busy_provider_is_asked_again_after_the_time_it_names(server):
    server.desk.refuse_create = lambda number: (
        error(429, "rate_limit_error", "slow down", retry_after_ms="20") if number < 3 else None
    )
    assert len(ask(requests(5))) == 5
    assert server.desk.asked_to_create == 3


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [(401, "authentication_error", "ANTHROPIC_API_KEY"), (400, "invalid_request_error", "conf/teacher/")],
)
def test_a_batch_that_is_rejected_is_one_line_and_reserves_nothing(server, status, kind, words):
    server.desk.refuse_create = lambda number: error(status, kind, "x")
    with pytest.raises(TeacherError, match=rf"got status {status}: .*x.*{words}"):
        ask(requests(5))
    assert spent() == Spent()


def test_without_a_key_no_batch_is_recorded(server, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(TeacherError, match="ANTHROPIC_API_KEY"):
        ask(requests(2))
    assert spent() == Spent()
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    assert len(ask(requests(2))) == 2


def test_more_requests_than_a_batch_takes_are_several(server, monkeypatch):
    monkeypatch.setattr(batches, "_MOST_REQUESTS", 3)
    assert rules(ask(requests(8))) == answers_of(8)
    assert server.desk.sizes == [3, 3, 2]
    monkeypatch.setattr(batches, "_MOST_BYTES", 2500)
    assert rules(ask(requests(4, first=10))) == answers_of(4, first=10)
    assert server.desk.sizes[3:] == [2, 2]


def test_a_batch_says_how_far_it_is(server, capsys):
    ask(requests(3))
    assert capsys.readouterr().err.splitlines() == [
        "batch msgbatch_001: 3 requests submitted, to be answered within 24 hours",
        "batch msgbatch_001: 3 of 3 processed",
    ]


def test_a_budget_of_calls_is_never_exceeded_and_a_larger_one_goes_on(server):
    with pytest.raises(BudgetError, match=r"expected 15 more calls .*got 10 calls .*budget\.calls 10 "):
        ask(requests(25), calls=10)
    assert sum(server.desk.paid.values()) == 10
    assert rules(ask(requests(25), calls=25)) == answers_of(25)
    assert server.desk.sizes == [10, 15]


def test_what_the_budget_does_not_allow_at_once_follows_when_real_costs_are_known(server):
    most = worst_usd(most_tokens(requests(1)[0]), 50, PRICE, "batches")
    assert most > 5 * ONE_USD
    server.desk.ends_after = 6
    assert rules(ask(requests(20), usd=8.5 * most)) == answers_of(20)
    assert len(server.desk.sizes) > 2
    assert server.desk.sizes[0] == 8
    assert set(server.desk.paid.values()) == {1}
