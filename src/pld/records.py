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


class Interval(Record):
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def signed(self) -> str:
        """The value with its sign, for differences."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class LabelScore(Record):
    precision: float
    recall: float
    f1: float
    support: int


class SystemReport(Record):
    """One system's figures on one split. `confusion[i][j]`: examples of gold label i predicted as label j; `n` is less
    than the split for a system that answers only a sample; `prompt_tokens`: of the shared prefix (0 without an LLM)."""

    macro_f1: Interval
    accuracy: Interval
    per_label: dict[str, LabelScore]
    confusion: tuple[tuple[int, ...], ...]
    unparsable: int
    n: int
    prompt_tokens: int


class Comparison(Record):
    """System `a` minus system `b` on the same examples: paired bootstrap, exact McNemar.

    `fixed`: wrong with b and right with a; `broken`: the reverse.
    """

    a: str
    b: str
    macro_f1_delta: Interval
    fixed: int
    broken: int
    mcnemar_p: float


class LoopEffect(Record):
    """Effect of the conflict loop: macro-F1 of its result minus that of the sweep's winner. `candidates`: lists that
    were tried on validation, so the gain there is optimistically biased by selection."""

    rounds: int
    candidates: int
    accepted: int
    validation: Comparison
    test: Comparison


class Recommendation(Record):
    """What to do with the distilled prompt, in plain sentences. `ships`: the gates on this report's comparisons hold;
    `better`: the system to use in its place (None: none)."""

    ships: bool
    better: str | None
    decision: str
    why: str
    instead: str


class EvaluationReport(Record):
    """artifacts/evaluation/report.json. `shipped` names the system whose prompt and calibration are registered;
    `comparisons` compare it with every other system (both calibrated or both not, where possible); `findings`:
    sentences on systems without an LLM that do better; `student`: what determines its scores; `loop`: None when it was
    not run; `verdict`: None in reports of earlier versions; `calibrations`: those of the calibrated variants, by the
    system's own name.
    """

    task: str
    split: Split
    n: int
    labels: tuple[str, ...]
    prompt_sha256: str
    shipped: str
    systems: dict[str, SystemReport]
    comparisons: tuple[Comparison, ...]
    findings: tuple[str, ...] = ()
    student: dict[str, str] = {}
    loop: LoopEffect | None = None
    verdict: Recommendation | None = None
    calibrations: dict[str, Calibration] = {}


class TrainingCost(Record):
    """One-time cost of a system. `teacher_tokens` are 0 for `recorded` answers (replaying costs nothing, and a
    recording doesn't say what they cost); `student_answers`: scored to choose among prompts. Seconds are in
    latency.json."""

    teacher_calls: int = 0
    teacher_tokens: int = 0
    recorded: bool = False
    student_answers: int = 0


class RoleSpending(Record):
    """What the Teacher's answers in one role cost when they were bought. `tokens` by kind, as the provider counts them;
    `usd` is None when a price is unknown."""

    role: str
    model: str
    calls: int
    tokens: dict[str, int]
    usd: float | None


TEACHER_STAGES = ("extract", "sweep", "resolve", "evaluate")
"""Stages that may ask the Teacher."""


class Spending(Record):
    """artifacts/spending/<stage>.json: empty when nothing was asked or recorded answers were replayed."""

    stage: str
    roles: tuple[RoleSpending, ...]


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


class SystemCost(Record):
    """Cost and readability of one system. `tokens_per_request`: median over test examples of all tokens that the
    Student reads and writes (prompt, input, reasoning), without the label; `readable`: what a person can read of it;
    `cut_share`: share of its chains of thought that were cut off at the limit; `labels_used`: labelled training
    examples behind it, `labels_used_calibrated`: those of its calibrated variant (None: there is none)."""

    tokens_per_request: int
    training: TrainingCost
    readable: str
    cut_share: float | None = None
    labels_used: int = 0
    labels_used_calibrated: int | None = None


class CostReport(Record):
    """artifacts/evaluation/costs.json."""

    systems: dict[str, SystemCost]


class Chain(Record):
    """One row of chains.jsonl: the Student's reasoning on a test example; `finished`: not cut off at the limit."""

    example_id: str
    text: str
    tokens: int
    finished: bool


class Latency(Record):
    """One request at a time, warm, as served; `prefill_ms` is spent once per prompt."""

    p50_ms: float
    p95_ms: float
    prefill_ms: float
    requests: int


class LatencyReport(Record):
    """artifacts/evaluation/latency.json: measured on `machine`, so it is not an output whose hash must repeat.

    `report_sha256`: of the evaluation report whose systems were timed ("": unknown); `training_seconds`: of the systems
    that are trained or indexed; `trials`: trial id → its prompt, timed with fewer requests.
    """

    machine: str
    report_sha256: str = ""
    systems: dict[str, Latency]
    training_seconds: dict[str, float] = {}
    trials: dict[str, Latency] = {}


class Standing(Record):
    """How far a prompt went in the sweep. `rung`: the last part of validation that it answered (1: the first); `gap`:
    macro-F1 of that part's leader minus its own on the same examples; `se`: the paired bootstrap's standard error;
    `on_first`: macro-F1 on the first part, which all prompts answered (None: not a race)."""

    rung: int
    gap: float
    se: float
    on_first: float | None = Field(default=None, exclude_if=lambda value: value is None)


class TrialReport(Record):
    """artifacts/trials/<id>/report.json: the trial on validation, or on the part of it (`report.n`) that it reached.
    `turns`: example turns by label; `cut_turns`: how many more the token budget cut.
    `by_size`: clusterer settings that depend on the number of rules and differ from the configured ones;
    `stability`: mean adjusted Rand index between the clusterer's runs, None where it makes only one."""

    trial_id: str
    settings: dict[str, str | int | float | bool | None]
    report: SystemReport
    instructions: int
    clusters: int
    noise_share: float
    labels_without_instruction: tuple[str, ...]
    cut: tuple[Cut, ...]
    turns: dict[str, int] = Field(default={}, exclude_if=lambda turns: not turns)
    cut_turns: int = Field(default=0, exclude_if=lambda cut: cut == 0)
    by_size: dict[str, int | str] = Field(default={}, exclude_if=lambda chosen: not chosen)
    stability: float | None = Field(default=None, exclude_if=lambda found: found is None)
    standing: Standing | None = Field(default=None, exclude_if=lambda standing: standing is None)


def inputs_id(inputs: Mapping[str, str]) -> str:
    """Id of an example without a natural one."""
    return content_id(dict(inputs))
