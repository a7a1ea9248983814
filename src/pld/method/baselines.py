"""What the distilled prompt is measured against, for the same Student on the same examples."""

from collections.abc import Sequence

from pld.method.system_prompt import base_messages, few_shot_messages, prompt_messages
from pld.records import Example, Message, Task, content_id

CALIBRATED = "_calibrated"
"""Suffix of a system's name when its scores are calibrated."""

BASELINES = ("zero_shot", "few_shot")


def few_shot_examples(task: Task, train: Sequence[Example], size: int, seed: int) -> list[Example]:
    """`size` training examples, as many of each label as can be (earlier declared labels get one more where it does
    not divide), drawn and ordered by a seeded hash of their ids."""
    drawn: list[Example] = []
    for place, label in enumerate(task.labels):
        wanted = size // len(task.labels) + (place < size % len(task.labels))
        own = [example for example in train if example.label == label]
        drawn += sorted(own, key=lambda example: _draw(seed, example))[:wanted]
    return sorted(drawn, key=lambda example: _draw(seed, example))


def systems(task: Task, prompt: str, shots: Sequence[Example]) -> dict[str, tuple[Message, ...]]:
    """System name → the messages that come before an input."""
    return {
        "zero_shot": base_messages(task),
        "few_shot": few_shot_messages(task, shots),
        "distilled": prompt_messages(prompt),
    }


def shipped_system(method: str) -> str:
    """The system that is registered, by `calibration.method`."""
    return "distilled" + (CALIBRATED if method == "batch" else "")


def rivals(system: str) -> tuple[str, ...]:
    """The baselines that `system` is compared with: with calibration where it has it, else without."""
    suffix = CALIBRATED if system.endswith(CALIBRATED) else ""
    return tuple(name + suffix for name in BASELINES)


def _draw(seed: int, example: Example) -> str:
    return content_id([seed, "few_shot", example.id])
