"""Someone with a prompt of his own in MLflow, labelled mails, and a model that reads `- ` lines as rules."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from pld.metrics import choose
from pld.ports import TeacherAnswer
from pld.records import Message
from support.anthropic_server import answer
from support.mails import LABELS, mails
from support.word_student import WordStudent

PROMPT = "  Wovon handelt die Mail?\r\nText: {{ text }}\n\tKunde: {{customer}}\n"
CUES = {"refund": "please or money", "delivery": "parcel or arrived", "praise": "bought or love"}


def records(size: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "inputs": {"text": example.inputs["text"], "customer": f"c{n}"},
            "expectations": {"expected_response": example.label},
        }
        for n, example in enumerate(mails("train", size))
    ]


def answered(prompt: str, text: str) -> str:
    """The label that a stand-in for the owner's model answers to a filled prompt."""
    scores = WordStudent().score([Message(role="system", content=prompt)], [text], LABELS)
    return LABELS[int(choose(scores)[0])]


def rule_for(label: str) -> dict[str, str]:
    return {"rationale": "It says so.", "rule": f"If it tells of {CUES[label]}, answer {label}", "label": label}


def gold_of(prompt: str) -> str:
    found = re.search(r"Gold label: (\w+)", prompt)
    assert found, prompt
    return found.group(1)


def respond(body, attempt):
    """The Messages API's side of a Teacher that explains well."""
    return answer(rule_for(gold_of(body["messages"][0]["content"])))


class SayingTeacher:
    """`say(label)` → the content of its answers."""

    name = "saying"

    def __init__(self, say=rule_for) -> None:
        self.say = say
        self.asked = []

    def ask(self, requests):
        for request in requests:
            self.asked.append(request)
            yield TeacherAnswer(key=request.key, content=self.say(gold_of(request.prompt)))


class CueEmbedder:
    """Counts of the cues, as unit vectors [n, 3]."""

    def embed(self, texts: Sequence[str], on_progress=None) -> np.ndarray:
        rows = [[1e-3 + sum(word in text for word in cues.split(" or ")) for cues in CUES.values()] for text in texts]
        vectors = np.array(rows, dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def exceed_window(self, texts: Sequence[str]) -> list[bool]:
        return [False] * len(texts)


def messages_of(serialised: str) -> list[dict[str, str]]:
    return json.loads(serialised)
