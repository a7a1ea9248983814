"""The words of the conflict loop as records: Edits, what a round found, and what became of it."""

from typing import Annotated, Literal

from pydantic import Discriminator

from pld.records import Comparison, Interval, Record, SystemReport


class Revise(Record):
    """Give the instruction `id` the text `text`; its place and label stay."""

    op: Literal["revise"] = "revise"
    id: str
    text: str
    reason: str


class Add(Record):
    """A new instruction for `label` before the one that stands at `position` (0: the first; behind the last: the
    end)."""

    op: Literal["add"] = "add"
    text: str
    label: str
    position: int
    reason: str


class Remove(Record):
    """Take the instruction `id` out."""

    op: Literal["remove"] = "remove"
    id: str
    reason: str


class Move(Record):
    """Put the instruction `id` at `position` of the others."""

    op: Literal["move"] = "move"
    id: str
    position: int
    reason: str


class Split(Record):
    """Give several instructions for the one `id`, at its place and with its label."""

    op: Literal["split"] = "split"
    id: str
    texts: tuple[str, ...]
    reason: str


Edit = Annotated[Revise | Add | Remove | Move | Split, Discriminator("op")]


class Shown(Record):
    """One row of shown.jsonl: an example of the pool that the proposer of Edits saw. `margin`: log-score of the
    answer less that of the gold label (of a success: less the runner-up's); `cluster`: of its own rule, if any."""

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
    """A list on some `examples` (of the pool, or the first of validation) at the search's precision: its macro-F1, and
    that of the present list on the same ones."""

    examples: int
    macro_f1: float
    present: float

    @property
    def gain(self) -> float:
        return self.macro_f1 - self.present


class GateVerdict(Record):
    """What the gate saw of the race's survivor, on all of validation at the reporting precision. `gain`: macro-F1 of
    the candidate less that of the present list (paired bootstrap), `probability`: the share of resamples with a gain,
    `wanted_probability`: min_confidence, raised for the `finalists` that all of validation chose from; `failed`: what
    did not hold, in words; `fixed`, `broken`: ids of validation examples."""

    accepted: bool
    gain: Interval
    probability: float
    wanted_probability: float
    finalists: int
    recall_change: dict[str, float]
    failed: tuple[str, ...]
    fixed: tuple[str, ...]
    broken: tuple[str, ...]


class EditVerdict(Record):
    """One row of edits.jsonl: an Edit and what became of it. `rule_ids` stand behind its text, `example_ids` are the
    failures that it answers; `refused`: it made no list, `dropped`: others did better on the pool or in the race;
    `pool` and `race` are of the list that it makes alone, `gate` of the one that survived, which several Edits may have
    made together; `alarms`: labels that lost their last instruction, and what came back in for them."""

    id: str
    round: int
    proposer: str
    edit: Edit
    rule_ids: tuple[str, ...]
    example_ids: tuple[str, ...]
    outcome: Literal["refused", "dropped", "rejected", "accepted"]
    why: str
    alarms: tuple[str, ...] = ()
    prompt_sha256: str | None = None
    prompt_tokens: int | None = None
    pool: Rung | None = None
    race: tuple[Rung, ...] = ()
    gate: GateVerdict | None = None


class Together(Record):
    """A list that several Edits of a round make together, in the race from its second part on."""

    edit_ids: tuple[str, ...]
    prompt_sha256: str
    prompt_tokens: int
    race: tuple[Rung, ...]


class RoundReport(Record):
    """artifacts/resolve/rounds/NN/report.json. `pool` describes the list that the round began with,
    `validation` the one that it ended with; `raced`: lists, those that
    several Edits make `together` too; `trouble`: why nothing was proposed."""

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
    """artifacts/resolve/report.json. `candidates`: different lists that were tried on validation, all rounds and
    pruning together; `gain`: macro-F1 of the list that ships less that of the one that came in, on validation,
    where it was chosen: too good by the choosing; the honest one is on test, in evaluation/report.json."""

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
    """One row of ablation.jsonl: what an instruction does on validation: figures with it less those without it (above
    0: it helps). `per_label`: change of F1; `fixed`, `broken`: validation examples that it turns right, or wrong."""

    instruction_id: str
    label: str
    macro_f1: Interval
    per_label: dict[str, float]
    tokens: int
    fixed: tuple[str, ...]
    broken: tuple[str, ...]


class Step(Record):
    """One Edit in an instruction's line of descent; `from_id`: the instruction that it was before (None: added);
    `round` 0: by a reviewer."""

    round: int
    edit_id: str
    op: str
    proposer: str
    reason: str
    from_id: str | None
    verdict: str


class Descent(Record):
    """One row of descent.jsonl: where an instruction of the final list comes from (training examples → their rules →
    clusters → instruction → edits), and which validation examples it fixed and broke (by leave-one-out; None: not
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
