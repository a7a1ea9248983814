"""What the Teacher's answers cost in dollars, by the dated prices of conf/prices.yaml.

Usage is counted as the Messages API counts it: `input_tokens` leaves out what was written to the cache
(`cache_creation_input_tokens`) or read from it (`cache_read_input_tokens`). An adapter for another provider stores its
counts under these names.
"""

from collections.abc import Iterable, Mapping

from pld.params import ModelPrice, PricesParams
from pld.reports import RoleSpending

BATCHES = "batches"
"""The way of asking that pays `ModelPrice.batch` of every price, and keeps what it caches for an hour."""
_MILLION = 1e6
_INPUT, _WRITTEN, _READ = "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"
_OUTPUT = "output_tokens"


def price_of(prices: PricesParams, model: str) -> ModelPrice | None:
    """The price of `model` by its name, or by the name that it is a dated snapshot of (name-YYYYMMDD)."""
    if model in prices.models:
        return prices.models[model]
    name, _, day = model.rpartition("-")
    return prices.models.get(name) if len(day) == 8 and day.isdecimal() else None


def tokens_read(usage: Mapping[str, int]) -> int:
    """All that the model read."""
    return sum(usage.get(kind, 0) for kind in (_INPUT, _WRITTEN, _READ))


def tokens_written(usage: Mapping[str, int]) -> int:
    """All that the model wrote, its thinking included."""
    return usage.get(_OUTPUT, 0)


def usd_of(usage: Mapping[str, int], price: ModelPrice | None, way: str) -> float | None:
    """Dollars for one call that was answered with `usage`; None where the price is not known."""
    if price is None or not _covers(price, tokens_read(usage)):
        return None
    millionths = (
        usage.get(_INPUT, 0) * price.input
        + usage.get(_WRITTEN, 0) * _cache_write(price, way)
        + usage.get(_READ, 0) * price.cache_read
        + tokens_written(usage) * price.output
    )
    return millionths * _share(price, way) / _MILLION


def worst_usd(input_tokens: int, max_tokens: int, price: ModelPrice | None, way: str) -> float | None:
    """The most that one call can cost: all input at its dearest, and as much output as it may write."""
    if price is None or not _covers(price, input_tokens):
        return None
    dearest = max(price.input, price.cache_write_5m, price.cache_write_1h, price.cache_read)
    return (input_tokens * dearest + max_tokens * price.output) * _share(price, way) / _MILLION


def total_usd(roles: Iterable[RoleSpending]) -> float | None:
    """Dollars of all; None where one is not known."""
    parts = [role.usd for role in roles]
    return None if None in parts else sum(usd for usd in parts if usd is not None)


def dollars(usd: float | None) -> str:
    """For people: cents, and more digits below ten cents."""
    if usd is None:
        return "unknown"
    return f"${usd:,.2f}" if usd >= 0.1 or not usd else f"${usd:.4f}"


def millions(tokens: int) -> str:
    """Tokens for people."""
    return f"{tokens / 1e6:.2f} M" if tokens >= 10_000 else f"{tokens:,}"


def _cache_write(price: ModelPrice, way: str) -> float:
    """Of a million tokens, before a batch's discount."""
    return price.cache_write_1h if way == BATCHES else price.cache_write_5m


def _covers(price: ModelPrice, input_tokens: int) -> bool:
    return price.up_to is None or input_tokens <= price.up_to


def _share(price: ModelPrice, way: str) -> float:
    return price.batch if way == BATCHES else 1.0
