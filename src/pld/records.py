"""The words of the domain as frozen, closed records; the order of fields is the order of keys in files."""

import hashlib
import json
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

CALIBRATED = "_calibrated"
"""Suffix of a system's name when its scores are calibrated."""

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
"""The winner of the sweep: the list that comes into the conflict loop."""
UNREVIEWED = "unreviewed"
"""The list that the loop left, where reviewers edited it."""
DISTILLED = "distilled"
"""What ships: the list that the loop leaves, or what reviewers made of it."""

WITHOUT_LLM = (MAJORITY, TFIDF_LOGREG, EMBEDDING_LOGREG)


class Record(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def canonical_json(value: object) -> str:
    """Sorted keys, no spaces, characters as they are: the text that content hashes are taken of."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def content_id(value: object, length: int = 16) -> str:
    """First `length` hex digits of the sha256 of `value`'s canonical JSON."""
    return sha256(canonical_json(value))[:length]


def sha256(text: str) -> str:
    """Hex sha256 of UTF-8 text."""
    return hashlib.sha256(text.encode()).hexdigest()


class Task(Record):
    """What is classified: declared ordered labels, input fields, how an input is rendered, the base instruction.

    `input_template` is a Jinja template over the fields; it comes from conf/, never from data.
    """

    name: str
    labels: tuple[str, ...]
    fields: tuple[str, ...]
    input_template: str
    base_instruction: str


class Example(Record):
    """One labelled input. `group` (a contract, a thread) never stands on two sides of a split."""

    id: str
    inputs: dict[str, str]
    label: str
    split: Split
    group: str | None = None


class Rule(Record):
    """What the Teacher abstracted from one training Example. `draw` stands in files only where an example was explained
    more than once."""

    id: str
    example_id: str
    label: str
    rationale: str
    text: str
    teacher: str
    doubtful: bool
    draw: int = Field(default=0, exclude_if=lambda draw: draw == 0)


class Rejection(Record):
    """A Teacher's answer that was refused: `reason` is a short code that is counted, `detail` says it in words;
    `draw` as in a Rule."""

    example_id: str
    reason: str
    detail: str
    draw: int = Field(default=0, exclude_if=lambda draw: draw == 0)


class Cluster(Record):
    """Rules that say the same thing; `labels` counts them by label. `noise` marks rules that were dropped as noise."""

    id: int
    rule_ids: tuple[str, ...]
    labels: dict[str, int]
    noise: bool


class Instruction(Record):
    """One line of the prompt. `support` counts the rules behind it (a doubtful one as its weight), `origin` says how it
    came to be."""

    id: str
    text: str
    label: str
    rule_ids: tuple[str, ...]
    support: int | float
    origin: str


class Cut(Record):
    """An instruction that was left out of the prompt, and why."""

    instruction_id: str
    reason: str


class SystemPrompt(Record):
    """The exact text that is measured and shipped; `tokens` under the Student's tokenizer."""

    text: str
    instruction_ids: tuple[str, ...]
    sha256: str
    tokens: int
    cut: tuple[Cut, ...] = ()


class Message(Record):
    """One turn of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


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
    """Mean log-score per declared label over training examples, subtracted from scores (batch calibration)."""

    labels: tuple[str, ...]
    mean_log_scores: tuple[float, ...]
    examples: int


class Interval(Record):
    """A value with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def signed(self) -> str:
        """A difference in words."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


class LabelScore(Record):
    precision: float
    recall: float
    f1: float
    support: int


class SystemReport(Record):
    """How one system did on one split; `confusion[i][j]`: gold label i answered as label j; `n` is less than the split
    where it answered only a part; `prompt_tokens`: of the beginning that every request shares (0 without an LLM)."""

    macro_f1: Interval
    accuracy: Interval
    per_label: dict[str, LabelScore]
    confusion: tuple[tuple[int, ...], ...]
    unparsable: int
    n: int
    prompt_tokens: int


class Comparison(Record):
    """System `a` minus system `b` on the same examples: paired bootstrap, exact McNemar.

    `fixed`: wrong under b and right under a; `broken`: the reverse.
    """

    a: str
    b: str
    macro_f1_delta: Interval
    fixed: int
    broken: int
    mcnemar_p: float


class LoopEffect(Record):
    """What the conflict loop did, where it was chosen and where it was not: macro-F1 of what ships less that of the
    list that came in. `candidates`: lists that were tried on validation; the gain there is too good by the choosing."""

    rounds: int
    candidates: int
    accepted: int
    validation: Comparison
    test: Comparison


class EvaluationReport(Record):
    """artifacts/evaluation/report.json. `shipped` names the system whose prompt and calibration are registered;
    `comparisons` set it against every other system (the same calibration on both sides, where the other has it);
    `findings` are sentences for a person, on what needs no LLM and does better all the same; `student` is what
    determines its scores, and how they were computed; `loop`: None where none was run."""

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


class TrainingCost(Record):
    """What was spent once, before a system answers. `teacher_tokens` are 0 where `recorded` answers were played back
    (they cost nothing now, and what they cost then is not in the recording); `student_answers` were scored to choose
    among prompts. Seconds stand in latency.json."""

    teacher_calls: int = 0
    teacher_tokens: int = 0
    recorded: bool = False
    student_answers: int = 0


class RoleSpending(Record):
    """What the Teacher's answers in one role cost when they were paid for, whenever that was. `tokens` by kind, as the
    provider counts them; `usd` is None where a price was not known."""

    role: str
    model: str
    calls: int
    tokens: dict[str, int]
    usd: float | None


TEACHER_STAGES = ("extract", "sweep", "resolve", "evaluate")
"""Stages that may ask the Teacher."""


class Spending(Record):
    """artifacts/spending/<stage>.json: empty where nothing was asked, or recorded answers were played back."""

    stage: str
    roles: tuple[RoleSpending, ...]


class ServedAnswer(Record):
    """One line of a serving log: what a served version answered, and when (UTC, ISO 8601). `id` is that of the inputs
    (`inputs_id`); `scores` in the order of the declared labels, empty where `label` is None; `inputs` stand there only
    where the operator asked for them."""

    at: str
    id: str
    prompt_sha256: str
    prompt_version: str
    label: str | None
    scores: tuple[float, ...]
    inputs: dict[str, str] | None = Field(default=None, exclude_if=lambda inputs: inputs is None)


class Reviewed(Record):
    """artifacts/review/review.json: the prompt that the loop left, the one that ships, and the numbers of the sheets
    (reviews/<task>.jsonl) whose edits made it, in turn; none: it ships as it came in."""

    came_in: str
    ships: str
    sheets: tuple[int, ...]


class SystemCost(Record):
    """What one system costs and shows. `tokens_per_request`: median over its test examples of all tokens that the
    Student reads and writes (prompt, input, thoughts), the label left out; `readable`: what of it a person can read;
    `cut_share`: of its chains of thought, those that were cut at the limit."""

    tokens_per_request: int
    training: TrainingCost
    readable: str
    cut_share: float | None = None


class CostReport(Record):
    """artifacts/evaluation/costs.json."""

    systems: dict[str, SystemCost]


class Chain(Record):
    """One row of chains.jsonl: what the Student thought about a test example; `finished`: not cut at the limit."""

    example_id: str
    text: str
    tokens: int
    finished: bool


class Latency(Record):
    """One request at a time, warm, as served; `prefill_ms` is paid once per prompt."""

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


class TrialReport(Record):
    """artifacts/trials/<id>/report.json: the trial on validation. `by_size`: what the clusterer chose by the number of
    rules, where that is not what `settings` or conf/ say."""

    trial_id: str
    settings: dict[str, str | int | float | bool | None]
    report: SystemReport
    instructions: int
    clusters: int
    noise_share: float
    labels_without_instruction: tuple[str, ...]
    cut: tuple[Cut, ...]
    by_size: dict[str, int | str] = Field(default={}, exclude_if=lambda chosen: not chosen)


def inputs_id(inputs: Mapping[str, str]) -> str:
    """Id of an example that has no natural one."""
    return content_id(dict(inputs))
