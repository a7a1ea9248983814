"""The exported body at a server that is not ours: llama.cpp's, with the Student's weights in the 4 and 8 bit that they
come in (in process they are made float32 once). The figures: pytest -s tests/serving/test_export_parity.py"""

import json

import httpx2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from pld.adapters.students.engine.chat import Chat
from pld.adapters.students.engine.weights import load_tokenizer, locate
from pld.cli.main import pld
from pld.config.build import build
from pld.distill.render import prompt_messages
from support.artifact_tree import PROJECT, composed, write_artifacts
from support.llama_server import llama_server
from support.mails import LABELS, TASK

pytest.importorskip("xllamacpp")
pytestmark = pytest.mark.slow

MODEL = "qwen2.5-coder-0.5b"
PROMPT = """What is the mail about? Answer with one word: refund, delivery or praise.

Rules:
- If the writer asks for money back, answer refund.
- If a parcel is late or has not arrived, answer delivery.
- If the writer is glad about what was bought, answer praise.
"""
MAILS = """Please send my money for order 17 back.
My parcel has not arrived yet.
I have bought three of these and love every one.
I want my money back.
Where is my package? It should have been here on Monday.
Best kettle I have ever owned, thank you!
You charged me twice; return one of the two payments.
The courier left the box at the wrong house.
What a lovely scarf, my mother is delighted.
The shoes do not fit, I would like to be reimbursed.
Tracking has not moved for a week.
Five stars, great quality.
Cancel the order and pay me back.
The delivery is two days late.
Thank you so much, the lamp is beautiful.
I returned the jacket; when do I get the money?
Nobody rang the bell, and the parcel went back to the depot.
Wonderful service and a perfect gift.
Das Paket ist noch nicht da.
Ich möchte mein Geld zurück.
Merci, c'est parfait!
Order 4711: still waiting.
It broke after a day. Refund me, please.
The book came quickly and reads well.
a
Is there any news of my shipment?
My invoice is wrong by 12 euros.
I am so happy with the new chair.
The bag is torn, and I want what I paid.
{{ text }} "quoted" \\ and <b>markup</b>""".splitlines()


SETTINGS = yaml.safe_load((PROJECT / f"conf/student/{MODEL}.yaml").read_text())


def exported_body(project):
    """As `pld export --format openai` prints it."""
    write_artifacts(project / "artifacts", composed().model_copy(update={"student": SETTINGS}), prompt=PROMPT)
    printed = CliRunner().invoke(pld, ["export", "--format", "openai"], catch_exceptions=False)
    return json.loads(printed.stdout)["body"]


def label_of(answer, labels=LABELS):
    """As the export's `answer.read` says it."""
    choice = answer["choices"][0]
    if (text := choice["message"]["content"].strip()) in labels:
        return text
    first = sorted(choice["logprobs"]["content"][0]["top_logprobs"], key=lambda entry: -entry["logprob"])
    for token in (entry["token"] for entry in first):
        if begun := [label for label in labels if token and label.startswith(token)]:
            return begun[0] if len(begun) == 1 else None
    return None


def test_the_exported_body_is_answered_as_in_process_where_the_student_is_sure(project):
    body = exported_body(project)
    tokenizer = load_tokenizer(locate(SETTINGS["model"], None))
    prompts = Chat(tokenizer, MODEL).prompts(prompt_messages(PROMPT), MAILS, ())
    scores = build(SETTINGS, "student").score(prompt_messages(PROMPT), MAILS, LABELS)
    answers = []
    with llama_server(context=512, parallel=1, model=MODEL) as url, httpx2.Client(timeout=60) as client:

        def post(path, content):
            return client.post(path, json=content).raise_for_status().json()

        for mail, prompt in zip(MAILS, prompts, strict=True):
            body["messages"][-1]["content"] = mail  # the template is {{ text }}
            answers.append(label_of(post(f"{url}/chat/completions", body)))
            root = url.removesuffix("/v1")
            text = post(f"{root}/apply-template", {"messages": body["messages"]})["prompt"]
            tokens = post(f"{root}/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
            assert tokens == list(prompt.ids), mail
    agree = np.array([LABELS[best] == answer for best, answer in zip(scores.argmax(axis=1), answers, strict=True)])
    margin = np.diff(np.sort(scores, axis=1), axis=1)[:, -1]
    print(f"\n{agree.sum()} of {len(MAILS)} agree; widest margin of one that does not: {margin[~agree].max():.2f} nats")
    assert TASK.input_template == "{{ text }}"
    assert set(answers) <= set(LABELS)
    assert agree.sum() >= 25  # 4 and 8 bit against float32 turns what is nearly a tie
    assert agree[margin > 1.0].all()
    assert (margin > 1.0).sum() >= 15
