"""Reads the list of instructions under review, with the evidence on each one, from the artifacts of earlier stages."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pld.artifacts import MESSAGES_FILE, SHIPS, read_jsonl, read_prompt, read_record
from pld.config.build import build
from pld.config.composition import with_settings
from pld.distill.render import exemplars_of, frame_system_prompt, turn_examples
from pld.distill.trial import groups_of
from pld.errors import ArtifactError
from pld.metrics import indices, system_report
from pld.params import Config
from pld.ports import Student
from pld.records import Example, Instruction, Message, Messages, Prediction, Rule, prompt_sha256
from pld.reports import EvaluationReport, SystemReport, TrialReport
from pld.resolve.records import Descent, Effect

LEFT_BY_THE_LOOP = Path("resolve/final")


@dataclass(frozen=True)
class ReviewItem:
    """An instruction and the evidence on it. `effect` None: not measured; `rules`: the most typical first."""

    instruction: Instruction
    descent: Descent
    effect: Effect | None
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class ReviewedList:
    """`instructions` in prompt order; `messages`: their prompt; `config`: with the settings of the trial
    that won the sweep."""

    folder: Path
    where: Path
    config: Config
    instructions: list[Instruction]
    messages: tuple[Message, ...]
    rules: dict[str, Rule]
    train: list[Example]

    @classmethod
    def read(cls, config: Config, folder: Path, where: Path = SHIPS) -> "ReviewedList":
        """The list at `where` under `folder` (artifacts/).

        Raises ArtifactError if a file is missing, or the list doesn't render to the prompt beside it.
        """
        winner = read_record(folder / "best/trial.json", TrialReport)
        messages = read_prompt(folder / where)
        found = cls(
            folder=folder,
            where=where,
            config=with_settings(config, winner.settings),
            instructions=read_jsonl(folder / where / "instructions.jsonl", Instruction),
            messages=messages,
            rules={rule.id: rule for rule in read_jsonl(folder / "rules/rules.jsonl", Rule)},
            train=read_jsonl(folder / "splits/train.jsonl", Example),
        )
        if found.digest_of(found.instructions) != found.prompt_sha256:
            raise ArtifactError(
                "expected the prompt that instructions.jsonl beside it makes, got another "
                f"({folder / where / MESSAGES_FILE}); run `dvc repro`"
            )
        return found

    @property
    def prompt_sha256(self) -> str:
        return prompt_sha256(self.messages)

    @property
    def turns(self) -> list[tuple[str, Example]]:
        """The example turns as (rendered input, training example)."""
        examples = {example.id: example for example in self.train}
        shown = turn_examples(self.config.task, self.messages, self.train)
        return [(turn.content, examples[own]) for turn, own in zip(self.messages[1::2], shown, strict=True)]

    def digest_of(self, instructions: Sequence[Instruction]) -> str:
        """Hash of the prompt of `instructions`; needs the Student's tokenizer only if turns may be cut."""
        for own in instructions:
            for rule_id in own.rule_ids:
                if rule_id not in self.rules:
                    raise ArtifactError(
                        f"expected the rule {rule_id} of {own.id}, got none ({self.folder}/rules/rules.jsonl); run "
                        "`dvc repro`"
                    )
        config = self.config
        exemplars = exemplars_of(instructions, self.rules, {example.id: example for example in self.train}, config)
        return frame_system_prompt(config.task, instructions, exemplars, config.rendering, self._count_tokens).sha256

    def _count_tokens(self, messages: Messages) -> int:
        rendering = self.config.rendering
        if rendering.token_budget is None or rendering.exemplars_as == "inline":
            return 0
        student: Student = build(self.config.student, "student")
        return student.count_tokens(messages)

    def items(self) -> list[ReviewItem]:
        """One per instruction, in order. Raises ArtifactError if the files belong to different lists."""
        folder = self.folder / self.where
        descents = {own.instruction_id: own for own in read_jsonl(folder / "descent.jsonl", Descent)}
        path = folder / "ablation.jsonl"
        effects = {own.instruction_id: own for own in read_jsonl(path, Effect)} if path.exists() else {}
        missing = [own.id for own in self.instructions if own.id not in descents]
        if missing:
            raise ArtifactError(f"expected a line for {missing[0]}, got none ({folder}/descent.jsonl); run `dvc repro`")
        return [
            ReviewItem(
                own, descents[own.id], effects.get(own.id), tuple(self.rules[rule_id] for rule_id in own.rule_ids)
            )
            for own in self.instructions
        ]

    def on_validation(self) -> SystemReport:
        """Figures of the stored predictions on validation (tokens aside). Raises ArtifactError if they are of other
        examples."""
        examples = read_jsonl(self.folder / "splits/validation.jsonl", Example)
        path = self.folder / self.where / "predictions.jsonl"
        rows = read_jsonl(path, Prediction)
        if [row.example_id for row in rows] != [example.id for example in examples]:
            raise ArtifactError(f"expected answers to all validation examples, got others ({path}); run `dvc repro`")
        labels, settings = self.config.task.labels, self.config.evaluation
        return system_report(
            indices([example.label for example in examples], labels),
            indices([row.predicted for row in rows], labels),
            labels,
            groups_of(examples),
            settings.resamples,
            settings.seed,
            0,
        )

    def on_test(self) -> EvaluationReport | None:
        """The last evaluation, if it measured this prompt."""
        path = self.folder / "evaluation/report.json"
        report = read_record(path, EvaluationReport) if path.exists() else None
        return report if report and report.prompt_sha256 == self.prompt_sha256 else None
