"""The proposer interface: the evidence of a round that it sees, and the Edits that it proposes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pld.ports import Vectors
from pld.records import Example, Instruction, Rule, Task
from pld.resolve.records import Blame, Edit, EditResult


@dataclass(frozen=True)
class Answered:
    """An example of the pool with the Student's answer. `margin` ≥ 0: for a failure, the log-score of the answer less
    that of the gold label; for a success, that of the gold label less the runner-up's."""

    example: Example
    predicted: str | None
    margin: float

    @property
    def right(self) -> bool:
        return self.predicted == self.example.label

    @property
    def cell(self) -> str:
        """The cell of the confusion matrix, as `gold -> predicted`."""
        return f"{self.example.label} -> {self.predicted}"


@dataclass(frozen=True)
class Evidence:
    """What a proposer sees. `instructions`: in prompt order, `blames` in the same; `rules` [n] with unit `vectors`
    [n, d]; `clusters`: rule id → cluster (none for noise); `earlier`: results of earlier Edits of this same list."""

    round: int
    task: Task
    instructions: Sequence[Instruction]
    failures: Sequence[Answered]
    successes: Sequence[Answered]
    blames: Sequence[Blame]
    rules: Sequence[Rule]
    vectors: Vectors
    clusters: Mapping[str, int]
    earlier: Sequence[EditResult] = ()


@dataclass(frozen=True)
class Proposal:
    """An Edit; `rule_ids` support its text (none: those of the edited instruction do); `example_ids`: the failures that
    it addresses."""

    edit: Edit
    rule_ids: tuple[str, ...] = ()
    example_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Proposals:
    """Best guesses first, generated lazily; `trouble`: why there are none."""

    edits: Iterable[Proposal]
    trouble: str | None = None
    calls: int = 0
    usage: Mapping[str, int] = field(default_factory=dict)


class Proposer(Protocol):
    """Decides which Edits to try. Deterministic."""

    name: str

    def propose(self, evidence: Evidence) -> Proposals:
        """Reports a bad answer as `trouble`. Raises TeacherError if the Teacher can't be asked."""
        ...
