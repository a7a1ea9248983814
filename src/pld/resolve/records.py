"""Records of the conflict loop: Edits, the evidence and results of a round, and the lineage of instructions."""

from typing import Annotated, Literal

from pydantic import Discriminator

from pld.records import Record
from pld.reports import Comparison, Interval, SystemReport

CAME_IN, LEFT = "what came in", "what the loop left"
"""Names of the two ends of the loop among the measured lists (pareto.csv)."""


class Revise(Record):
    """Replace the text of the instruction `id`; its place and label stay."""

    op: Literal["revise"] = "revise"
    id: str
    text: str
    reason: str


class Add(Record):
    """Insert an instruction for `label` before the one at `position` (0-based; beyond the last: at the end)."""

    op: Literal["add"] = "add"
    text: str
    label: str
    position: int
    reason: str


class Remove(Record):
    """Remove the instruction `id`."""

    op: Literal["remove"] = "remove"
    id: str
    reason: str


class Move(Record):
    """Move the instruction `id` to `position` among the others."""

    op: Literal["move"] = "move"
    id: str
    position: int
    reason: str


class Split(Record):
    """Replace the instruction `id` by several, at its place and with its label."""

    op: Literal["split"] = "split"
    id: str
    texts: tuple[str, ...]
    reason: str


Edit = Annotated[Revise | Add | Remove | Move | Split, Discriminator("op")]
Outcome = Literal["refused", "dropped", "rejected", "accepted"]


class ShownExample(Record):
    """One row of shown.jsonl: an example of the pool that the proposer saw. `margin`: log-score of the answer less that
    of the gold label (success: less the runner-up's); `cluster`: of its own rule, if any."""

    example_id: str
    kind: Literal["failure", "success"]
    label: str
    predicted: str | None
    margin: float
    cluster: int | None


class Blame(Record):
    """How much the gold label's log-probability (normalised over the declared labels) rises without this instruction:
    the mean over the failures shown, and over those of each cell `gold -> predicted`."""

    instruction_id: str
    rise: float
    by_cell: dict[str, float]


class Rung(Record):
    """A list's macro-F1 on `examples` examples (of the pool, or the first of validation) at the search's precision, and
    that of the present list on the same ones."""

    examples: int
    macro_f1: float
    present: float

    @property
    def gain(self) -> float:
        return self.macro_f1 - self.present


class GateResult(Record):
    """The gate's test of the race's winner, on all of validation at the reporting precision. `gain`: macro-F1 of the
    candidate less that of the present list (paired bootstrap); `probability`: share of resamples with a gain;
    `wanted_probability`: min_confidence, corrected for choosing among `finalists`; `failed`: the conditions that did
    not hold, in words; `fixed`, `broken`: ids of validation examples."""

    accepted: bool
    gain: Interval
    probability: float
    wanted_probability: float
    finalists: int
    recall_change: dict[str, float]
    failed: tuple[str, ...]
    fixed: tuple[str, ...]
    broken: tuple[str, ...]


class EditResult(Record):
    """One row of edits.jsonl: an Edit and its outcome. `rule_ids` support its text, `example_ids` are the failures that
    it addresses. `refused`: it made no list to try; `dropped`: others did better on the pool or in the race. `pool` and
    `race` belong to the list that it makes alone, `gate` to the winner, which several Edits may have made together;
    `alarms`: labels that lost their last instruction, and the rule restored for them."""

    id: str
    round: int
    proposer: str
    edit: Edit
    rule_ids: tuple[str, ...]
    example_ids: tuple[str, ...]
    outcome: Outcome
    why: str
    alarms: tuple[str, ...] = ()
    prompt_sha256: str | None = None
    prompt_tokens: int | None = None
    pool: Rung | None = None
    race: tuple[Rung, ...] = ()
    gate: GateResult | None = None


class Together(Record):
    """A list that several Edits of a round make together; it joins the race at its second part."""

    edit_ids: tuple[str, ...]
    prompt_sha256: str
    prompt_tokens: int
    race: tuple[Rung, ...]


class RoundReport(Record):
    """artifacts/resolve/rounds/NN/report.json. `pool` measures the list at the start of the round, `validation` the one
    at its end; `raced`: number of lists, including those of `together`; `trouble`: why nothing was proposed."""

    round: int
    pool: SystemReport
    failures: int
    shown_failures: int
    shown_successes: int
    proposed: int
    refused: int
    raced: int
    together: tuple[Together, ...]
    accepted: tuple[str, ...]
    validation: SystemReport
    instructions: int
    trouble: str | None
    usage: dict[str, int]


class ResolutionReport(Record):
    """artifacts/resolve/report.json. `candidates`: number of different lists that were tried on validation, pruning
    included; `gain`: macro-F1 of the result less that of the initial list on validation, optimistically biased by
    selection (evaluation/report.json has the one on test)."""

    resolver: str
    sampler: str
    ended: str
    came_in: SystemReport
    result: SystemReport
    gain: Comparison
    candidates: int
    accepted: tuple[str, ...]
    alarms: tuple[str, ...]
    pruned: tuple[str, ...]
    rounds: tuple[RoundReport, ...]
    teacher_calls: int
    teacher_tokens: int
    student_answers: int


class Effect(Record):
    """One row of ablation.jsonl: an instruction's effect on validation, figures with it less those without it.
    `per_label`: change of F1; `fixed`, `broken`: validation examples that it turns right or wrong; `examples`: how many
    it was measured on."""

    instruction_id: str
    label: str
    macro_f1: Interval
    per_label: dict[str, float]
    tokens: int
    fixed: tuple[str, ...]
    broken: tuple[str, ...]
    examples: int


class Step(Record):
    """One Edit in an instruction's lineage; `from_id`: the instruction before it (None: added); `round` 0: by a
    reviewer."""

    round: int
    edit_id: str
    op: str
    proposer: str
    reason: str
    from_id: str | None
    verdict: str


class Descent(Record):
    """One row of descent.jsonl: the lineage of an instruction of the final list (training examples → their rules →
    clusters → instruction → edits), and the validation examples that it fixes and breaks (leave-one-out; None: not
    measured)."""

    instruction_id: str
    label: str
    text: str
    origin: str
    example_ids: tuple[str, ...]
    rule_ids: tuple[str, ...]
    cluster_ids: tuple[int, ...]
    edits: tuple[Step, ...]
    fixed: tuple[str, ...] | None
    broken: tuple[str, ...] | None
