"""Questions, answers and claims to put in an AnswerStore."""

from dataclasses import replace
from pathlib import Path

import pytest

from pld.adapters.teachers.answer_store import RUN, AnswerStore, Question, StoredAnswer
from pld.params import BudgetParams

ANSWER = StoredAnswer({"rule": "ünï → \u2028", "nested": {"a": [1, None, True]}}, None, {"output_tokens": 3}, 0.25)
FREE = BudgetParams(usd=None, calls=None)


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    return AnswerStore(tmp_path / "answers.sqlite")


def about(key: str, **values: object) -> Question:
    plain = Question(key, "hash", "task", "anthropic", "claude-test", "extract", f"example {key}", 0, "messages")
    return replace(plain, **values)


def claim(store: AnswerStore, keys: str, budget: BudgetParams = FREE, most: float = 1.0, owner: str = RUN) -> str:
    """Those of the one-letter `keys` that could be claimed."""
    return keys[: store.claim([(key, most) for key in keys], "task", budget, owner)]


def record_batch(store: AnswerStore, owner: str) -> None:
    with store.transaction() as connection:
        connection.execute("INSERT INTO batches VALUES (?, NULL, 'https://here', 'open', 0, '{}')", (owner,))
