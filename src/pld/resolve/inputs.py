"""Reads what the conflict loop works on: the list that won the sweep, its rules, train and validation, a Student."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pld.artifacts import read_jsonl, read_record
from pld.config.build import build
from pld.config.composition import with_settings
from pld.distill.cached_scorer import CachedScorer
from pld.distill.cluster import chosen_rules
from pld.distill.embeddings import read_vectors
from pld.errors import ArtifactError
from pld.params import Config, TeacherResolver
from pld.ports import Student, Vectors
from pld.records import Calibration, Cluster, Example, Instruction, Rule
from pld.reports import TrialReport
from pld.resolve.edits import restored


@dataclass(frozen=True)
class ResolveInputs:
    """`config`: with the settings of the trial that won; `instructions`: its list, in prompt order; `vectors` [n, d] of
    unit length belong to `rules` [n], the ones that it clustered; `clusters`: rule id → cluster, except for the rules
    of `noise` (ids)."""

    config: Config
    scorer: CachedScorer
    instructions: Sequence[Instruction]
    train: Sequence[Example]
    validation: Sequence[Example]
    rules: Sequence[Rule]
    vectors: Vectors
    clusters: Mapping[str, int]
    noise: frozenset[str]

    @property
    def max_words(self) -> int:
        """The limit for the text of an Edit."""
        config = self.config
        return (config.resolver if isinstance(config.resolver, TeacherResolver) else config.extraction).max_words

    def restored(self, label: str, dropped: Collection[str], origin: str) -> Instruction | None:
        """The best rule of `label`, whose text is not among `dropped`, as an instruction."""
        return restored(label, self.rules, self.vectors, self.noise, dropped, origin, self.scorer.weigh)


def load_inputs(config: Config, folder: Path, student: Student | None = None) -> ResolveInputs:
    """Read `folder` (artifacts/), except for the test split. `student`: None for the one that `config` names.

    Raises ArtifactError if the files are of different runs, or the list doesn't render to the prompt that won.
    """
    config = with_settings(config, read_record(folder / "best/trial.json", TrialReport).settings)
    every = read_jsonl(folder / "rules/rules.jsonl", Rule)
    rules, vectors = chosen_rules(every, read_vectors(folder, every), config.clustering)
    train = read_jsonl(folder / "splits/train.jsonl", Example)
    instructions = read_jsonl(folder / "best/instructions.jsonl", Instruction)
    _check_rules(folder, instructions, rules, train)
    scorer = CachedScorer(
        config=config,
        rules={rule.id: rule for rule in rules},
        train={example.id: example for example in train},
        explained={rule.example_id for rule in every},
        student=student or build(config.student, "student"),
    )
    scorer.check_prompt(instructions, folder / "best")
    won = scorer.prompt(instructions).sha256
    scorer.calibrations[won] = read_record(folder / "best/calibration.json", Calibration)
    clusters = read_jsonl(folder / "best/clusters.jsonl", Cluster)
    return ResolveInputs(
        config=config,
        scorer=scorer,
        instructions=instructions,
        train=train,
        validation=read_jsonl(folder / "splits/validation.jsonl", Example),
        rules=list(rules),
        vectors=vectors,
        clusters={rule_id: cluster.id for cluster in clusters if not cluster.noise for rule_id in cluster.rule_ids},
        noise=frozenset(rule_id for cluster in clusters if cluster.noise for rule_id in cluster.rule_ids),
    )


def _check_rules(folder: Path, instructions: list[Instruction], rules: Sequence[Rule], train: list[Example]) -> None:
    example_of = {rule.id: rule.example_id for rule in rules}
    known = {example.id for example in train}
    for instruction in instructions:
        for rule_id in instruction.rule_ids:
            if example_of.get(rule_id) not in known:
                raise ArtifactError(
                    f"expected rules of {folder}/rules/rules.jsonl with examples of {folder}/splits/train.jsonl, "
                    f"got {rule_id} of {instruction.id} ({folder}/best/instructions.jsonl); run `dvc repro`"
                )
