"""Baselines that only prompt the Student: few-shot, few-shot with the nearest examples, chain of thought."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pld import prompts
from pld.distill.input_vectors import embed_inputs
from pld.distill.render import few_shot_messages, render_input
from pld.evaluate.systems import Replies, user_message
from pld.ports import Embedder, OnProgress, Student, Vectors
from pld.records import Example, Message, Task, content_id

_CELLS = 2**23  # query-example pairs compared at a time: 32 MiB


def few_shot_examples(task: Task, train: Sequence[Example], size: int, seed: int) -> list[Example]:
    """`size` training examples, balanced over the labels (the first declared labels get one more if `size` does not
    divide), drawn by a seeded hash of their ids: one per label and round, each round in the order of the hashes. So the
    first whole rounds of a larger draw are those of a smaller one, and the Student's prefix cache serves both."""
    turns: dict[str, tuple[int, str]] = {}
    for place, label in enumerate(task.labels):
        wanted = size // len(task.labels) + (place < size % len(task.labels))
        draws = sorted((_draw(seed, example), example.id) for example in train if example.label == label)
        turns |= {drawn: (turn, draw) for turn, (draw, drawn) in enumerate(draws[:wanted])}
    return sorted((example for example in train if example.id in turns), key=lambda example: turns[example.id])


def nearest_examples(
    train: Sequence[Example], vectors: Vectors, asked: Sequence[Example], queries: Vectors, size: int
) -> list[list[Example]]:
    """For each of `asked` [m] (`queries` [m, d]) the `size` examples of `train` [n] (`vectors` [n, d]) of the highest
    cosine similarity, the nearest last; rows have unit length. A training example is not its own neighbour; ties go to
    the earlier example."""
    found = []
    at_a_time = max(1, _CELLS // max(len(train), 1))
    for start in range(0, len(asked), at_a_time):
        similarity = queries[start : start + at_a_time] @ vectors.T  # (some of m, n)
        for row, example in zip(similarity, asked[start : start + at_a_time], strict=True):
            order = _greatest_first(row, size + 1)  # one more, in case it finds itself
            found.append([train[at] for at in order if train[at].id != example.id][:size][::-1])
    return found


@dataclass(frozen=True)
class NearestShots:
    """The Student after the `size` examples of `train` that are nearest to each input by its embedding (kNN prompting;
    Liu et al. 2022, arXiv 2101.06804), the nearest last. `vectors` [n, d] belong to `train` [n]. A training example
    never sees itself."""

    task: Task
    student: Student
    embedder: Embedder
    train: Sequence[Example]
    vectors: Vectors
    size: int

    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        inputs = [render_input(self.task, example.inputs) for example in examples]
        queries = embed_inputs(self.embedder, self.task, examples)
        shown = nearest_examples(self.train, self.vectors, examples, queries, self.size)
        chats = [
            (*few_shot_messages(self.task, shots), user_message(text))
            for shots, text in zip(shown, inputs, strict=True)
        ]
        return Replies(self.student.score_chats(chats, self.task.labels, on_progress), chats)


@dataclass(frozen=True)
class ChainOfThought:
    """The Student thinks in at most `max_tokens`, then answers with one label, scored as usual (zero-shot chain of
    thought in two turns; Kojima et al. 2022, arXiv 2205.11916)."""

    task: Task
    student: Student
    max_tokens: int

    @property
    def beginning(self) -> tuple[Message, ...]:
        text = prompts.render(
            "chain_of_thought_system", base_instruction=self.task.base_instruction, labels=self.task.labels
        )
        return (Message(role="system", content=text),)

    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        question = user_message(prompts.render("chain_of_thought_answer", labels=self.task.labels))
        beginning = self.beginning
        asked = [(*beginning, self._to_think_about(example)) for example in examples]
        chains = self.student.generate(asked, self.max_tokens, on_progress)
        chats = [
            (*chat, Message(role="assistant", content=chain.text), question)
            for chat, chain in zip(asked, chains, strict=True)
        ]
        scores = self.student.score_chats(chats, self.task.labels)
        # no room to think: a direct answer would not be this system's
        no_room = [not chain.finished and not chain.tokens for chain in chains]
        scores[np.asarray(no_room, dtype=bool)] = np.nan
        return Replies(scores, chats, chains)

    def _to_think_about(self, example: Example) -> Message:
        return user_message(prompts.render("chain_of_thought_user", input=render_input(self.task, example.inputs)))


def _draw(seed: int, example: Example) -> str:
    return content_id([seed, "few_shot", example.id])


def _greatest_first(values: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.int64]:
    """Indices of the `size` greatest of `values` [n]; ties go to the earlier one."""
    if size >= len(values):
        return np.argsort(-values, kind="stable")
    least = np.partition(values, -size)[-size]
    enough = np.flatnonzero(values >= least)
    return enough[np.argsort(-values[enough], kind="stable")][:size]
