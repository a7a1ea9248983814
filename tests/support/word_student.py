"""A scripted Student: it scores a label by the words that an input shares with the instructions for it."""

import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pld.config.composition import compose_groups
from pld.config.defaults import SELECTIONS
from pld.distill.cached_scorer import CachedScorer
from pld.distill.consolidate import RuleGroup, make_instruction
from pld.params import Config
from pld.records import Example, Instruction, Rule, Split, content_id
from pld.task_params import RecordsReader, TaskParams

LABELS = ("red", "green", "blue")
CUES = {
    "red": ("apple", "brick", "cherry", "fire"),
    "green": ("grass", "leaf", "lime", "moss"),
    "blue": ("sea", "sky", "whale", "ink"),
}
TASK = TaskParams(
    name="colours",
    labels=LABELS,
    fields=("text",),
    input_template="{{ text }}",
    base_instruction="Which colour?",
    reader=RecordsReader(
        format="records",
        path="x.csv",
        fields={"text": "text"},
        label="label",
        options=None,
        id=None,
        group=None,
        split=None,
    ),
)


class WordStudent:
    """Log-softmax over the labels of the number of words that an input shares with each label's lines."""

    name = "words"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []  # prompt, input

    def score(self, messages, inputs, labels, on_progress=None):
        prompt = messages[0].content
        self.asked += [(prompt, text) for text in inputs]
        lines = [line for line in prompt.splitlines() if line.startswith("- ")]
        rows = np.full((len(inputs), len(labels)), 0.0)
        for row, text in zip(rows, inputs, strict=True):
            words = set(re.findall(r"\w+", text))
            for line in lines:
                label = line.rsplit(" ", 1)[-1].rstrip(".")
                row[labels.index(label)] += len(words & set(re.findall(r"\w+", line)))
        rows -= 0.01 * np.arange(len(labels))  # ties go to the first declared label
        return rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))

    def count_tokens(self, messages):
        return sum(len(message.content.split()) for message in messages)

    def count_text_tokens(self, text):
        return len(text.split())

    def for_search(self):
        return self

    def prefill(self, messages):
        pass

    def describe(self) -> Mapping[str, str]:
        return {}


def embed(texts: Sequence[str], on_progress=None) -> np.ndarray:
    """Normalised counts of the cues in each text [n, d]."""
    vocabulary = [word for cues in CUES.values() for word in cues]
    vectors = np.array([[1e-3 + text.split().count(word) for word in vocabulary] for text in texts], dtype=np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def embed_examples(examples: Sequence[Example]) -> np.ndarray:
    return embed([example.inputs["text"] for example in examples])


def examples(split: Split, size: int, seed: int = 0, noise: float = 0.1, groups: int | None = None) -> list[Example]:
    """Texts of three cues of one label, or with probability `noise` of any; ids are numbered."""
    random = np.random.default_rng([seed, ("train", "validation", "test").index(split)])
    found = []
    for n in range(size):
        label = LABELS[n % len(LABELS)]
        source = label if random.random() >= noise else LABELS[int(random.integers(len(LABELS)))]
        words = random.choice(CUES[source], 3)
        group = f"g{n % groups}" if groups else None
        found.append(
            Example(id=f"{split}-{n}", inputs={"text": " ".join(words)}, label=label, split=split, group=group)
        )
    return found


def rule(example: Example) -> Rule:
    words = " or ".join(sorted(set(example.inputs["text"].split())))
    text = f"If it tells of {words}, answer {example.label}"
    identity = content_id([example.id, text])
    return Rule(
        id=identity, example_id=example.id, label=example.label, rationale="It says so.", text=text, teacher="t",
        doubtful=False,
    )  # fmt: skip


def instruction(text: str, label: str, rules: Sequence[Rule] = ()) -> Instruction:
    return make_instruction(text, RuleGroup(0, label, tuple(rules)), "medoid")


def config(**resolution: object) -> Config:
    """The project's own settings with this task, medoids and few resamples."""
    whole = _composed()
    changed = whole.resolution.model_copy(
        update={"pool": 30, "failures": 8, "proposals": 12, "candidates": 6, **resolution}
    )
    return whole.model_copy(update={"task": TASK, "resolution": changed})


@functools.cache
def _composed() -> Config:
    groups = SELECTIONS | {"task": "stereoset_bias", "consolidator": "medoid"}
    whole = compose_groups(Path("conf"), groups, [], "tests")
    evaluation = whole.evaluation.model_copy(update={"resamples": 200})
    gate = whole.resolution.gate.model_copy(update={"resamples": 400})
    resolution = whole.resolution.model_copy(update={"gate": gate})
    calibration = whole.calibration.model_copy(update={"method": "none"})
    return whole.model_copy(update={"evaluation": evaluation, "resolution": resolution, "calibration": calibration})


def scorer(settings: Config, train: Sequence[Example], rules: Sequence[Rule]) -> CachedScorer:
    return CachedScorer(
        config=settings,
        rules={found.id: found for found in rules},
        train={example.id: example for example in train},
        explained={found.example_id for found in rules},
        student=WordStudent(),  # type: ignore[arg-type]
    )
