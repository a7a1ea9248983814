"""The contract of the Student port, over every adapter (the servers' part with a real llama.cpp server is slow)."""

import json
import math

import numpy as np
import pytest

from pld.adapters.students.openai_compatible import OpenAICompatibleStudent
from pld.ports import Student
from pld.records import Message
from support.llama_server import MODEL, llama_server

CONTEXT = 256
SYSTEM = [Message(role="system", content="Answer in one word: gender or religion.")]
LABELS = ["gender", "religion", "religious"]
# a server's order of summation depends on its other requests
ROUNDING = {"transformers": 1e-4, "logprobs": 0.5, "constrained": 0.0}


@pytest.fixture(scope="module")
def url():
    with llama_server(context=CONTEXT) as address:
        yield address


@pytest.fixture(
    scope="module",
    params=["transformers", *(pytest.param(choice, marks=pytest.mark.slow) for choice in ("logprobs", "constrained"))],
)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def student(kind, request) -> Student:
    if kind == "transformers":
        folder = request.getfixturevalue("tiny_folder")("llama", max_position_embeddings=CONTEXT)
        return request.getfixturevalue("make_student")(model=folder)
    return OpenAICompatibleStudent(
        name="served",
        server="llama_cpp",
        base_url=request.getfixturevalue("url"),
        model=MODEL,
        api_key_variable="UNSET",
        choice=kind,
        top_logprobs=200,
        max_concurrency=2,
        max_retries=0,
        timeout_s=60.0,
        extra_body={},
    )


def user(text):
    return Message(role="user", content=text)


def test_scores_are_finite_and_in_the_order_of_inputs_and_labels(student, kind):
    texts = ["He prays.", "She works.", "He prays."]
    finished = []
    scores = student.score(SYSTEM, texts, LABELS, finished.append)
    assert scores.shape == (3, 3)
    assert scores.dtype == np.float64
    assert sum(finished) == 3
    assert math.isfinite(sum(json.loads(json.dumps(scores.ravel().tolist()))))
    assert (scores[0] == scores[2]).all()
    turned = student.score(SYSTEM, texts[1::-1], LABELS[::-1])
    np.testing.assert_allclose(turned[::-1, ::-1], scores[:2], atol=ROUNDING[kind])


def test_no_input_and_no_label_give_empty_scores(student):
    assert student.score(SYSTEM, [], LABELS).shape == (0, 3)
    assert student.score_chats([], LABELS).shape == (0, 3)
    assert student.score(SYSTEM, ["a"], []).shape == (1, 0)
    assert student.generate([], 4) == []


def test_chats_with_different_first_messages_are_scored_as_one_by_one(student, kind):
    shot = [*SYSTEM, user("She is a nun."), Message(role="assistant", content="religion")]
    chats = [[*SYSTEM, user("He prays.")], [*shot, user("He prays.")], [user("He prays.")]]
    finished = []
    together = student.score_chats(chats, LABELS, finished.append)
    alone = [student.score(chat[:-1], [chat[-1].content], LABELS)[0] for chat in chats]
    np.testing.assert_allclose(together, alone, atol=ROUNDING[kind])
    assert sum(finished) == 3


def test_a_chat_longer_than_the_context_is_nan_and_the_others_are_not(student):
    finished = []
    scores = student.score(SYSTEM, ["short", "long " * 300], LABELS, finished.append)
    assert np.isnan(scores).tolist() == [[False] * 3, [True] * 3]
    assert sum(finished) == 2


def test_a_prefill_changes_no_score(student, kind):
    before = student.score(SYSTEM, ["He prays."], LABELS)
    student.prefill(SYSTEM)
    np.testing.assert_allclose(student.score(SYSTEM, ["He prays."], LABELS), before, atol=ROUNDING[kind])
    student.prefill([])
    student.prefill([Message(role="system", content="long " * 300)])


def test_generation_stops_at_max_tokens(student):
    finished = []
    found = student.generate([[*SYSTEM, user("Say it.")], [user("long " * 300)]], 3, finished.append)
    assert sum(finished) == 2
    assert 0 < found[0].tokens <= 3
    assert found[0].finished or found[0].tokens == 3
    assert (found[1].text, found[1].tokens, found[1].finished) == ("", 0, False)


def test_a_chat_that_leaves_no_room_for_an_answer_gets_no_text(student):
    (found,) = student.generate([[*SYSTEM, user("a")]], CONTEXT)
    assert (found.text, found.finished) == ("", False)


def test_token_counts_grow_with_the_chat(student):
    assert student.count_tokens([]) == 0
    assert 0 < student.count_text_tokens(SYSTEM[0].content) < student.count_tokens(SYSTEM)
    assert student.count_tokens(SYSTEM) < student.count_tokens([*SYSTEM, user("a")])
    assert student.count_text_tokens("") == 0


def test_the_student_for_search_scores_the_same_labels(student):
    assert student.for_search().score(SYSTEM, ["He prays."], LABELS).shape == (1, 3)


def test_its_description_has_string_values_and_names_the_model(student):
    about = student.describe()
    assert "model" in about
    assert all(isinstance(value, str) for pair in about.items() for value in pair)
    assert isinstance(student.name, str)
