"""What a proposer of Edits is shown, and what it answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pld.ports import Vectors
from pld.records import Example, Instruction, Rule, Task
from pld.resolve.records import Blame, Edit, EditVerdict


@dataclass(frozen=True)
class Answered:
    """An example of the pool as the Student answered it. `margin` ≥ 0: of a failure the log-score of its answer less
    that of the gold label, of a success that of the gold label less that of the runner-up."""

    example: Example
    predicted: str | None
    margin: float

    @property
    def right(self) -> bool:
        return self.predicted == self.example.label

    @property
    def cell(self) -> str:
        """Its place in the confusion matrix, as `gold -> predicted`."""
        return f"{self.example.label} -> {self.predicted}"


@dataclass(frozen=True)
class Evidence:
    """What one round found. `instructions` stand in the order of the prompt; `blames` in the order of `instructions`;
    `rules` [n] with `vectors` [n, d] (rows of length one) are all there are; `clusters` maps a rule's id to its cluster
    (noise has none); `earlier`: what became of the Edits of this same list in earlier rounds."""

    round: int
    task: Task
    instructions: Sequence[Instruction]
    failures: Sequence[Answered]
    successes: Sequence[Answered]
    blames: Sequence[Blame]
    rules: Sequence[Rule]
    vectors: Vectors
    clusters: Mapping[str, int]
    earlier: Sequence[EditVerdict] = ()


@dataclass(frozen=True)
class Proposal:
    """An Edit; `rule_ids` stand behind its text (none: those of the instruction that it changes), `example_ids` are the
    failures that it answers."""

    edit: Edit
    rule_ids: tuple[str, ...] = ()
    example_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proposals:
    """The best guesses first, drawn as they are needed; `trouble` says why there are none."""

    edits: Iterable[Proposal]
    trouble: str | None = None
    calls: int = 0
    usage: Mapping[str, int] = field(default_factory=dict)


class Proposer(Protocol):
    """Decides which Edits are worth a try. Deterministic."""

    name: str

    def propose(self, evidence: Evidence) -> Proposals:
        """Never raises for a bad answer: that is `trouble`. Raises TeacherError where the Teacher can't be asked."""
        ...
