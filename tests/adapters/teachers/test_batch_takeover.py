"""Batches that a stopped, killed or other run left at the provider: taken up, waited for, never paid for twice."""

import os
import signal
import threading
import time
from collections import Counter

import pytest

from pld.adapters.teachers import batches
from pld.adapters.teachers.answer_store import Spent
from pld.adapters.teachers.paid_teacher import Terms
from pld.errors import BudgetError, TeacherError
from pld.params import BudgetParams
from support.anthropic_server import error
from support.asked_batches import ONE_USD, answers_of, ask, rules, spent
from support.batch_desk import wait_until
from support.batch_misbehaviour import run_batch_faults
from support.batch_run import requests, start, teacher


def leave_a_batch(server, count: int) -> None:
    """A run that ends while its batch is under way."""
    server.desk.on_create = lambda number: setattr(server, "down", True) or True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_SILENCE_S", -1.0)
        with pytest.raises(TeacherError):
            ask(requests(count), max_retries=0)
    server.down, server.desk.on_create = False, lambda number: True


def test_an_open_batch_of_other_settings_is_read_too_and_frees_its_part_of_the_budget(server):
    leave_a_batch(server, 6)
    assert len(ask(requests(4), effort="high", calls=10)) == 4
    assert server.desk.sizes == [6, 4]
    assert rules(ask(requests(6))) == answers_of(6)
    assert server.desk.sizes == [6, 4]
    assert spent().calls == 10


def test_money_that_a_batch_at_another_endpoint_reserves_is_not_waited_for(server, anthropic_server):
    leave_a_batch(server, 6)
    anthropic_server(server.respond)
    with pytest.raises(BudgetError, match=r"budget\.calls 8 "):
        ask(requests(4), calls=8)
    with pytest.raises(BudgetError, match=r"budget\.calls 10 "):
        ask(requests(5), calls=10, way="messages")


def test_messages_wait_for_what_an_open_batch_asks(server):
    leave_a_batch(server, 6)
    server.desk.ends_after = 3
    assert rules(ask(requests(8), way="messages")) == answers_of(8)
    assert sorted(server.prompts) == ["question 6", "question 7"]
    assert server.desk.sizes == [6]
    assert spent().calls == 8


def test_messages_ask_what_an_open_batch_did_not_answer(server):
    leave_a_batch(server, 6)
    server.desk.fate = lambda key, times: "expired"
    assert rules(ask(requests(6), way="messages")) == answers_of(6)
    assert len(server.bodies) == 6
    assert spent().calls == 6


def test_a_batch_whose_results_are_gone_counts_as_paid_for_and_is_asked_again(server, monkeypatch):
    leave_a_batch(server, 6)
    server.desk.batches.clear()
    with pytest.raises(TeacherError, match=r"in flight for task 't' .* use the key that submitted its batch"):
        ask(requests(6))
    monkeypatch.setattr(batches, "_RESULTS_LAST_S", 0.0)
    assert rules(ask(requests(6))) == answers_of(6)
    assert (spent().calls, spent().lost, spent().open_calls) == (6, 6, 0)


@pytest.mark.parametrize("way", ["batches", "messages"])
def test_a_batch_that_this_key_does_not_reach_stops_only_a_run_that_wants_something_of_it(server, way, capsys):
    leave_a_batch(server, 6)
    away = dict(server.desk.batches)
    server.desk.batches.clear()
    assert rules(ask(requests(3, first=6), way=way)) == answers_of(3, first=6)
    with pytest.raises(BudgetError, match=r"got 9 calls .*budget\.calls 9 "):
        ask(requests(3, first=9), way=way, calls=9)
    assert "batch msgbatch_001 is out of reach" in capsys.readouterr().err
    server.desk.batches |= away
    assert rules(ask(requests(6), way=way)) == answers_of(6)
    assert not server.prompts or "question 0" not in server.prompts


def test_a_caller_that_stops_early_leaves_the_batch_to_the_next_run(server, capsys, monkeypatch):
    monkeypatch.setattr(batches, "_MOST_REQUESTS", 4)
    answers = teacher(Terms("t", BudgetParams(usd=None, calls=None), None)).ask(requests(8))
    next(answers)
    answers.close()
    assert "the next run fetches its answers" in capsys.readouterr().err
    assert rules(ask(requests(8))) == answers_of(8)
    assert server.desk.sizes == [4, 4]
    assert set(server.desk.paid.values()) == {1}


def test_ctrl_c_cancels_the_batch_and_the_next_run_fetches_what_was_answered(server, tmp_path):
    server.desk.ends_after = 10**9
    run = start(10, said := tmp_path / "said")
    wait_until(lambda: len(server.desk.seen) > 3)
    os.kill(run.pid, signal.SIGINT)
    run.join(20)
    assert run.exitcode
    assert "batch msgbatch_001 is cancelled\n" in said.read_text()
    assert "the next run fetches its answers" in said.read_text()
    server.desk.ends_after = 1
    assert rules(ask(requests(10))) == answers_of(10)
    assert server.desk.sizes == [10, 5]
    assert set(server.desk.paid.values()) == {1}
    assert spent() == Spent(calls=10, usd=pytest.approx(10 * ONE_USD))


@pytest.mark.parametrize(
    "moment",
    ["taken, not confirmed", "in progress", pytest.param("in the middle of the results", marks=pytest.mark.slow)],
)
def test_a_process_that_is_killed_leaves_a_batch_that_the_next_one_takes_up(server, moment, tmp_path):
    confirm = threading.Event()
    if moment == "taken, not confirmed":
        server.desk.on_create = lambda number: confirm.wait(10)
    elif moment == "in progress":
        server.desk.ends_after = 10**9
    else:
        server.desk.results_delay_s = 5.0
    run = start(20, tmp_path / "said", _AT_ONCE=4)
    if moment == "in the middle of the results":
        wait_until(lambda: spent().calls)
    else:
        wait_until(lambda: server.desk.batches if moment.startswith("taken") else len(server.desk.seen) > 3)
    run.kill()
    run.join()
    confirm.set()
    server.desk.ends_after, server.desk.results_delay_s = 1, 0.0
    assert rules(ask(requests(20))) == answers_of(20)
    assert server.desk.sizes == [20]
    assert (spent().calls, spent().all_calls) == (20, 20)


@pytest.mark.slow
@pytest.mark.usefixtures("no_long_waits")
def test_killed_at_random_moments_it_ends_with_the_same_answers_each_paid_for_once(tmp_path):
    for row in run_batch_faults(10, tmp_path, ("kill",), pause_s=0.02, kills=5):
        assert row.same_answers, row
        assert (row.paid_twice, row.counted) == (0, 10), row


def test_a_second_process_waits_and_hands_in_only_what_the_first_did_not_ask(server, tmp_path):
    server.desk.ends_after = 10**9
    run = start(12, said := tmp_path / "said")
    wait_until(lambda: len(server.desk.batches) == 1)
    threading.Timer(0.5, lambda: setattr(server.desk, "ends_after", 1)).start()
    assert rules(ask(requests(15))) == answers_of(15)
    run.join(20)
    assert run.exitcode == 0
    assert said.read_text().count("question") == 12
    assert server.desk.sizes == [12, 3]
    assert spent().calls == 15


def test_a_batch_whose_process_is_killed_is_taken_up_by_the_one_that_waits(server, tmp_path):
    server.desk.ends_after = 10**9
    run = start(12, tmp_path / "said")
    wait_until(lambda: len(server.desk.batches) == 1)

    def kill() -> None:
        time.sleep(0.4)
        run.kill()
        run.join()
        server.desk.ends_after = 1

    threading.Thread(target=kill, daemon=True).start()
    assert rules(ask(requests(12), way="messages")) == answers_of(12)
    assert server.desk.sizes == [12]
    assert not server.bodies


def vanish(server, monkeypatch, hides):
    """The server answers 404 to the n-th look (from 1) at a batch or its results, where `hides(kind, n)`."""
    looks, serve = Counter(), server.desk.serve

    def served(method, path, body, url):
        at = path.partition("?")[0].removeprefix("/v1/messages/batches").strip("/")
        kind = "results" if at.endswith("/results") else "batch"
        looks[kind] += method == "GET" and bool(at)
        if method == "GET" and at and hides(kind, looks[kind]):
            return error(404, "not_found_error", "no such batch")
        return serve(method, path, body, url)

    monkeypatch.setattr(server.desk, "serve", served)


@pytest.mark.parametrize(
    "hides",
    [
        lambda kind, look: kind == "batch" and look <= 2,
        lambda kind, look: kind == "batch" and look in (1, 3),
        lambda kind, look: kind == "results" and look == 1,
    ],
    ids=["a batch just submitted", "a batch seen in between", "the results of a batch that has ended"],
)
@pytest.mark.parametrize("young_s", [60.0, 0.0], ids=["young", "old"])
def test_a_404_that_passes_is_waited_for(server, monkeypatch, hides, young_s):
    monkeypatch.setattr(batches, "_YOUNG_S", young_s)
    monkeypatch.setattr(batches, "_DOUBT_S", 30.0)
    server.desk.ends_after = 3
    vanish(server, monkeypatch, hides)
    assert rules(ask(requests(5))) == answers_of(5)
    assert server.desk.sizes == [5]
    assert sum(server.desk.paid.values()) == 5


def test_a_404_on_an_unconfirmed_batch_does_not_submit_it_again(server, monkeypatch):
    monkeypatch.setattr(batches, "_YOUNG_S", 60.0)
    server.desk.on_create = lambda number: number > 1  # the connection breaks before the first is confirmed
    vanish(server, monkeypatch, lambda kind, look: look == 1)
    assert rules(ask(requests(5))) == answers_of(5)
    assert server.desk.sizes == [5]


def test_results_that_stay_away_end_the_run_and_are_fetched_by_the_next(server, monkeypatch):
    with monkeypatch.context() as away:
        vanish(server, away, lambda kind, _: kind == "results")
        with pytest.raises(TeacherError, match=r"expected the results of batch msgbatch_001, got status 404 .* again"):
            ask(requests(5))
    assert rules(ask(requests(5))) == answers_of(5)
    assert server.desk.sizes == [5]
