"""What is measured and what it cost: the records of artifacts/evaluation/, artifacts/spending/ and of a trial."""

from pydantic import Field

from pld.records import Calibration, Cut, Record, Split


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
    student: dict[str, str] = Field(default_factory=dict)
    loop: LoopEffect | None = None
    verdict: Recommendation | None = None
    calibrations: dict[str, Calibration] = Field(default_factory=dict)


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
    training_seconds: dict[str, float] = Field(default_factory=dict)
    trials: dict[str, Latency] = Field(default_factory=dict)


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
