"""What an estimate says about prices and the budget; `pld estimate` itself is in tests/cli."""

from datetime import date

import pytest

from pld.distill.cost_estimate import Estimate, StageEstimate, one_line, verdicts, ways_of


def stage(usd=2.0, **more):
    settled = {
        "stage": "extract", "role": "extract", "model": "m", "calls": 349, "at_most": False, "stored": 12,
        "to_ask": 337, "input_tokens": 670_000, "output_tokens": 168_500, "basis": "349 examples",
        "usd": {"messages": usd, "batches": usd and usd / 2},
    }  # fmt: skip
    return StageEstimate(**{**settled, **more})


def estimate(*stages, **more):
    settled = {
        "task": "colours", "teacher": "anthropic:m", "way": "messages", "prices_as_of": date(2026, 11, 22),
        "prices_source": "a page", "budget_usd": None, "budget_calls": None, "spent_usd": 0.0, "spent_calls": 0,
    }  # fmt: skip
    return Estimate(**{**settled, "stages": stages, **more})


def test_an_unknown_price_is_unknown_and_never_zero():
    found = estimate(stage(), stage(usd=None))
    said = " | ".join(verdicts(found))
    assert found.total("messages") is found.total("batches") is None
    assert "price unknown" in one_line(found)
    assert "no price for m" in said
    assert "stops before its first call" not in said
    capped = " | ".join(verdicts(estimate(stage(usd=None), budget_usd=5.0)))
    assert "with budget.usd set the run stops before its first call" in capped


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, "spent so far: $1.00 (no cap)"),
        ({"budget_usd": 5.0}, "fits by messages: about $2.00 of budget.usd would be left"),
        ({"budget_usd": 2.5}, "over budget.usd by about $0.50 by messages"),
        ({"budget_usd": 2.5, "way": "batches"}, "fits by batches: about $0.50 of budget.usd would be left"),
        ({"budget_calls": 367}, "fits: 0 of budget.calls would be left"),
        ({"budget_calls": 337}, "over budget.calls by 30"),
    ],
)
def test_the_budget_is_compared_with_what_was_spent_and_what_is_still_to_ask(more, words):
    assert words in " | ".join(verdicts(estimate(stage(), spent_usd=1.0, spent_calls=30, **more)))


def test_one_line_says_how_many_calls_are_stored_and_what_the_others_cost():
    found = estimate(stage(), budget_usd=5.0, spent_usd=0.5, spent_calls=40)
    assert one_line(found) == (
        "349 calls of anthropic:m, 12 answered already: 337 to ask; about 0.67 M tokens in and 0.17 M out, about $2.00 "
        "by messages; spent so far: $0.50 (of budget.usd $5.00), 40 calls"
    )
    assert one_line(estimate(stage(to_ask=0))) == "all 349 answers are stored: nothing to pay"
    assert one_line(estimate(way="recorded")) == "recorded answers are played back: nothing to pay"


def test_only_claude_can_be_asked_in_batches():
    assert ways_of("messages") == ways_of("batches") == ("messages", "batches")
    assert ways_of("openai") == ("openai",)
    assert ways_of("recorded") == ()
