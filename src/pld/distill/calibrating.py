"""Which training examples calibrate a prompt's scores, and the fit on them; every stage that fits one does it here."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from pld.calibration import FOLDS, fit
from pld.distill.render import render_input
from pld.metrics import indices
from pld.params import CalibrationParams
from pld.ports import Scores
from pld.records import Calibration, Example, Message, Task, content_id

Score = Callable[[Sequence[Message], Sequence[Example]], Scores]
"""Messages and examples [n] → log-scores [n, k]."""

_ENOUGH = 10  # examples of a label that the prompt doesn't show; with fewer, shown ones are cross-fitted

_FEW_WORDS = 3


@dataclass(frozen=True)
class Part:
    """`examples` to score after `messages`, which show none of them."""

    messages: tuple[Message, ...]
    examples: tuple[Example, ...]


def calibration_parts(
    task: Task,
    params: CalibrationParams,
    messages: Sequence[Message],
    train: Iterable[Example],
    explained: Collection[str],
) -> list[Part]:
    """The training examples that calibrate the prompt `messages`: at most `params.examples`, one label after the other,
    drawn by the hash of their ids, so that every prompt gets the same ones except for those that it shows.

    First those that the Teacher has not explained (`explained`: ids), then explained ones. A label with fewer than ten
    that the prompt doesn't show also gets shown ones, in folds: each fold is scored by the prompt without that fold's
    turns. What the text of the system message shows can't be taken out: it is left out, and a WARNING is printed if the
    label then has fewer than ten.
    """
    prompt = tuple(messages)
    turns = {message.content for message in prompt if message.role == "user"}
    systems = [message.content for message in prompt if message.role == "system"]
    queues: dict[str, list[Example]] = {label: [] for label in task.labels}
    in_turns: dict[str, list[Example]] = {label: [] for label in task.labels}
    text_of: dict[str, str] = {}  # of an example in a turn
    in_text: Counter[str] = Counter()
    for example in sorted(train, key=lambda own: (own.id in explained, content_id(["calibration", own.id]))):
        text = render_input(task, example.inputs)
        if text in turns:
            in_turns[example.label].append(example)
            text_of[example.id] = text
        elif any(_shows(system, text, example.label) for system in systems):
            in_text[example.label] += 1
        else:
            queues[example.label].append(example)
    for label, own in queues.items():
        own += in_turns[label][: max(0, _ENOUGH - len(own))]
        if in_text[label] and len(own) < _ENOUGH:
            print(
                f"calibration: WARNING: expected at least {_ENOUGH} training examples of {label!r} that the prompt "
                f"doesn't show, got {len(own)}, so its bias is uncertain; show fewer exemplars, or show them as turns"
            )
    in_turn = [example for example in chain.from_iterable(zip_longest(*queues.values())) if example is not None]
    drawn = in_turn[: params.examples]
    parts = [Part(prompt, tuple(example for example in drawn if example.id not in text_of))]
    shown = [example for example in drawn if example.id in text_of]
    for number in range(min(FOLDS, len(shown))):
        fold = tuple(shown[number::FOLDS])
        parts.append(Part(_without(prompt, {text_of[example.id] for example in fold}), fold))
    return [part for part in parts if part.examples]


def fitted(task: Task, params: CalibrationParams, parts: Sequence[Part], score: Score) -> Calibration:
    """The calibration of one prompt, fitted on its `parts`; affine if `params.method` is none, for the report."""
    examples = [example for part in parts for example in part.examples]
    scores = np.vstack([np.empty((0, len(task.labels))), *(score(part.messages, part.examples) for part in parts)])
    gold = indices([example.label for example in examples], task.labels)
    return fit("batch" if params.method == "batch" else "affine", scores, gold, task.labels)


def _shows(system: str, text: str, label: str) -> bool:
    """As the frames show an example, or anyhow; a rule may well contain an input of a few words."""
    return f"{text} -> {label}" in system or (len(text.split()) > _FEW_WORDS and text in system)


def _without(prompt: tuple[Message, ...], texts: Collection[str]) -> tuple[Message, ...]:
    """`prompt` without the user turns that are one of `texts`, and the answer after each."""
    gone = {place for place, message in enumerate(prompt) if message.role == "user" and message.content in texts}
    return tuple(message for place, message in enumerate(prompt) if not gone & {place, place - 1})
