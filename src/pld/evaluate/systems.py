"""What a system is: the distilled prompt and every baseline, behind one interface."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pld.distill.calibrating import Part
from pld.distill.render import render_input
from pld.ports import Generation, OnProgress, Scores, Student
from pld.records import Calibration, Example, Message, Task
from pld.reports import TrainingCost


@dataclass(frozen=True)
class Replies:
    """Answers to examples [n]: `scores` [n, k]; `chats` [n], what the Student read and wrote before each label (empty
    without an LLM); `chains` [n], its chains of thought (empty without)."""

    scores: Scores
    chats: Sequence[Sequence[Message]] = ()
    chains: Sequence[Generation] = ()


class Answer(Protocol):
    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        """Log-scores of the declared labels for each of `examples`; the gold labels are not read. A row that can't be
        scored is NaN. A call with one example is one request as it is served, with embedding and choice of shots."""
        ...


@dataclass(frozen=True)
class System:
    """`student` (None: no LLM) answers after `beginning`, the messages that all requests share.

    `readable`: what a person can read of it. `training`, `training_seconds` (None: nothing is trained): its one-time
    cost. Scores are calibrated by `calibration`, which was fitted on `calibration_parts`, or (None) is fitted to the
    system's answers on them; without either there is no calibrated variant. `labelled`: ids of the labelled examples
    behind it, without those of its calibration. Slow systems set `sample`, the number of test examples that they
    answer, and `requests`, the number of requests that are timed (None: all, and `latency.requests`).
    """

    name: str
    answer: Answer
    readable: str
    student: Student | None = None
    beginning: tuple[Message, ...] = ()
    training: TrainingCost = field(default_factory=TrainingCost)
    training_seconds: float | None = None
    calibration: Calibration | None = None
    calibration_parts: Sequence[Part] = ()
    labelled: frozenset[str] = frozenset()
    sample: int | None = None
    requests: int | None = None

    @property
    def calibrated_on(self) -> tuple[Example, ...]:
        """The training examples behind its calibration."""
        return tuple(example for part in self.calibration_parts for example in part.examples)

    @property
    def to_calibrate(self) -> Sequence[Example]:
        """The examples that it must answer so that its calibration can be fitted."""
        return self.calibrated_on if self.calibration is None else ()


@dataclass(frozen=True)
class Prompted:
    """The Student after messages that are the same for every input."""

    task: Task
    student: Student
    beginning: tuple[Message, ...]

    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        inputs = [render_input(self.task, example.inputs) for example in examples]
        scores = self.student.score(self.beginning, inputs, self.task.labels, on_progress)
        return Replies(scores, [(*self.beginning, user_message(text)) for text in inputs])


def user_message(text: str) -> Message:
    return Message(role="user", content=text)
