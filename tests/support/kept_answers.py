"""Answers of a store, made up."""

from collections.abc import Mapping
from typing import Any

from pld.adapters.teachers.answer_store import Entry, Question, StoredAnswer
from pld.adapters.teachers.paid_teacher import asked_hash
from pld.ports import TeacherRequest
from pld.records import sha256

SAID = {"rationale": "Warm.", "rule": "If it is warm, answer red.", "label": "red"}


def kept(
    name: str,
    content: Mapping[str, Any] | None = SAID,
    error: str | None = None,
    usage: Mapping[str, int] | None = None,
    usd: float | None = 0.01,
    request: TeacherRequest | None = None,
    model: str = "claude-test",
    task: str = "colours",
) -> Entry:
    """The answer to `request` (else to a question of its own) under a key that `name` and `model` make."""
    asked = request or TeacherRequest(name, "extract", "the task", f"question {name}", {})
    question = Question(
        key=sha256(f"{name} {model}"),
        asked=asked_hash(asked),
        task=task,
        provider="anthropic",
        model=model,
        role=asked.role,
        request=asked.key,
        draw=asked.draw,
        way="messages",
    )
    used = {"input_tokens": 100, "output_tokens": 20} if usage is None else usage
    return Entry(question, StoredAnswer(content, error, used, usd))
