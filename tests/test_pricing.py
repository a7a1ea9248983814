from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from pld.params import ModelPrice, PricesParams
from pld.pricing import price_of, tokens_read, usd_of, worst_usd

SONNET = ModelPrice(
    input=2.0, output=10.0, cache_write_5m=2.5, cache_write_1h=4.0, cache_read=0.1, batch=0.5, cacheable_tokens=1024,
    up_to=None,
)  # fmt: skip
PRICES = PricesParams(as_of=date(2026, 11, 22), source="a page", models={"claude-haiku-4-5": SONNET})
KINDS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
OURS = PricesParams.model_validate(yaml.safe_load((Path(__file__).parents[1] / "conf/prices.yaml").read_text()))
WAYS = st.sampled_from(["messages", "batches", "openai"])
TOKENS = st.integers(0, 10_000_000)
RATE = st.floats(0, 100)


@st.composite
def prices(draw):
    written = sorted([draw(RATE), draw(RATE)])
    return ModelPrice(
        input=draw(RATE), output=draw(RATE), cache_write_5m=written[0], cache_write_1h=written[1],
        cache_read=draw(RATE), batch=draw(st.floats(0, 1)), cacheable_tokens=1024, up_to=None,
    )  # fmt: skip


USAGES = st.fixed_dictionaries({}, optional=dict.fromkeys(KINDS, TOKENS))


@pytest.mark.parametrize(
    ("usage", "way", "usd"),
    [
        ({"input_tokens": 1_000_000}, "messages", 2.0),
        ({"output_tokens": 1_000_000}, "batches", 5.0),
        ({"input_tokens": 100, "cache_read_input_tokens": 1_000_000}, "messages", 0.1 + 0.0002),
        ({"cache_creation_input_tokens": 1_000_000}, "messages", 2.5),
        ({"cache_creation_input_tokens": 1_000_000}, "batches", 2.0),  # kept for an hour, at half the price
        ({"input_tokens": 500_000, "cache_read_input_tokens": 500_000, "output_tokens": 0}, "openai", 1.0 + 0.05),
        ({"thinking_tokens": 9_999}, "messages", 0.0),  # a part of output_tokens: not paid twice
    ],
)
def test_a_call_costs_what_its_kinds_of_tokens_cost(usage, way, usd):
    assert usd_of(usage, SONNET, way) == pytest.approx(usd)


def test_without_a_price_and_beyond_the_tokens_that_it_holds_for_the_cost_is_unknown_and_not_zero():
    short = SONNET.model_copy(update={"up_to": 1000})
    assert usd_of({"input_tokens": 1}, None, "messages") is None
    assert worst_usd(1, 1, None, "messages") is None
    assert usd_of({"input_tokens": 900, "cache_read_input_tokens": 100}, short, "messages") is not None
    assert usd_of({"input_tokens": 901, "cache_read_input_tokens": 100}, short, "messages") is None
    assert worst_usd(1001, 1, short, "messages") is None


def test_a_dated_snapshot_has_the_price_of_its_name_and_nothing_else_has():
    assert price_of(PRICES, "claude-haiku-4-5") is SONNET
    assert price_of(PRICES, "claude-haiku-4-5-20251001") is SONNET
    for other in ("claude-haiku-4", "claude-haiku-4-5-latest", "claude-haiku-4-5-2025100", "gpt", ""):
        assert price_of(PRICES, other) is None, other


@given(USAGES, prices(), WAYS)
def test_no_tokens_cost_nothing_and_no_call_costs_less(usage, price, way):
    assert usd_of({}, price, way) == 0
    assert usd_of(dict.fromkeys(KINDS, 0), price, way) == 0
    assert usd_of(usage, price, way) >= 0


@given(USAGES, prices(), WAYS, st.sampled_from(KINDS), TOKENS)
def test_more_tokens_never_cost_less(usage, price, way, kind, more):
    added = {**usage, kind: usage.get(kind, 0) + more}
    assert usd_of(added, price, way) >= usd_of(usage, price, way) * (1 - 1e-12)


@given(USAGES, prices())
def test_a_batch_never_costs_more_unless_by_the_hour_that_it_caches_for(usage, price):
    by_the_hour = price.batch * price.cache_write_1h > price.cache_write_5m
    assume(not (by_the_hour and usage.get("cache_creation_input_tokens")))
    assert usd_of(usage, price, "batches") <= usd_of(usage, price, "messages") * (1 + 1e-12)


@given(USAGES, st.sampled_from(sorted(OURS.models)))
def test_with_the_prices_of_conf_a_batch_never_costs_more(usage, model):
    price = OURS.models[model].model_copy(update={"up_to": None})
    assert usd_of(usage, price, "batches") <= usd_of(usage, price, "messages")


@given(USAGES, prices(), WAYS)
def test_no_call_costs_more_than_the_most_that_it_can_cost(usage, price, way):
    most = worst_usd(tokens_read(usage), usage.get("output_tokens", 0), price, way)
    assert usd_of(usage, price, way) <= most * (1 + 1e-12)
