from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pld.distill.cost_estimate import (
    Ahead,
    Estimate,
    Experience,
    ahead_of,
    dollars,
    estimate_stage,
    line,
    sample,
    total,
    verdicts,
    ways_of,
)
from pld.params import ModelPrice
from pld.ports import TeacherRequest

PRICE = ModelPrice(
    input=2.0, output=10.0, cache_write_5m=2.5, cache_write_1h=4.0, cache_read=0.1, batch=0.5, cacheable_tokens=1024,
    up_to=None,
)  # fmt: skip
WAYS = ("messages", "messages with caching", "batches", "batches with caching")


def ahead(calls=100, stored=0, characters=7000.0, constant=3500, **more):
    return Ahead("extract", "extract", calls, stored, 0, characters, constant, "100 examples", **more)


def known(**more):
    return Experience(**{"model": "m", "price": PRICE, "way": "messages", "attempts": 3, **more})


def estimate(stages=(), **more):
    settled = {
        "task": "colours", "teacher": "anthropic:m", "way": "messages", "prices_as_of": date(2026, 11, 22),
        "prices_source": "a page", "budget_usd": None, "budget_calls": None, "spent_usd": 0.0, "spent_calls": 0,
    }  # fmt: skip
    return Estimate(**{**settled, "stages": tuple(stages), **more})


def test_tokens_are_counted_by_the_provider_or_by_characters_and_either_way_it_says_so():
    found = estimate_stage(ahead(), known())
    assert (found.input_tokens, found.input_from) == (200_000, "characters / 3.5 (not counted)")
    found = estimate_stage(ahead(), known(counted=(20, 4_000, 16_000)))
    assert (found.input_tokens, found.input_from) == (175_000, "the provider's count of 20 requests")


def test_output_goes_by_past_answers_or_by_a_stated_assumption():
    assert estimate_stage(ahead(), known()).output_from == "500 an answer, assumed: there is no past one"
    found = estimate_stage(ahead(), known(past=(40, 900.0, 123.0)))
    assert (found.output_tokens, found.output_from) == (12_300, "the mean of 40 past answers")
    assert found.input_tokens == 200_000  # the requests are there to be measured
    assert estimate_stage(ahead(at_most=True), known(past=(40, 900.0, 123.0))).input_tokens == 90_000  # these are not


def test_stored_answers_cost_nothing_and_refused_ones_are_asked_for_again():
    found = estimate_stage(ahead(stored=60), known(refused=0.1))
    assert (found.to_ask, found.retries) == (40, 5)  # 4 and 0.4
    assert found.input_tokens == 45 * 2000
    assert estimate_stage(ahead(stored=100), known()).usd == dict.fromkeys(WAYS, 0.0)
    assert estimate_stage(ahead(), known(refused=0.5, attempts=1)).retries == 0


def test_four_ways_to_ask_have_four_prices():
    found = estimate_stage(ahead(constant=4200), known(past=(1, 0.0, 100.0)))
    plain = (200_000 * 2.0 + 10_000 * 10.0) / 1e6
    rest = (100 * 800 * 2.0 + 10_000 * 10.0) / 1e6
    cached = rest + (1200 * 2.5 + 99 * 1200 * 0.1) / 1e6
    batched = rest / 2 + (1200 * 4.0 + 99 * 1200 * 0.1) / 2e6
    assert found.constant_tokens == 1200
    assert found.usd == pytest.approx(dict(zip(WAYS, (plain, cached, plain / 2, batched), strict=True)))


def test_caching_saves_nothing_where_the_constant_part_is_too_short_and_a_sentence_says_so():
    found = estimate_stage(ahead(constant=3500), known())  # 1,000 tokens of 1,024
    assert found.cacheable is False
    assert found.usd["messages with caching"] == found.usd["messages"]
    said = " ".join(verdicts(estimate([found])))
    assert "caching does nothing for extract: what its requests share is about 1,000 tokens" in said
    assert "at best" not in said
    long = estimate_stage(ahead(constant=4200), known())
    assert "at best, where each request but the first finds the cache filled" in " ".join(verdicts(estimate([long])))


def test_an_endpoint_of_another_kind_has_one_way():
    found = estimate_stage(ahead(constant=4200), known(way="openai", past=(1, 0.0, 0.0)))
    assert tuple(found.usd) == ("openai", "openai with caching") == ways_of("openai")
    # the first request fills the cache at the price of any other
    assert found.usd["openai with caching"] == pytest.approx((100 * 800 * 2.0 + 1200 * 2.0 + 99 * 1200 * 0.1) / 1e6)


@given(
    st.integers(0, 500), st.floats(0, 0.9), st.floats(100, 1e5), st.floats(0, 1), st.sampled_from(ways_of("batches"))
)
def test_more_to_ask_never_costs_less_and_caching_or_batches_never_more(calls, refused, characters, share, way):
    experience = known(refused=refused)
    first = estimate_stage(ahead(calls, characters=characters, constant=int(characters * share)), experience)
    more = estimate_stage(ahead(calls + 1, characters=characters, constant=int(characters * share)), experience)
    assert 0 <= first.usd[way] <= more.usd[way]
    if calls > 1:
        assert first.usd["messages with caching"] <= first.usd["messages"] * (1 + 1e-9)
    assert first.usd[way] <= max(first.usd["messages"], first.usd["messages with caching"]) * (1 + 1e-9)


def test_an_unknown_price_is_unknown_and_never_zero():
    found = estimate([estimate_stage(ahead(), known(price=None))])
    assert total(found, "messages") is None
    assert dollars(None) == "unknown"
    assert "price unknown" in line(found)
    assert "no price for m" in verdicts(found)[1]
    assert "conf/prices.yaml" in verdicts(found)[1]
    assert "stops before its first call" not in verdicts(found)[1]
    capped = estimate([estimate_stage(ahead(), known(price=None))], budget_usd=5.0)
    assert "with budget.usd set the run stops before its first call" in verdicts(capped)[1]
    long = estimate_stage(ahead(), known(price=PRICE.model_copy(update={"up_to": 1999})))
    assert set(long.usd.values()) == {None}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "spent so far: $1.00 (no cap)"),
        ({"budget_usd": 5.0}, "fits by messages: about $3.10 of budget.usd would be left"),
        ({"budget_usd": 1.5}, "over budget.usd by about $0.40 by messages"),
        ({"budget_calls": 130}, "fits: 0 of budget.calls would be left"),
        ({"budget_calls": 100}, "over budget.calls by 30"),
    ],
)
def test_the_budget_is_set_against_what_was_spent_and_what_lies_ahead(more, words):
    found = estimate([estimate_stage(ahead(), known())], spent_usd=1.0, spent_calls=30, **more)
    assert words in " | ".join(verdicts(found))


def test_one_line_says_how_much_is_asked_and_what_an_edit_costs():
    edited = Ahead("extract", "extract", 349, 12, 300, 7000.0, 3500, "")
    found = estimate([estimate_stage(edited, known())], budget_usd=5.0, spent_usd=0.5, spent_calls=40)
    assert line(found) == (
        "349 calls of anthropic:m, 12 answered already: 337 to ask (300 of them answered before under another wording "
        "or setting); about 0.67 M tokens in and 0.17 M out, about $3.03 by messages; spent so far: $0.50 (of "
        "budget.usd $5.00), 40 calls"
    )
    assert line(estimate([estimate_stage(ahead(stored=100), known())])) == "all 100 answers are stored: nothing to pay"
    assert line(estimate(way="recorded")) == "recorded answers are played back: nothing to pay"


def test_the_size_of_requests_is_that_of_those_to_ask():
    wanted = [TeacherRequest(f"e{i}", "extract", "sys", "x" * (10 + 90 * (i == 1)), {}) for i in range(2)]
    found = ahead_of("extract", wanted, {"e0"}, 1, "two")
    assert (found.calls, found.stored, found.earlier, found.constant, found.characters) == (2, 1, 1, 5, 105)
    assert ahead_of("extract", wanted, {"e0", "e1"}, 0, "two").characters == 60


def test_a_sample_is_spread_over_all():
    assert sample(list(range(100)), 4) == [0, 25, 50, 75]
    assert sample([1, 2], 4) == [1, 2]
