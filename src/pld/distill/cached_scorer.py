"""Lists of instructions as the Student answers with them, each example asked once for each prompt and precision."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pld.distill.consolidate import weigher
from pld.distill.render import exemplars_of, frame_system_prompt, prompt_messages
from pld.distill.trial import groups_of, score_examples
from pld.metrics import Indices, calibrate, calibration_of, choose, indices, system_report
from pld.params import Config
from pld.ports import OnProgress, Scores, Student
from pld.records import Calibration, Example, Instruction, Rule, SystemPrompt, SystemReport


@dataclass
class Answering:
    """`config` is the winner's, its settings in place; `rules` and `train` by id; `calibrated_on` is a part of train.

    `searching` asks at the search's precision, else at that of reported figures. Scores are calibrated where that is
    what ships. `weigh`: what rules (ids) count as.
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
        """The text of `instructions` in this order."""
        key = tuple(instructions)
        if key not in self._prompts:
            exemplars = exemplars_of(key, self.rules, self.train)
            self._prompts[key] = frame_system_prompt(
                self.config.task, key, exemplars, self.config.rendering, self.student.count_text_tokens
            )
        return self._prompts[key]

    def scores(self, prompt: SystemPrompt, examples: Sequence[Example], *, searching: bool = False) -> Scores:
        """[n, k] log-scores of the declared labels."""
        raw = self.raw_scores(prompt, examples, searching=searching)
        if self.config.calibration.method != "batch":
            return raw
        return calibrate(raw, self.calibration(prompt, searching=searching))

    def chosen(self, prompt: SystemPrompt, examples: Sequence[Example], *, searching: bool = False) -> Indices:
        """[n] places in the declared labels, -1 where none could be chosen."""
        return choose(self.scores(prompt, examples, searching=searching))

    def calibration(self, prompt: SystemPrompt, *, searching: bool = False) -> Calibration:
        return calibration_of(self.raw_scores(prompt, self.calibrated_on, searching=searching), self.config.task.labels)

    def report(self, prompt: SystemPrompt, examples: Sequence[Example]) -> SystemReport:
        """All figures on `examples`, at the reporting precision."""
        labels, settings = self.config.task.labels, self.config.evaluation
        return system_report(
            self.gold(examples),
            self.chosen(prompt, examples),
            labels,
            groups_of(examples),
            settings.resamples,
            settings.seed,
            self.student.count_tokens(prompt_messages(prompt.text)),
        )

    def gold(self, examples: Sequence[Example]) -> Indices:
        """[n] places of the gold labels."""
        return indices([example.label for example in examples], self.config.task.labels)

    def raw_scores(self, prompt: SystemPrompt, examples: Sequence[Example], *, searching: bool = False) -> Scores:
        """[n, k] log-scores as the Student gave them, whatever ships."""
        searching = searching and self._searching is not self.student
        held = self._scores.setdefault((prompt.sha256, searching), {})
        new = list({example.id: example for example in examples if example.id not in held}.values())
        if new:
            student = self._searching if searching else self.student
            scored = score_examples(student, self.config.task, prompt_messages(prompt.text), new, self.on_progress)
            held.update(zip((example.id for example in new), scored, strict=True))
            self.asked += len(new)
        return np.array([held[example.id] for example in examples]).reshape(len(examples), len(self.config.task.labels))
