"""What the loop works on, and what a round of it looks at: the pool, the failures and successes shown."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from pld.distill.cached_scorer import Answering
from pld.distill.render import exemplars_of, render_input, shown_examples
from pld.distill.text_checks import FindPersonalData
from pld.params import ResolutionParams
from pld.ports import Vectors
from pld.records import Example, Instruction, Rule
from pld.resolve import sampling
from pld.resolve.proposer import Answered, Proposer


@dataclass(frozen=True)
class Ground:
    """What the loop works on. `rules` [n] with `vectors` [n, d]; `clusters`: rule id → cluster, `noise`: ids of the
    rules that were dropped as noise; `embed`: texts → rows of length one; `max_words`, `max_copied_words`,
    `personal_data`: of an Edit's text; `phase`: entered around each part of a round, by name."""

    answering: Answering
    train: Sequence[Example]
    validation: Sequence[Example]
    rules: Sequence[Rule]
    vectors: Vectors
    clusters: Mapping[str, int]
    noise: frozenset[str]
    proposer: Proposer
    embed: Callable[[Sequence[str]], Vectors]
    params: ResolutionParams
    max_words: int
    max_copied_words: int
    personal_data: FindPersonalData | None = None
    phase: Callable[[str], AbstractContextManager[object]] = nullcontext


@dataclass
class Viewer:
    """Chooses what is looked at; the inputs' embeddings are held."""

    ground: Ground
    _vectors: dict[str, Vectors] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self._rule_of = {rule.example_id: rule for rule in self.ground.rules}

    def pool(self, number: int, present: Sequence[Instruction]) -> list[Example]:
        """Training examples whose labels the Student does not read in the prompt."""
        params, labels = self.ground.params, self.ground.answering.config.task.labels
        in_prompt = self.in_prompt(present)
        return sampling.draw_pool(self.ground.train, params.pool, labels, in_prompt, params.seed, number)

    def in_prompt(self, instructions: Sequence[Instruction]) -> set[str]:
        """Ids of the training examples that the prompt of `instructions` shows."""
        config = self.ground.answering.config
        exemplars = exemplars_of(instructions, self.ground.answering.rules, self.ground.answering.train)
        return shown_examples(config.task, instructions, exemplars, config.rendering)

    def shown(
        self, number: int, failed: Sequence[Answered], succeeded: Sequence[Answered]
    ) -> tuple[list[Answered], list[Answered]]:
        """The failures that the proposer sees, and the successes beside them."""
        params = self.ground.params
        if params.sampler == "random":
            failures = sampling.draw(failed, params.failures, params.seed, number)
            return failures, sampling.draw(succeeded, len(failures), params.seed, number)
        failures = sampling.cover(failed, params.failures, self.cluster_of)
        with self.ground.phase("guards"):
            vectors = self._embedded([*failures, *succeeded])
        return failures, sampling.guards(failures, succeeded, vectors)

    def _embedded(self, answers: Sequence[Answered]) -> Mapping[str, Vectors]:
        new = [found.example for found in answers if found.example.id not in self._vectors]
        if new:
            task = self.ground.answering.config.task
            vectors = self.ground.embed([render_input(task, example.inputs) for example in new])
            self._vectors.update(zip((example.id for example in new), vectors, strict=True))
        return self._vectors

    def cluster_of(self, example_id: str) -> int | None:
        """The cluster of the example's own rule; None where it has no rule, or one that is noise."""
        rule = self._rule_of.get(example_id)
        return self.ground.clusters.get(rule.id) if rule else None
