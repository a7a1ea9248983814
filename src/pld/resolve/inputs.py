"""What the conflict loop starts from, read from the files of earlier stages: the list that won the sweep, and a Student
to ask about it and about any other list."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pld.artifacts import read_jsonl, read_record, read_text
from pld.config.build import build
from pld.config.composition import with_settings
from pld.distill.cached_scorer import Answering
from pld.distill.cluster import chosen_rules
from pld.distill.embeddings import read_vectors
from pld.distill.trial import sample
from pld.errors import ArtifactError
from pld.params import Config
from pld.ports import Vectors
from pld.records import Cluster, Example, Instruction, Rule, TrialReport


@dataclass(frozen=True)
class ListGround:
    """`config` has the winner's settings in place; `instructions` came in, in the order of their prompt; `vectors`
    [n, d] belong to `rules` [n], those that the winner clustered (`clustering.draw`, `clustering.doubtful`);
    `clusters`: rule id → cluster, without the rules of `noise`, which were dropped."""

    config: Config
    answering: Answering
    instructions: list[Instruction]
    train: list[Example]
    validation: list[Example]
    rules: list[Rule]
    vectors: Vectors
    clusters: dict[str, int]
    noise: list[str]
    winner: TrialReport


def load_answering(config: Config, folder: Path) -> ListGround:
    """Read `folder` (artifacts/) under the composed `config`; the test split is not looked at.

    Raises ArtifactError where the files are not of one run, or their list no longer makes the prompt that won.
    """
    winner = read_record(folder / "best/trial.json", TrialReport)
    config = with_settings(config, winner.settings)
    every = read_jsonl(folder / "rules/rules.jsonl", Rule)
    rules, vectors = chosen_rules(every, read_vectors(folder, every), config.clustering)
    train = read_jsonl(folder / "splits/train.jsonl", Example)
    instructions = read_jsonl(folder / "best/instructions.jsonl", Instruction)
    _check_rules(folder, instructions, rules, train)
    answering = Answering(
        config=config,
        rules={rule.id: rule for rule in rules},
        train={example.id: example for example in train},
        calibrated_on=sample(train, config.calibration.examples, "calibration"),  # the same ones as the trial's
        student=build(config.student, "student"),
    )
    _check_prompt(folder, answering, instructions)
    clusters = read_jsonl(folder / "best/clusters.jsonl", Cluster)
    return ListGround(
        config=config,
        answering=answering,
        instructions=instructions,
        train=train,
        validation=read_jsonl(folder / "splits/validation.jsonl", Example),
        rules=list(rules),
        vectors=vectors,
        clusters={rule_id: cluster.id for cluster in clusters if not cluster.noise for rule_id in cluster.rule_ids},
        noise=[rule_id for cluster in clusters if cluster.noise for rule_id in cluster.rule_ids],
        winner=winner,
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


def _check_prompt(folder: Path, answering: Answering, instructions: list[Instruction]) -> None:
    path = folder / "best/system_prompt.md"
    if answering.prompt(instructions).text != read_text(path):
        raise ArtifactError(
            f"expected the text that {folder}/best/instructions.jsonl makes, got another ({path}); run `dvc repro`"
        )
