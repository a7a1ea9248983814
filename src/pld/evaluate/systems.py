"""A system that answers: one shape for the distilled prompt and for everything that it is measured against."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pld import prompts
from pld.distill.render import few_shot_messages, render_input
from pld.evaluate.baselines import majority_scores, nearest_examples
from pld.ports import Embedder, Generation, OnProgress, Scores, Student, Vectors
from pld.records import Calibration, Example, Message, Task, TrainingCost


@dataclass(frozen=True)
class Replies:
    """What a system answered to examples [n]: `scores` [n, k]; `chats` [n], all that the Student read and wrote before
    each label (none without an LLM); `chains` [n], what it thought (none where it does not think)."""

    scores: Scores
    chats: Sequence[Sequence[Message]] = ()
    chains: Sequence[Generation] = ()


class Answer(Protocol):
    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        """Log-scores of the declared labels for each of `examples`, whose labels are not looked at; NaN in a row that
        can't be scored. With one example it is one request as it is served, embedding and choosing included."""
        ...


@dataclass(frozen=True)
class System:
    """`student` answers after `beginning`, the messages that all requests share (None: no LLM).

    `readable` says what a person can read of it; `training` and `training_seconds` (None: nothing is trained) what it
    cost once. Scores are calibrated by `calibration`, or by that of its answers on `calibrated_on` (neither: there is
    no calibrated variant). Where one answer is dear, `sample` and `requests` say how many test examples it answers and
    how many requests are timed (None: all, and `latency.requests`).
    """

    name: str
    answer: Answer
    readable: str
    student: Student | None = None
    beginning: tuple[Message, ...] = ()
    training: TrainingCost = field(default_factory=TrainingCost)
    training_seconds: float | None = None
    calibration: Calibration | None = None
    calibrated_on: Sequence[Example] = ()
    sample: int | None = None
    requests: int | None = None


@dataclass(frozen=True)
class Majority:
    """The most frequent label of `train`, whatever the input."""

    task: Task
    train: Sequence[Example]

    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        _tell(on_progress, len(examples))
        return Replies(np.tile(majority_scores(self.train, self.task.labels), (len(examples), 1)))


@dataclass(frozen=True)
class Prompted:
    """The Student after messages that are the same for every input."""

    task: Task
    student: Student
    beginning: tuple[Message, ...]

    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        inputs = [render_input(self.task, example.inputs) for example in examples]
        scores = self.student.score(self.beginning, inputs, self.task.labels, on_progress)
        return Replies(scores, [(*self.beginning, _user(text)) for text in inputs])


@dataclass(frozen=True)
class NearestShots:
    """The Student after the `size` examples of `train` that are nearest to each input by its embedding (kNN prompting;
    Liu et al. 2022, arXiv 2101.06804), the nearest one last. `vectors` [n, d] are those of `train` [n].

    An example of `train` that is asked about never sees itself.
    """

    task: Task
    student: Student
    embedder: Embedder
    train: Sequence[Example]
    vectors: Vectors
    size: int

    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        inputs = [render_input(self.task, example.inputs) for example in examples]
        shown = nearest_examples(self.train, self.vectors, examples, self.embedder.embed(inputs), self.size)
        chats = [(*few_shot_messages(self.task, shots), _user(text)) for shots, text in zip(shown, inputs, strict=True)]
        return Replies(self.student.score_chats(chats, self.task.labels, on_progress), chats)


@dataclass(frozen=True)
class ChainOfThought:
    """The Student thinks in at most `max_tokens`, then is asked for exactly one label, which is scored like any other
    (zero-shot chain of thought in two turns; Kojima et al. 2022, arXiv 2205.11916)."""

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
        question = _user(prompts.render("chain_of_thought_answer", labels=self.task.labels))
        beginning = self.beginning
        asked = [(*beginning, self._to_think_about(example)) for example in examples]
        chains = self.student.generate(asked, self.max_tokens, on_progress)
        chats = [
            (*chat, Message(role="assistant", content=chain.text), question)
            for chat, chain in zip(asked, chains, strict=True)
        ]
        scores = self.student.score_chats(chats, self.task.labels)
        # no room to think: an answer all the same would be another system's
        no_room = [not chain.finished and not chain.tokens for chain in chains]
        scores[np.asarray(no_room, dtype=bool)] = np.nan
        return Replies(scores, chats, chains)

    def _to_think_about(self, example: Example) -> Message:
        return _user(prompts.render("chain_of_thought_user", input=render_input(self.task, example.inputs)))


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _tell(on_progress: OnProgress | None, finished: int) -> None:
    if on_progress is not None:
        on_progress(finished)
