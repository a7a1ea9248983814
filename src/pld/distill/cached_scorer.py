"""Scores examples with the prompt of any list of instructions, each example once per prompt and precision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pld.artifacts import MESSAGES_FILE, read_prompt
from pld.calibration import calibrate, fit_batch
from pld.distill.consolidate import weigher
from pld.distill.render import exemplars_of, frame_system_prompt
from pld.distill.trial import groups_of, score_examples
from pld.errors import ArtifactError
from pld.metrics import Indices, choose, indices, system_report
from pld.params import Config
from pld.ports import OnProgress, Scores, Student
from pld.records import Calibration, Example, Instruction, Rule, SystemPrompt, SystemReport


@dataclass
class CachedScorer:
    """`config`: with the settings of the trial that won; `rules` and `train` by id; `calibrated_on`: a part of train.

    `searching` asks at the search's precision instead of the reporting one. Scores are calibrated if `config` says so.
    `weigh`: rule ids → their weight as support. `asked`: how many answers the Student gave.
    """

    config: Config
    rules: Mapping[str, Rule]
    train: Mapping[str, Example]
    calibrated_on: Sequence[Example]
    student: Student
    on_progress: OnProgress | None = None
    asked: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.weigh = weigher(self.rules.values(), self.config.clustering)
        self._searching = self.student.for_search()
        self._prompts: dict[tuple[Instruction, ...], SystemPrompt] = {}
        self._scores: dict[tuple[str, bool], dict[str, Scores]] = {}

    def prompt(self, instructions: Sequence[Instruction]) -> SystemPrompt:
        """The prompt of `instructions` in this order."""
        key = tuple(instructions)
        if key not in self._prompts:
            exemplars = exemplars_of(key, self.rules, self.train, self.config.rendering)
            self._prompts[key] = frame_system_prompt(
                self.config.task, key, exemplars, self.config.rendering, self.student.count_tokens
            )
        return self._prompts[key]

    def check_prompt(self, instructions: Sequence[Instruction], folder: Path) -> None:
        """Raises ArtifactError unless `instructions`, read from `folder`, render to the prompt beside them."""
        if self.prompt(instructions).messages != read_prompt(folder):
            raise ArtifactError(
                f"expected the prompt that {folder}/instructions.jsonl makes, got another ({folder / MESSAGES_FILE}); "
                "run `dvc repro`"
            )

    def scores(self, prompt: SystemPrompt, examples: Sequence[Example], *, searching: bool = False) -> Scores:
        """[n, k] log-scores of the declared labels."""
        raw = self.raw_scores(prompt, examples, searching=searching)
        if self.config.calibration.method != "batch":
            return raw
        return calibrate(raw, self.calibration(prompt, searching=searching))

    def chosen(self, prompt: SystemPrompt, examples: Sequence[Example], *, searching: bool = False) -> Indices:
        """[n] indices of the declared labels, -1 if an example could not be scored."""
        return choose(self.scores(prompt, examples, searching=searching))

    def calibration(self, prompt: SystemPrompt, *, searching: bool = False) -> Calibration:
        return fit_batch(self.raw_scores(prompt, self.calibrated_on, searching=searching), self.config.task.labels)

    def report(self, prompt: SystemPrompt, examples: Sequence[Example]) -> SystemReport:
        """All figures on `examples` at the reporting precision."""
        labels, settings = self.config.task.labels, self.config.evaluation
        return system_report(
            self.gold(examples),
            self.chosen(prompt, examples),
            labels,
            groups_of(examples),
            settings.resamples,
            settings.seed,
            self.student.count_tokens(prompt.messages),
        )

    def gold(self, examples: Sequence[Example]) -> Indices:
        """[n] indices of the gold labels."""
        return indices([example.label for example in examples], self.config.task.labels)

    def raw_scores(self, prompt: SystemPrompt, examples: Sequence[Example], *, searching: bool = False) -> Scores:
        """[n, k] log-scores without calibration."""
        searching = searching and self._searching is not self.student
        held = self._scores.setdefault((prompt.sha256, searching), {})
        new = list({example.id: example for example in examples if example.id not in held}.values())
        if new:
            student = self._searching if searching else self.student
            scored = score_examples(student, self.config.task, prompt.messages, new, self.on_progress)
            held.update(zip((example.id for example in new), scored, strict=True))
            self.asked += len(new)
        return np.array([held[example.id] for example in examples]).reshape(len(examples), len(self.config.task.labels))
