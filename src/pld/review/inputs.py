"""A list that people may decide on, read from the files of the stages with what is known of each instruction; and the
prompt of any list, without the Student."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pld.artifacts import SHIPS, read_jsonl, read_record, read_text
from pld.config.composition import with_settings
from pld.distill.render import exemplars_of, frame_system_prompt
from pld.distill.trial import groups_of
from pld.errors import ArtifactError
from pld.metrics import indices, system_report
from pld.params import Config
from pld.records import (
    EvaluationReport,
    Example,
    Instruction,
    Prediction,
    Rule,
    SystemReport,
    TrialReport,
    sha256,
)
from pld.resolve.records import Descent, Effect

LEFT_BY_THE_LOOP = Path("resolve/final")


@dataclass(frozen=True)
class Evidence:
    """An instruction with what is known of it; `effect` None: not measured; `rules` behind it, the most typical
    first."""

    instruction: Instruction
    descent: Descent
    effect: Effect | None
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class ReviewedList:
    """`instructions` in the order of their prompt, the text of which has the hash `prompt_sha256`; `config` has the
    winner's settings in place."""

    folder: Path
    where: Path
    config: Config
    instructions: list[Instruction]
    prompt_sha256: str
    rules: dict[str, Rule]
    train: list[Example]

    @classmethod
    def read(cls, config: Config, folder: Path, where: Path = SHIPS) -> "ReviewedList":
        """The list at `where` under `folder` (artifacts/).

        Raises ArtifactError where a file is missing, or the list no longer makes the prompt beside it.
        """
        winner = read_record(folder / "best/trial.json", TrialReport)
        text = read_text(folder / where / "system_prompt.md")
        found = cls(
            folder=folder,
            where=where,
            config=with_settings(config, winner.settings),
            instructions=read_jsonl(folder / where / "instructions.jsonl", Instruction),
            prompt_sha256=sha256(text),
            rules={rule.id: rule for rule in read_jsonl(folder / "rules/rules.jsonl", Rule)},
            train=read_jsonl(folder / "splits/train.jsonl", Example),
        )
        if found.digest_of(found.instructions) != found.prompt_sha256:
            raise ArtifactError(
                f"{folder / where}/system_prompt.md: wanted the text that instructions.jsonl beside it makes, found "
                "another; run `dvc repro`"
            )
        return found

    def digest_of(self, instructions: Sequence[Instruction]) -> str:
        """Hash of the prompt of `instructions`, in this order: nothing is cut, so no token needs counting."""
        for own in instructions:
            for rule_id in own.rule_ids:
                if rule_id not in self.rules:
                    raise ArtifactError(
                        f"{self.folder}/rules/rules.jsonl: wanted the rule {rule_id} of {own.id}, found none; run "
                        "`dvc repro`"
                    )
        exemplars = exemplars_of(instructions, self.rules, {example.id: example for example in self.train})
        rendering = self.config.rendering
        return frame_system_prompt(self.config.task, instructions, exemplars, rendering, lambda _: 0).sha256

    def evidence(self) -> list[Evidence]:
        """One for each instruction, in turn. Raises ArtifactError where the files are not of one list."""
        folder = self.folder / self.where
        descents = {own.instruction_id: own for own in read_jsonl(folder / "descent.jsonl", Descent)}
        path = folder / "ablation.jsonl"
        effects = {own.instruction_id: own for own in read_jsonl(path, Effect)} if path.exists() else {}
        missing = [own.id for own in self.instructions if own.id not in descents]
        if missing:
            raise ArtifactError(f"{folder}/descent.jsonl: wanted a line for {missing[0]}, found none; run `dvc repro`")
        return [
            Evidence(own, descents[own.id], effects.get(own.id), tuple(self.rules[rule_id] for rule_id in own.rule_ids))
            for own in self.instructions
        ]

    def on_validation(self) -> SystemReport:
        """The figures of the Student's answers that stand beside the list."""
        validation = read_jsonl(self.folder / "splits/validation.jsonl", Example)
        return figures(self.config, validation, read_jsonl(self.folder / self.where / "predictions.jsonl", Prediction))

    def on_test(self) -> EvaluationReport | None:
        """The last evaluation, if it is of this prompt."""
        path = self.folder / "evaluation/report.json"
        report = read_record(path, EvaluationReport) if path.exists() else None
        return report if report and report.prompt_sha256 == self.prompt_sha256 else None


def figures(config: Config, examples: Sequence[Example], rows: Sequence[Prediction]) -> SystemReport:
    """All figures of `rows`, the answers to `examples` in turn (tokens aside). Raises ArtifactError where they are of
    others."""
    if [row.example_id for row in rows] != [example.id for example in examples]:
        raise ArtifactError("predictions.jsonl: wanted answers to all validation examples; run `dvc repro`")
    labels, settings = config.task.labels, config.evaluation
    return system_report(
        indices([example.label for example in examples], labels),
        indices([row.predicted for row in rows], labels),
        labels,
        groups_of(examples),
        settings.resamples,
        settings.seed,
        0,
    )
