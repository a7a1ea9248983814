"""Reads what the report is made of from artifacts/; the test split is not read."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pld.artifacts import SHIPS, read_jsonl, read_record, read_text
from pld.config.composition import with_settings
from pld.data.splits import SplitSummary
from pld.distill.cluster import chosen_rules
from pld.distill.embeddings import read_vectors
from pld.distill.extract import ExtractionSummary
from pld.distill.render import turn_examples
from pld.params import Config
from pld.ports import Vectors
from pld.records import Cluster, Example, Instruction, Reviewed, Rule
from pld.registry.result import PipelineResult, read_result
from pld.reports import CostReport
from pld.resolve.ablation import FrontPoint, read_pareto_csv
from pld.resolve.records import Descent, EditResult, Effect


@dataclass(frozen=True)
class Outputs:
    """`config` has the winner's settings in place; `vectors` [n, d] belong to `rules` [n], those that the winner
    clustered, of `of_rules`; `left`: the list that the loop left; `effects` None: they were not measured; `edits`: of
    all rounds in turn; `turn_examples`: ids of the training examples that the prompt's turns show."""

    result: PipelineResult
    config: Config
    costs: CostReport
    splits: SplitSummary
    extraction: ExtractionSummary
    rules: list[Rule]
    vectors: Vectors
    of_rules: int
    clusters: list[Cluster]
    left: list[Instruction]
    descents: list[Descent]
    effects: list[Effect] | None
    edits: list[EditResult]
    lists: list[FrontPoint]
    reviewed: Reviewed
    turn_examples: list[str]

    @cached_property
    def cluster_of(self) -> dict[str, Cluster]:
        """Rule id → its cluster, that of noise too."""
        return {rule_id: cluster for cluster in self.clusters for rule_id in cluster.rule_ids}


def read_outputs(config: Config, folder: Path) -> Outputs:
    """Raises ArtifactError for a missing file, and for files that are not of one run."""
    result = read_result(config, folder)
    of_winner = with_settings(config, result.best.settings)
    every = read_jsonl(folder / "rules/rules.jsonl", Rule)
    rules, vectors = chosen_rules(every, read_vectors(folder, every), of_winner.clustering)
    ablation = folder / SHIPS / "ablation.jsonl"
    return Outputs(
        result=result,
        config=of_winner,
        costs=read_record(folder / "evaluation/costs.json", CostReport),
        splits=read_record(folder / "splits/summary.json", SplitSummary),
        extraction=read_record(folder / "rules/summary.json", ExtractionSummary),
        rules=list(rules),
        vectors=vectors,
        of_rules=len(every),
        clusters=read_jsonl(folder / "best/clusters.jsonl", Cluster),
        left=read_jsonl(folder / "resolve/final/instructions.jsonl", Instruction),
        descents=read_jsonl(folder / SHIPS / "descent.jsonl", Descent),
        effects=read_jsonl(ablation, Effect) if ablation.exists() else None,
        edits=[
            edit
            for path in sorted((folder / "resolve/rounds").glob("*/edits.jsonl"))
            for edit in read_jsonl(path, EditResult)
        ],
        lists=read_pareto_csv(read_text(folder / "resolve/pareto.csv")),
        reviewed=read_record(folder / "review/review.json", Reviewed),
        turn_examples=turn_examples(config.task, result.messages, read_jsonl(folder / "splits/train.jsonl", Example)),
    )
