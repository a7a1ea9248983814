"""Questions asked in batches at the local server, with a price, a budget and a store."""

from collections.abc import Callable, Sequence

import pytest

from pld.adapters.teachers import batches
from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore, Spent
from pld.adapters.teachers.paid_teacher import Terms
from pld.config.assets import cache_folder
from pld.params import BudgetParams, ModelPrice, PricesParams
from pld.ports import TeacherAnswer, TeacherRequest
from support.anthropic_server import AnthropicServer, answer
from support.batch_run import teacher

PRICE = ModelPrice(
    input=1000.0,
    output=1000.0,
    cache_write_5m=1000.0,
    cache_write_1h=1000.0,
    cache_read=1000.0,
    batch=0.5,
    cacheable_tokens=0,
    up_to=None,
)
PRICES = PricesParams(as_of="2026-01-01", source="a test", models={"claude-test": PRICE})
ONE_USD = (100 + 20) * 1000 / 1e6 * 0.5  # what the server's answer costs in a batch


@pytest.fixture
def no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_SETTLE_S", 0.05)
    monkeypatch.setattr(batches, "_YOUNG_S", 0.0)
    monkeypatch.setattr(batches, "_DOUBT_S", 0.1)


@pytest.fixture
def server(anthropic_server: Callable[..., AnthropicServer], no_long_waits: None) -> AnthropicServer:
    """Answers each question with itself as the rule."""
    return anthropic_server(lambda body, _: answer({"rule": body["messages"][0]["content"]}))


def ask(
    wanted: Sequence[TeacherRequest], calls: int | None = None, usd: float | None = None, **settings: object
) -> dict[str, TeacherAnswer]:
    terms = Terms("t", BudgetParams(usd=usd, calls=calls), PRICES)
    return {found.key: found for found in teacher(terms, **settings).ask(wanted)}


def answers_of(count: int, first: int = 0) -> dict[str, str]:
    return {str(i): f"question {i}" for i in range(first, first + count)}


def rules(found: dict[str, TeacherAnswer]) -> dict[str, str]:
    return {key: item.content["rule"] for key, item in found.items()}


def spent() -> Spent:
    return AnswerStore(cache_folder() / FILE_NAME).spent("t")
