"""What a paid Teacher may cost, and what it did cost: through the real SDK, against a local server."""

import json
import random
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest

from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore, Spent
from pld.adapters.teachers.anthropic import AnthropicTeacher, ClaudeSettings
from pld.adapters.teachers.paid_teacher import Terms, most_tokens
from pld.config.assets import cache_folder
from pld.errors import BudgetError, ConfigError
from pld.params import BudgetParams, ModelPrice, PricesParams
from pld.ports import TeacherAnswer, TeacherRequest
from pld.pricing import usd_of, worst_usd
from pld.reports import RoleSpending
from support.anthropic_server import Reply, answer, claude, error

SCHEMA = {
    "type": "object",
    "properties": {"rule": {"type": "string"}},
    "required": ["rule"],
    "additionalProperties": False,
}
GOOD = {"rule": "If it is warm, answer red."}
MAX_TOKENS = 500
PRICE = ModelPrice(
    input=10.0,
    output=1000.0,
    cache_write_5m=20.0,
    cache_write_1h=30.0,
    cache_read=1.0,
    batch=0.5,
    cacheable_tokens=1024,
    up_to=None,
)
PRICES = PricesParams(as_of=date(2026, 11, 22), source="here", models={"claude-test": PRICE})
EACH = 0.021  # dollars of the server's plain answer: 100 tokens in, 20 out


def requests(count: int, **values: object) -> list[TeacherRequest]:
    given = {"role": "extract", "system": "the task", "schema": SCHEMA} | values
    return [TeacherRequest(key=str(i), prompt=f"question {i}", **given) for i in range(count)]


MOST = worst_usd(most_tokens(requests(1)[0]), MAX_TOKENS, PRICE, "messages")
"""Dollars that one of them can cost."""


def teacher(usd: float | None = None, calls: int | None = None, **changes: object) -> AnthropicTeacher:
    terms = Terms("colours", BudgetParams(usd=usd, calls=calls), changes.pop("prices", PRICES))
    return claude(**{"max_tokens": MAX_TOKENS, "timeout_s": 10.0, "terms": terms, **changes})


def ask(asked: AnthropicTeacher, wanted: Sequence[TeacherRequest]) -> dict[str, TeacherAnswer]:
    return {found.key: found for found in asked.ask(wanted)}


def spent(task: str = "colours") -> Spent:
    return AnswerStore(cache_folder() / FILE_NAME).spent(task)


# a budget of calls


def test_a_budget_of_calls_is_spent_to_the_last_one_and_a_higher_one_goes_on_from_there(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    with pytest.raises(BudgetError) as caught:
        ask(teacher(calls=7), requests(20))
    assert len(server.bodies) == 7
    assert str(caught.value) == (
        "expected 13 more calls of the Teacher, got 7 calls and $0.1470 spent (budget.calls 7 of task 'colours'); "
        "7 answers have just arrived and are kept; set about budget.calls=20 and run again: it goes on where it "
        "stopped"
    )
    with pytest.raises(BudgetError, match=r"got 7 calls and \$0.1470 spent .*; set about"):
        ask(teacher(calls=7), requests(20))
    assert len(server.bodies) == 7
    assert len(ask(teacher(calls=20), requests(20))) == 20
    assert sorted(server.prompts) == sorted(request.prompt for request in requests(20))


def test_a_task_that_has_all_its_answers_needs_no_budget(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    ask(teacher(), requests(5))
    assert len(ask(teacher(usd=0.0001, calls=1), requests(5))) == 5
    assert len(server.bodies) == 5


def test_a_request_that_the_provider_rejects_costs_nothing(anthropic_server):
    def respond(body: Mapping[str, object], _: int) -> Reply:
        return error(400, "invalid_request_error", "too long") if "question 1" in str(body) else answer(GOOD)

    anthropic_server(respond)
    assert ask(teacher(calls=3), requests(4))["1"].error == "bad_request: too long"
    assert spent() == Spent(calls=3, usd=pytest.approx(3 * EACH))


def test_a_refusal_counts_as_spent(anthropic_server):
    anthropic_server(lambda *_: answer("", "refusal"))
    ask(teacher(calls=3), requests(3))
    assert spent().calls == 3


def test_a_call_that_was_lost_with_a_killed_process_counts_at_the_most_it_can_have_cost(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    store = AnswerStore(cache_folder() / FILE_NAME)
    store.claim([(f"k{i}", MOST) for i in range(4)], "colours", BudgetParams(usd=None, calls=None))
    with pytest.raises(
        BudgetError, match=r"got 5 calls and .*, of which killed runs lost 4 calls at \$2.\d\d at most \("
    ):
        ask(teacher(calls=5), requests(20))
    assert len(server.bodies) == 1
    assert spent() == Spent(calls=1, usd=pytest.approx(EACH), lost=4, lost_usd=pytest.approx(4 * MOST))


# a budget of dollars


@pytest.mark.parametrize("seed", range(3))
def test_a_budget_of_dollars_is_never_exceeded_whatever_the_answers_cost(anthropic_server, seed):
    draw, paid = random.Random(seed), []
    cap = 12 * MOST

    def respond(*_: object) -> Reply:
        usage = {"input_tokens": draw.randrange(300), "output_tokens": draw.choice([1, 10, 100, MAX_TOKENS])}
        usage["cache_creation_input_tokens"] = draw.randrange(50)
        paid.append(usd_of(usage, PRICE, "messages"))
        assert sum(paid) <= cap
        return answer(GOOD, usage=usage, delay_s=draw.choice([0.0, 0.01, 0.03]))

    anthropic_server(respond)
    with pytest.raises(BudgetError, match=r"\(budget\.usd \$6\.\d\d of task"):
        ask(teacher(usd=cap, max_concurrency=8), requests(200))
    assert spent().usd == pytest.approx(sum(paid))
    assert cap - MOST < sum(paid) <= cap


def test_what_the_message_says_is_needed_is_enough(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    cap = MOST + 3.5 * EACH
    with pytest.raises(BudgetError) as caught:
        ask(teacher(usd=cap), requests(20))
    needed = re.fullmatch(
        r"expected 16 more calls of the Teacher, got 4 calls and \$0\.0840 spent \(budget\.usd \$0\.6\d\d\d of task "
        r"'colours'\); 4 answers have just arrived and are kept; set about budget\.usd=(0\.9\d\d\d) \(\$0\.0210 a "
        r"call\) and run again: it goes on where it stopped",
        str(caught.value),
    )
    assert len(ask(teacher(usd=float(needed[1])), requests(20))) == 20
    assert len(server.bodies) == 20


def test_before_anything_is_answered_the_message_says_what_is_enough_at_worst(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    said = r"got 0 calls and \$0\.00 spent .*; set about budget\.usd=1\.0\d \(\$0\.5\d+ a call at most"
    with pytest.raises(BudgetError, match=said):
        ask(teacher(usd=0.5), requests(2))
    assert not server.bodies


# prices


def test_a_model_without_a_price_is_an_error_under_a_budget_of_dollars_before_anything_is_asked(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    with pytest.raises(ConfigError) as caught:
        ask(teacher(usd=5.0, model="claude-new"), requests(3))
    assert not server.bodies
    assert re.fullmatch(
        r"expected the price of 'claude-new', got none for a request of up to 1,\d{3} tokens \(budget\.usd\); add it "
        r"to conf/prices\.yaml, or set budget\.usd=null and cap budget\.calls",
        str(caught.value),
    )


def test_the_price_that_counts_is_that_of_the_roles_own_model(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    merging = teacher(usd=5.0, roles={"consolidate": ClaudeSettings(model="claude-new")})
    ask(merging, requests(2))
    with pytest.raises(ConfigError, match="expected the price of 'claude-new'"):
        ask(merging, requests(2, role="consolidate"))
    assert len(server.bodies) == 2


def test_a_request_longer_than_its_price_holds_for_has_no_price(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    short = PRICES.model_copy(update={"models": {"claude-test": PRICE.model_copy(update={"up_to": 2000})}})
    wanted = [*requests(1), TeacherRequest("long", "extract", "the task", "word " * 400, SCHEMA)]
    with pytest.raises(ConfigError, match="a request of up to 3,"):
        ask(teacher(usd=5.0, prices=short), wanted)
    assert not server.bodies


def test_without_a_budget_an_unknown_price_is_unknown_never_zero(anthropic_server):
    anthropic_server(lambda *_: answer(GOOD))
    asked = teacher(model="claude-new")
    ask(asked, requests(3))
    assert [item.usd for item in asked.spent()] == [None]
    assert spent() == Spent(calls=3, unpriced=3)


def test_a_cap_on_dollars_needs_a_price_for_calls_paid_without_one(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    ask(teacher(model="claude-new"), requests(3))
    with pytest.raises(ConfigError, match=r"cost of all calls of task 'colours', got answers of claude-new that were"):
        ask(teacher(usd=5.0), requests(3))
    assert len(server.bodies) == 3
    known = PRICES.model_copy(update={"models": {**PRICES.models, "claude-new": PRICE}})
    ask(teacher(usd=5.0, prices=known), requests(3))
    assert spent() == Spent(calls=6, usd=pytest.approx(6 * EACH))


# several at once


def test_threads_that_ask_the_same_pay_once(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD, delay_s=0.05))
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: ask(teacher(), requests(12)), range(3)):
            assert len(found) == 12
    assert sorted(server.prompts) == sorted(request.prompt for request in requests(12))


SCRIPT = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from adapters.teachers.test_paid_teacher import ask, requests, teacher
from pld.errors import BudgetError
try:
    ask(teacher(**json.loads(sys.argv[2])), requests(20))
except BudgetError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
def test_processes_with_one_budget_stay_within_it_together_and_ask_nothing_twice(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD, delay_s=0.05))
    command = [sys.executable, "-c", SCRIPT, json.dumps(sys.path), json.dumps({"calls": 11, "usd": 3 * MOST})]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for child in children:
        said = child.communicate(timeout=60)[1]
        assert "expected 9 more calls" in said
        assert "(budget.calls 11 of task 'colours')" in said
    assert len(server.bodies) == len(set(server.prompts)) == 11


# what is asked anew, and what it cost


def test_every_role_has_its_own_model_and_its_own_sum(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    two = PRICES.model_copy(
        update={"models": {**PRICES.models, "claude-big": PRICE.model_copy(update={"output": 2000})}}
    )
    asked = teacher(roles={"consolidate": ClaudeSettings(model="claude-big", max_tokens=9)}, prices=two)
    ask(asked, [*requests(2), TeacherRequest("c", "consolidate", "the task", "merge", SCHEMA)])
    sent = {body["messages"][0]["content"]: (body["model"], body["max_tokens"]) for body in server.bodies}
    assert sent == {
        "question 0": ("claude-test", MAX_TOKENS),
        "question 1": ("claude-test", MAX_TOKENS),
        "merge": ("claude-big", 9),
    }
    tokens = {"input_tokens": 100, "output_tokens": 20}
    assert asked.spent() == (
        RoleSpending(role="consolidate", model="claude-big", calls=1, tokens=tokens, usd=0.041),
        RoleSpending(
            role="extract", model="claude-test", calls=2, tokens={k: 2 * v for k, v in tokens.items()}, usd=0.042
        ),
    )
    assert asked.name == "anthropic:claude-test"


def test_each_question_is_counted_once_and_a_stored_answer_at_what_it_cost_then(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    ask(teacher(), requests(2))
    asked = teacher(prices=None)
    twin = TeacherRequest("twin", "extract", "the task", "question 0", SCHEMA)
    for _ in range(2):
        assert len(ask(asked, [*requests(2), twin])) == 3
    assert [(item.calls, item.usd) for item in asked.spent()] == [(2, 2 * EACH)]
    assert len(server.bodies) == 2


def test_every_draw_of_a_question_is_asked(anthropic_server):
    server = anthropic_server(lambda *_: answer(GOOD))
    drawn = [TeacherRequest(f"e/{i}", "extract", "the task", "question", SCHEMA, draw=i) for i in range(3)]
    for _ in range(2):
        assert len(ask(teacher(), drawn)) == 3
    assert len(server.bodies) == 3


@pytest.mark.parametrize("change", [{"system": "the task, reworded"}, {"schema": {**SCHEMA, "title": "Answer"}}])
def test_a_reworded_question_is_asked_anew(anthropic_server, change):
    server = anthropic_server(lambda *_: answer(GOOD))
    ask(teacher(), requests(2))
    ask(teacher(), requests(2, **change))
    assert len(server.bodies) == 4
    ask(teacher(), requests(2))
    assert len(server.bodies) == 4


def test_what_one_task_spends_is_not_taken_from_anothers_budget(anthropic_server):
    anthropic_server(lambda *_: answer(GOOD))
    ask(teacher(), requests(5))
    other = teacher(terms=Terms("shapes", BudgetParams(usd=None, calls=5), None))
    ask(other, [TeacherRequest(str(i), "extract", "shapes", f"question {i}", SCHEMA) for i in range(5)])
    assert (spent().calls, spent("shapes").calls) == (5, 5)


def test_no_bound_on_tokens_is_broken_by_any_script(anthropic_server):
    for text in ("word " * 100, "日本語" * 100, "\U0001f9d1‍\U0001f680" * 50, "\x00\x1f" * 100):
        request = TeacherRequest("k", "extract", "the task", text, SCHEMA)
        assert most_tokens(request) >= len(text.encode()) + len(json.dumps(SCHEMA))
