"""Scores examples with the prompt of any list of instructions, each example once per prompt and precision."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pld.artifacts import MESSAGES_FILE, read_prompt
from pld.calibration import calibrate
from pld.distill.calibrating import calibration_parts, fitted
from pld.distill.consolidate import weigher
from pld.distill.render import exemplars_of, frame_system_prompt
from pld.distill.trial import comparable, groups_of, score_examples
from pld.errors import ArtifactError
from pld.metrics import Indices, choose, indices, system_report
from pld.params import Config
from pld.ports import OnProgress, Scores, Student
from pld.records import Calibration, Example, Instruction, Message, Rule, SystemPrompt
from pld.reports import SystemReport


@dataclass
class CachedScorer:
    """`config`: with the settings of the trial that won; `rules` and `train` by id; `explained`: ids of the training
    examples that the Teacher explained.

    `searching` asks at the search's precision instead of the reporting one. Scores are calibrated if `config` says so:
    for comparing prompts by the very examples that are asked about (`comparable`), which takes no further answers; for
    the prompt that ships by a calibration fitted on training examples. `calibrations`: prompt sha256 → the one that an
    earlier stage fitted and that is kept: fitted again in bfloat16, the same prompt would get slightly other figures.
    `weigh`: rule ids → their weight as support. `asked`: how many answers the Student gave.
    """

    config: Config
    rules: Mapping[str, Rule]
    train: Mapping[str, Example]
    explained: Collection[str]
    student: Student
    on_progress: OnProgress | None = None
    asked: int = field(default=0, init=False)
    calibrations: dict[str, Calibration] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.weigh = weigher(self.rules.values(), self.config.clustering)
        self._searching = self.student.for_search()
        self._prompts: dict[tuple[Instruction, ...], SystemPrompt] = {}
        self._scores: dict[tuple[str, bool], dict[str, Scores]] = {}

    def prompt(self, instructions: Sequence[Instruction]) -> SystemPrompt:
        """The prompt of `instructions` in this order."""
        key = tuple(instructions)
        if key not in self._prompts:
            exemplars = exemplars_of(key, self.rules, self.train, self.config)
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
        """[n, k] scores of the declared labels, for comparing prompts on the same `examples`."""
        return comparable(self.config, self.raw_scores(prompt, examples, searching=searching), examples)

    def chosen(self, prompt: SystemPrompt, examples: Sequence[Example], *, searching: bool = False) -> Indices:
        """[n] indices of the declared labels, -1 if an example could not be scored."""
        return choose(self.scores(prompt, examples, searching=searching))

    def shipped_scores(self, prompt: SystemPrompt, examples: Sequence[Example]) -> tuple[Scores, Calibration]:
        """[n, k] scores as they are served if `prompt` ships, and its calibration, fitted on training examples."""
        config, raw, train = self.config, self.raw_scores(prompt, examples), self.train.values()
        calibration = self.calibrations.get(prompt.sha256)
        if calibration is None:
            parts = calibration_parts(config.task, config.calibration, prompt.messages, train, self.explained)
            calibration = fitted(config.task, config.calibration, parts, self._scores_after)
        return (raw if config.calibration.method == "none" else calibrate(raw, calibration)), calibration

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

    def _scores_after(self, messages: Sequence[Message], examples: Sequence[Example]) -> Scores:
        self.asked += len(examples)
        return score_examples(self.student, self.config.task, messages, examples, self.on_progress)
