"""A made-up task, its examples, and answers to them of which a wanted share is right."""

import hashlib
from collections.abc import Sequence

import numpy as np

from pld.metrics import indices
from pld.records import Example, Split
from pld.task_params import RecordsReader, TaskParams

LABELS = ("refund", "delivery", "praise")
TASK = TaskParams(
    name="mail",
    labels=LABELS,
    fields=("text",),
    input_template="{{ text }}",
    base_instruction="What is the mail about? Answer with one word: refund, delivery or praise.",
    reader=RecordsReader(
        format="records",
        path="mail.csv",
        fields={"text": "text"},
        label="label",
        options=None,
        id=None,
        group=None,
        split=None,
    ),
)
TEXT = "Here is mail number {n}."
_TEXTS = {
    "refund": "Please send my money for order {n} back.",
    "delivery": "My parcel number {n} has not arrived yet.",
    "praise": "I have bought {n} of these and love every one.",
}


def mails(split: Split, size: int, groups: bool = False, labels: Sequence[str] = LABELS) -> list[Example]:
    """Made-up mails, the labels in turn."""
    found = []
    for n in range(size):
        label = labels[n % len(labels)]
        text = _TEXTS.get(label, TEXT).format(n=f"{split} {n}")
        group = f"customer {n // 3}" if groups else None
        found.append(Example(id=f"{split}-{n}", inputs={"text": text}, label=label, split=split, group=group))
    return found


def scores(examples: list[Example], share: float, labels: Sequence[str] = LABELS) -> np.ndarray:
    """[n, k] scores that answer `share` of the examples well, the same ones in every call."""
    gold = indices([example.label for example in examples], labels)
    found = np.full((len(examples), len(labels)), -3.0)
    for row, (example, label) in enumerate(zip(examples, gold, strict=True)):
        draw = int(hashlib.sha256(example.id.encode()).hexdigest()[:8], 16) / 2**32
        found[row, label if draw < share else (label + 1) % len(labels)] = -0.1
    return found
