"""The records of the domain, frozen and without unknown keys; the order of fields is the order of keys in files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

CALIBRATED = "_calibrated"
"""Suffix of the name of a system with calibrated scores."""

MAJORITY = "majority"
ZERO_SHOT = "zero_shot"
FEW_SHOT = "few_shot"
FEW_SHOT_NEAREST = "few_shot_nearest"
CHAIN_OF_THOUGHT = "chain_of_thought"
TFIDF_LOGREG = "tfidf_logreg"
EMBEDDING_LOGREG = "embedding_logreg"
LORA = "lora"
GEPA = "gepa"
CLUSTERED = "clustered"
"""The winner of the sweep, before the conflict loop."""
UNREVIEWED = "unreviewed"
"""The result of the loop, where reviewers edited it afterwards."""
DISTILLED = "distilled"
"""What ships: the result of the loop, after review."""

EXPLAINED = "_explained"
"""Suffix of the name of a classifier that is trained only on the examples that the Teacher explained."""
LOGREGS = (TFIDF_LOGREG, EMBEDDING_LOGREG, TFIDF_LOGREG + EXPLAINED, EMBEDDING_LOGREG + EXPLAINED)
WITHOUT_LLM = (MAJORITY, *LOGREGS)


class Record(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces and unescaped characters, as input of content hashes."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def content_id(value: object, length: int = 16) -> str:
    """First `length` hex digits of the sha256 of `value`'s canonical JSON."""
    return sha256(canonical_json(value))[:length]


def sha256(text: str) -> str:
    """Hex sha256 of UTF-8 text."""
    return hashlib.sha256(text.encode()).hexdigest()


class Task(Record):
    """A classification task: declared, ordered labels, input fields, the input template, the base instruction.

    `input_template` is a Jinja template over the fields; it comes from conf/, never from data.
    """

    name: str
    labels: tuple[str, ...]
    fields: tuple[str, ...]
    input_template: str
    base_instruction: str


class Example(Record):
    """One labelled input. Examples of one `group` (a contract, a thread) are all in the same split."""

    id: str
    inputs: dict[str, str]
    label: str
    split: Split
    group: str | None = None


class Rule(Record):
    """What the Teacher abstracted from one training Example. `draw` is written only when it is not 0 (an example that
    was explained more than once)."""

    id: str
    example_id: str
    label: str
    rationale: str
    text: str
    teacher: str
    doubtful: bool
    draw: int = Field(default=0, exclude_if=lambda draw: draw == 0)


class Rejection(Record):
    """A refused answer of the Teacher: `reason` is a short code for counting, `detail` explains it; `draw` as in
    Rule."""

    example_id: str
    reason: str
    detail: str
    draw: int = Field(default=0, exclude_if=lambda draw: draw == 0)


class Cluster(Record):
    """Rules that say the same thing, with their number per label; `noise` marks rules that were dropped as noise."""

    id: int
    rule_ids: tuple[str, ...]
    labels: dict[str, int]
    noise: bool


class Instruction(Record):
    """One line of the prompt. `support`: number of rules behind it (doubtful ones by their weight); `origin`: how it
    was made."""

    id: str
    text: str
    label: str
    rule_ids: tuple[str, ...]
    support: int | float
    origin: str


class Cut(Record):
    """An instruction that was cut from the prompt, and why."""

    instruction_id: str
    reason: str


class Message(Record):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


Messages = Sequence[Message]
"""A prompt: the system message, then example turns (user, assistant), if there are any."""


def prompt_sha256(messages: Messages) -> str:
    """Hash of a prompt: of its text where it is a system message alone, else of the canonical JSON of all messages."""
    if len(messages) == 1:
        return sha256(messages[0].content)
    return sha256(canonical_json([message.model_dump() for message in messages]))


LONGEST_PROMPT = 100_000
"""Characters that MLflow's prompt registry takes."""


def registered_length(messages: Messages) -> int:
    """Characters of a prompt in MLflow's registry: of its text where it is a system message alone, else of the JSON of
    all messages, in which a character beyond ASCII is six or twelve."""
    if len(messages) == 1:
        return len(messages[0].content)
    return len(json.dumps([message.model_dump() for message in messages]))


class SystemPrompt(Record):
    """Exactly what is measured and shipped: the system message `text`, then `turns` (a training example as the user's,
    its label as the assistant's). `example_ids`: training examples that either shows; `cut_turns`: examples left out
    for the token budget; `tokens` of all messages, under the Student's tokenizer."""

    text: str
    turns: tuple[Message, ...] = Field(default=(), exclude_if=lambda turns: not turns)
    instruction_ids: tuple[str, ...]
    tokens: int
    cut: tuple[Cut, ...] = ()
    example_ids: tuple[str, ...] = ()
    cut_turns: int = 0

    @property
    def messages(self) -> tuple[Message, ...]:
        return (Message(role="system", content=self.text), *self.turns)

    @property
    def sha256(self) -> str:
        return prompt_sha256(self.messages)


class Prediction(Record):
    """One row of predictions.jsonl. `scores`: log-probabilities in the order of the declared labels.

    `predicted` is None when no label could be chosen; that counts as wrong and is never a label of its own.
    """

    example_id: str
    system: str
    label: str
    predicted: str | None
    scores: tuple[float, ...]


class Calibration(Record):
    """Makes scores calibrated: `scale` * score + `bias` of the label; `examples` it was fitted on.

    Older files hold `mean_log_scores`, which batch calibration subtracts; they are still read.
    """

    method: Literal["batch", "affine"]
    labels: tuple[str, ...]
    scale: Annotated[float, Field(gt=0)]
    bias: tuple[float, ...]
    examples: int

    @model_validator(mode="before")
    @classmethod
    def _means_are_biases(cls, found: Any) -> Any:
        if not isinstance(found, dict) or "mean_log_scores" not in found:
            return found
        others = {key: value for key, value in found.items() if key != "mean_log_scores"}
        return {"method": "batch", "scale": 1.0, "bias": [-mean for mean in found["mean_log_scores"]], **others}


class ServedAnswer(Record):
    """One line of a serving log: the answer of a served version and its time (UTC, ISO 8601). `id`: `inputs_id` of the
    inputs; `scores` in the order of the declared labels, empty when `label` is None; `inputs` only if the operator
    logs them."""

    at: str
    id: str
    prompt_sha256: str
    prompt_version: str
    label: str | None
    scores: tuple[float, ...]
    inputs: dict[str, str] | None = Field(default=None, exclude_if=lambda inputs: inputs is None)


class Reviewed(Record):
    """artifacts/review/review.json: hashes of the loop's prompt and of the one that ships, and the numbers of the
    sheets (reviews/<task>.jsonl) whose edits lie between them, in order; without any it ships unchanged."""

    came_in: str
    ships: str
    sheets: tuple[int, ...]


class Chain(Record):
    """One row of chains.jsonl: the Student's reasoning on a test example; `finished`: not cut off at the limit."""

    example_id: str
    text: str
    tokens: int
    finished: bool


def inputs_id(inputs: Mapping[str, str]) -> str:
    """Id of an example without a natural one."""
    return content_id(dict(inputs))
