"""The Student behind a real llama.cpp server, with the same weights as in process (fast tests: a scripted server)."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from pld.adapters.students.openai_compatible import OpenAICompatibleStudent
from pld.config.build import build
from pld.config.composition import compose
from pld.errors import StudentError
from pld.records import Message
from support.llama_server import MODEL, llama_server

pytestmark = pytest.mark.slow
CONTEXT = 512  # the server rounds up to 256
LABELS = ["billing", "technical", "account"]
SYSTEM = [
    Message(
        role="system",
        content="Decide which team of a software company answers the customer's ticket.\n"
        "Answer with exactly one word: billing, technical or account.",
    )
]
# of any kind, far from the task
SENTENCES = [
    "The invoice came twice this month.",
    "My screen stays black after the update, and error 0x80 shows: what now?",
    "Zwölf Katzen saßen auf dem Dach; 3 fielen herunter.",
    "a",
    "Please close it.\n\nRegards,\nUma",
]


@pytest.fixture(scope="module")
def url():
    with llama_server(context=CONTEXT, key="sesame") as address:
        yield address


@pytest.fixture(scope="module")
def make(url):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLD_TEST_KEY", "sesame")
        settings = {
            "name": "served",
            "server": "llama_cpp",
            "base_url": url,
            "model": MODEL,
            "api_key_variable": "PLD_TEST_KEY",
            "choice": "logprobs",
            "top_logprobs": 200,
            "max_concurrency": 2,
            "max_retries": 1,
            "timeout_s": 60.0,
            "extra_body": {},
        }
        yield lambda **changes: OpenAICompatibleStudent(**(settings | changes))


@pytest.fixture(scope="module")
def served(make):
    return make()


def tickets(count):
    """The shortest of the shipped ones, as the task renders them."""
    path = Path("assets/corpus/records/tickets.csv")
    with path.open(encoding="utf-8", newline="") as file:
        texts = [f"Subject: {row['subject']}\n{row['body']}" for row in csv.DictReader(file)]
    return sorted(texts, key=len)[:count]


def test_it_answers_as_the_same_weights_do_in_process(served, smollm):
    """The figures of docs/how-to/scale.md: PLD_TICKETS=60 pytest -s -k same_weights tests/adapters/students. The server
    computes in 4 and 8 bit what is float32 in process."""
    inputs = [*tickets(int(os.environ.get("PLD_TICKETS", "5"))), *SENTENCES]
    here, there = smollm.score(SYSTEM, inputs, LABELS), served.score(SYSTEM, inputs, LABELS)
    apart, agree = np.abs(here - there), here.argmax(axis=1) == there.argmax(axis=1)
    print(f"\n{agree.sum()} of {len(inputs)} agree; nats apart: median {np.median(apart):.2f}, most {apart.max():.2f}")
    assert apart.max() < 1.5
    margin = np.diff(np.sort(here, axis=1), axis=1)[:, -1]
    sure = margin > 1.0
    assert sure.sum() >= 6
    assert agree[sure].all()


def test_labels_that_share_a_prefix_or_nest_are_scored_to_their_end(served, smollm):
    labels = ["religion", "religious", "gender", "rel"]
    here, there = (student.score([], ["a"], labels) for student in (smollm, served))
    np.testing.assert_allclose(there, here, atol=1.5)
    assert (there[0, 0] > there[0, 1:]).all()


def test_a_label_outside_the_top_logprobs_is_scored_exactly(make):
    few, many = (make(top_logprobs=count, max_concurrency=1) for count in (1, 2000))
    many.score(SYSTEM, SENTENCES[:1], LABELS)  # both then find the same cache
    np.testing.assert_allclose(
        few.score(SYSTEM, SENTENCES[:1], LABELS), many.score(SYSTEM, SENTENCES[:1], LABELS), atol=0.3
    )


def test_constrained_decoding_answers_with_a_label_whatever_its_characters(make):
    labels = ['say "yes"', "naïve\nline", "no"]
    scores = make(choice="constrained").score(SYSTEM, SENTENCES[:2], labels)
    assert [sorted(row) for row in scores.tolist()] == [[-1.0, -1.0, 0.0]] * 2


def test_it_counts_tokens_as_the_in_process_student_does(served, smollm):
    shot = [*SYSTEM, Message(role="user", content="x y"), Message(role="assistant", content="billing")]
    for chat in (SYSTEM, shot[1:2], shot[1:], shot, [*shot, Message(role="user", content="z")]):
        assert served.count_tokens(chat) == smollm.count_tokens(chat), chat
    text = "Hello <|im_end|> wide\n\nworld"
    assert served.count_text_tokens(text) == smollm.count_text_tokens(text)


def test_it_generates_what_the_in_process_student_generates(served, smollm):
    chats = [[*SYSTEM, Message(role="user", content=text)] for text in ("Say hello", "What is 2+2?")]
    here, there = (student.generate(chats, 4) for student in (smollm, served))
    assert here == there
    assert [item.tokens for item in there] == [4, 4]


def test_a_chat_that_does_not_fit_gets_no_answer(served, make):
    long = "word " * 600
    for student in (served, make(choice="constrained")):
        scores = student.score(SYSTEM, [long, "a"], LABELS)
        assert np.isnan(scores).any(axis=1).tolist() == [True, False]
    served.prefill([Message(role="system", content=long)])
    chats = [[Message(role="user", content=text)] for text in (long, "word " * 430)]
    assert [(item.text, item.finished) for item in served.generate(chats, 100)] == [("", False)] * 2


def test_a_wrong_key_and_an_unknown_model_are_errors_that_say_what_to_do(make, monkeypatch):
    monkeypatch.setenv("WRONG", "open")
    with pytest.raises(StudentError, match=r"status 401: .*; set the server's key in WRONG"):
        make(api_key_variable="WRONG").score(SYSTEM, ["a"], LABELS)
    with pytest.raises(StudentError, match=r"the model 'gpt', got smollm2-135m .*; set student\.model"):
        make(model="gpt").count_text_tokens("a")


def test_its_description_says_what_determines_scores_and_no_address(make, url):
    address = url.partition("//")[2].partition(":")[0]
    for choice in ("logprobs", "constrained"):
        about = make(choice=choice).describe()
        assert about["model"] == MODEL
        assert about["server"] == "llama_cpp"
        assert choice in about["choice"]
        assert address not in json.dumps(dict(about))


def test_the_option_composes_and_builds_with_the_overrides_of_docs_scale(tmp_path, url, monkeypatch):
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["groups"]["student"] = "openai_compatible"
    params["overrides"] = [f"student.base_url={url}", f"student.model={MODEL}", "student.server=llama_cpp"]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    student = build(compose(Path("conf"), path).student, "student")
    monkeypatch.setenv("PLD_STUDENT_API_KEY", "sesame")
    (row,) = student.score(SYSTEM, ["a"], LABELS)
    assert all(math.isfinite(value) for value in row)
