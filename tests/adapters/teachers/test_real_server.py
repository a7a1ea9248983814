"""Extraction through the real SDKs from a real model: llama.cpp's server with 135M weights speaks both APIs."""

import pytest

from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore
from pld.adapters.teachers.openai_compatible import OpenAICompatibleTeacher
from pld.adapters.teachers.paid_teacher import Terms
from pld.distill import extract as extraction
from pld.params import BudgetParams, ExtractionParams
from pld.records import Example, Task
from support.anthropic_server import claude
from support.llama_server import MODEL, llama_server

pytestmark = pytest.mark.slow
TASK = Task(
    name="tickets",
    labels=("billing", "technical", "account"),
    fields=("note",),
    input_template="{{ note }}",
    base_instruction="Say which team answers the ticket.",
)
PARAMS = ExtractionParams(
    examples=None, draws=1, personal_data="allow", max_words=80, max_copied_words=7, max_rejected_fraction=1.0
)
TICKETS = [
    Example(id="t1", inputs={"note": "I was charged twice."}, label="billing", split="train"),
    Example(id="t2", inputs={"note": "The app won't start."}, label="technical", split="train"),
    Example(id="t3", inputs={"note": "Please delete my profile."}, label="account", split="train"),
]
TERMS = Terms("tickets", BudgetParams(usd=None, calls=3), None)


@pytest.fixture(scope="module")
def server():
    with llama_server(parallel=1) as url:  # one slot, so that the constant part is computed once
        yield url


def test_over_chat_completions_every_answer_fits_the_schema(server, monkeypatch, tmp_path):
    monkeypatch.setenv("PLD_CACHE", str(tmp_path))
    teacher = OpenAICompatibleTeacher(
        base_url=server,
        model=MODEL,
        api_key_variable="PLD_TEACHER_API_KEY",
        max_tokens=96,
        max_tokens_field="max_tokens",
        temperature=0.0,
        roles={},
        max_concurrency=2,
        max_retries=0,
        timeout_s=120.0,
        extra_body={"repeat_penalty": 1.2},  # without it a model this small writes on and on
        terms=TERMS,
    )
    answers = list(teacher.ask(extraction.extraction_requests(TASK, TICKETS, PARAMS)))
    assert sorted(item.key for item in answers) == ["t1", "t2", "t3"]
    for item in answers:
        assert item.error is None
        assert set(item.content) == {"rationale", "rule", "label"}
        assert item.content["label"] in TASK.labels
        assert item.usage["output_tokens"] > 0
    rules, rejections, summary = extraction.extract(TASK, TICKETS, PARAMS, teacher, 1)  # from the store
    assert (summary.answered, len(rules) + len(rejections)) == (3, 3)
    assert AnswerStore(tmp_path / FILE_NAME).spent("tickets").calls == 3


def test_over_the_messages_api_it_takes_no_schema_so_that_every_answer_is_a_rejection_with_its_reason(
    server, monkeypatch, tmp_path
):
    """This llama.cpp drops `output_config`: what comes is prose, and nobody looks for JSON in it."""
    monkeypatch.setenv("PLD_CACHE", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.removesuffix("/v1"))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "test-key")
    teacher = claude(model=MODEL, max_tokens=16, temperature=0.0, max_retries=0, timeout_s=120.0, terms=TERMS)
    rules, rejections, summary = extraction.extract(TASK, TICKETS, PARAMS, teacher, 1)
    assert rules == []
    assert [item.example_id for item in rejections] == ["t1", "t2", "t3"]
    assert {item.reason for item in rejections} <= {"truncated", "invalid"}
    assert summary.usage["output_tokens"] > 0
    assert AnswerStore(tmp_path / FILE_NAME).spent("tickets").calls == 3
    counted = teacher.count_tokens(extraction.extraction_requests(TASK, TICKETS[:1], PARAMS))
    assert counted is not None
    assert 300 < counted[0] < 600
