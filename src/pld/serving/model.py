"""A release, which is a prompt with all that its answers depend on, and the classifier that it makes.

Weights are not copied: the Student's section of conf/ names an asset, a hub id or a folder.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pld.artifacts import MESSAGES_FILE, PROMPT_FILE, read_prompt, read_record, read_text, write_json, write_prompt
from pld.calibration import calibrate
from pld.config.build import build
from pld.distill.render import prompt_messages, render_input
from pld.errors import RegistryError
from pld.metrics import choose
from pld.ports import OnProgress, Scores, Student
from pld.records import Calibration, Instruction, Message, Messages, Prediction, Record, Task, content_id, prompt_sha256

SPEC_FILE = "served.json"


class ServedSpec(Record):
    """What answers depend on besides the prompt's text; `student` is the composed section of conf/."""

    task: Task
    student: dict[str, Any]
    calibration: Calibration | None
    prompt_sha256: str
    prompt_version: str = ""

    @property
    def key(self) -> str:
        """Content id: the same prompt, calibration, Student and task are the same version."""
        return content_id(self.model_dump(mode="json", exclude={"prompt_version"}))


@dataclass(frozen=True)
class Release:
    """A prompt to serve or export: a registered version (`number` of the registered `model`), or (None) what the
    artifacts ship now. `messages` have the sha256 that `spec` names.

    For a version, `instructions` are those of the run that produced it, `predictions` those of the shipped system on
    the test set (md5 `test_digest`) on which it was measured last.
    """

    spec: ServedSpec
    messages: tuple[Message, ...]
    model: str | None = None
    number: int | None = None
    aliases: frozenset[str] = frozenset()
    instructions: tuple[Instruction, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    test_digest: str = ""
    prompt_tokens: int = 0

    @property
    def prompt(self) -> str:
        """The text of the system message."""
        return self.messages[0].content


@dataclass(frozen=True)
class Classified:
    """`labels` [n] of n records (None: could not be scored) and their calibrated `scores` [n, k]."""

    labels: Sequence[str | None]
    scores: Scores


class PromptClassifier:
    """Classifies records exactly as `evaluate` measured."""

    def __init__(self, spec: ServedSpec, messages: Messages, student: Student | None = None) -> None:
        if (digest := prompt_sha256(messages)) != spec.prompt_sha256:
            raise RegistryError(
                f"expected the prompt with sha256 {spec.prompt_sha256[:12]}, got {digest[:12]} ({MESSAGES_FILE}); "
                "register the prompt again"
            )
        self.spec = spec
        self._messages = messages
        self._student: Student = student or build(spec.student, "student")

    @classmethod
    def load(cls, folder: Path) -> "PromptClassifier":
        """From the files that `write_files` wrote."""
        return cls(read_record(folder / SPEC_FILE, ServedSpec), read_served_prompt(folder))

    def warm_up(self) -> None:
        """Load the weights and fill the system prompt's cache."""
        self._student.prefill(self._messages)

    def scores(self, records: Sequence[Mapping[str, str]], on_progress: OnProgress | None = None) -> Scores:
        """Calibrated log-scores [n, k] in the order of the declared labels; NaN: can't be scored."""
        task = self.spec.task
        inputs = [render_input(task, record) for record in records]
        scores = self._student.score(self._messages, inputs, task.labels, on_progress)
        return scores if self.spec.calibration is None else calibrate(scores, self.spec.calibration)

    def classify(self, records: Sequence[Mapping[str, str]], on_progress: OnProgress | None = None) -> Classified:
        labels = self.spec.task.labels
        scores = self.scores(records, on_progress) if records else np.empty((0, len(labels)))
        return Classified([labels[best] if best >= 0 else None for best in choose(scores)], scores)

    def rows(self, found: Classified) -> list[dict[str, Any]]:
        """Per record: `label`, `score_<label>` per label (None: could not be scored), `prompt_sha256`,
        `prompt_version`."""
        names = [f"score_{label}" for label in self.spec.task.labels]
        nothing = dict.fromkeys(names)
        version = {"prompt_sha256": self.spec.prompt_sha256, "prompt_version": self.spec.prompt_version}
        return [
            {"label": label, **(nothing if label is None else dict(zip(names, row, strict=True))), **version}
            for label, row in zip(found.labels, found.scores.tolist(), strict=True)
        ]

    def frame(self, found: Classified) -> Any:
        """`rows` as a DataFrame; the score columns are float64 if every record could be scored."""
        import pandas as pd

        names = [f"score_{label}" for label in self.spec.task.labels]
        columns = ["label", *names, "prompt_sha256", "prompt_version"]
        frame = pd.DataFrame(self.rows(found), columns=columns, dtype=object)
        return frame if None in found.labels else frame.astype(dict.fromkeys(names, "float64"))


def write_files(folder: Path, spec: ServedSpec, messages: Messages) -> dict[str, str]:
    """Write what `PromptClassifier.load` reads; returns MLflow's artifact name → path."""
    write_prompt(folder, messages)
    write_json(folder / SPEC_FILE, spec)
    return {
        "prompt": str(folder / PROMPT_FILE),
        "messages": str(folder / MESSAGES_FILE),
        "spec": str(folder / SPEC_FILE),
    }


def read_served_prompt(folder: Path) -> tuple[Message, ...]:
    """The prompt that `write_files` wrote; that of an older version is a text alone. Raises ArtifactError."""
    if (folder / MESSAGES_FILE).exists():
        return read_prompt(folder)
    return prompt_messages(read_text(folder / PROMPT_FILE))
