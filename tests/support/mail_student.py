"""A scripted Student for made-up mails: with instructions it goes by the mail's words, else it says the first label."""

from collections.abc import Mapping, Sequence

import numpy as np

from support.mails import LABELS, TASK

CUES = {"refund": "money", "delivery": "parcel", "praise": "love"}


class MailStudent:
    name = "mail"

    def __init__(self, engine: str = "words") -> None:
        self._engine = engine
        self.asked = 0

    def score(self, messages, inputs: Sequence[str], labels: Sequence[str], on_progress=None) -> np.ndarray:
        self.asked += len(inputs)
        listed = messages[0].content != "" and TASK.base_instruction not in messages[0].content
        rows = [[-0.1 if (CUES[label] in text if listed else label == LABELS[0]) else -3.0 for label in labels]
                for text in inputs]  # fmt: skip
        if on_progress is not None:
            on_progress(len(inputs))
        return np.array(rows)

    def prefill(self, messages) -> None:
        pass

    def count_tokens(self, messages) -> int:
        return sum(len(message.content.split()) for message in messages)

    def describe(self) -> Mapping[str, str]:
        return {"engine": self._engine}
