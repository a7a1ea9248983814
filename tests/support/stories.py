"""Made-up runs of the pipeline on mails: the records of how a prompt came about."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pld.records import Cluster, Example, Instruction, Rejection, Rule, content_id, sha256
from pld.reports import Interval
from pld.resolve.edits import apply
from pld.resolve.records import Add, Edit, EditResult, Effect, GateResult, Remove, Revise, Rung
from pld.review.decisions import Decision
from support.mails import LABELS, mails


def interval(value: float) -> Interval:
    return Interval(value=value, low=value - 0.01, high=value + 0.03)


def instruction(label: str, text: str, rules: Sequence[Rule], identity: str | None = None) -> Instruction:
    return Instruction(
        id=identity or content_id({"label": label, "text": text}, 12),
        text=text,
        label=label,
        rule_ids=tuple(rule.id for rule in rules),
        support=len(rules),
        origin="medoid",
    )


def effect(own: Instruction, value: float, place: int = 0, fixed: int = 12) -> Effect:
    """It fixes `fixed` validation examples from number 4 * `place` on, and all but the first break one."""
    return Effect(
        instruction_id=own.id,
        label=own.label,
        macro_f1=interval(value),
        per_label={label: value if label == own.label else 0.0 for label in LABELS},
        tokens=20 + place,
        fixed=tuple(f"validation-{n}" for n in range(4 * place, 4 * place + fixed)),
        broken=("validation-2",) if place else (),
        examples=40,
    )


def edit_result(number: int, round: int, edit: Edit, accepted: bool, *examples: str, rules: Sequence[Rule] = ()):
    """Edit e`number` of a round, as the gate decided it."""
    gate = GateResult(
        accepted=accepted,
        gain=interval(0.02 if accepted else -0.05),
        probability=0.98 if accepted else 0.1,
        wanted_probability=0.95,
        finalists=2,
        recall_change=dict.fromkeys(LABELS, 0.0),
        failed=() if accepted else ("macro-F1 -0.0500, expected at least +0.005",),
        fixed=("validation-1",) if accepted else (),
        broken=() if accepted else ("validation-1",),
    )
    return EditResult(
        id=f"e{number}",
        round=round,
        proposer="search",
        edit=edit,
        rule_ids=tuple(rule.id for rule in rules),
        example_ids=examples,
        outcome="accepted" if accepted else "rejected",
        why="",
        prompt_tokens=60,
        race=(Rung(examples=9, macro_f1=0.8, present=0.6),),
        gate=gate,
    )


def cluster(place: int, rules: Sequence[Rule], noise: bool = False) -> Cluster:
    """Of rules of one label."""
    ids = tuple(rule.id for rule in rules)
    return Cluster(id=place, rule_ids=ids, labels={rules[0].label: len(rules)}, noise=noise)


@dataclass(frozen=True, kw_only=True)
class Story:
    """How a prompt came about. `rounds`: the Edits that were decided; `pruned`: taken out after them; `effects`: of
    what was left; `prompts`: of what came in and of what ships (None: rendered); `vectors`: one per rule (None: one
    axis each); `trials`: their settings, the last one won. Without `evaluated` the run ended at the stage `review`."""

    rules: Sequence[Rule]
    clusters: Sequence[Cluster]
    came_in: Sequence[Instruction]
    effects: Sequence[Effect]
    rounds: Sequence[Sequence[EditResult]] = ()
    pruned: Sequence[Instruction] = ()
    rejected: Sequence[Rejection] = ()
    prompts: tuple[str, str] | None = None
    vectors: np.ndarray | None = None
    trials: Sequence[dict[str, Any]] = ()
    labels: tuple[str, ...] = LABELS
    train: int = 9
    validation: int = 9
    evaluated: bool = True

    @property
    def lists(self) -> list[list[Instruction]]:
        """What came in, and what each round left."""
        found = [list(self.came_in)]
        for edits in self.rounds:
            after = found[-1]
            for own in edits:
                after = apply(after, own.edit, own.round, own.rule_ids) if own.outcome == "accepted" else after
            found.append(after)
        return found

    @property
    def final(self) -> list[Instruction]:
        return [own for own in self.lists[-1] if own not in self.pruned]


def _rules(train: Sequence[Example], name: str = "rule") -> list[Rule]:
    why = {"refund": "money is asked for", "delivery": "a parcel is late", "praise": "somebody is glad"}
    return [
        Rule(
            id=content_id([name, example.id]),
            example_id=example.id,
            label=example.label,
            rationale="It says so.",
            text=f"If {why[example.label]} as in {example.id}, answer {example.label}.",
            teacher="t",
            doubtful=example.id == "train-3",
        )
        for example in train
    ]


TRAIN = mails("train", 15)
RULES = _rules(TRAIN[:13])

# One instruction, to which the loop added another.
CLUSTERED = "Answer with one word.\n\n- money back, {{ curly }} and all: refund\n"
PROMPT = CLUSTERED + "- a parcel that is late: delivery\n"
KEPT = instruction("refund", "money back, {{ curly }} and all", [RULES[0], RULES[3]], "i1")
_ADD = Add(text="a parcel that is late", label="delivery", position=1, reason="late parcels were taken for refunds")
_ADDED = edit_result(1, 1, _ADD, True, "train-1", rules=[RULES[1]])
ADDED = apply([KEPT], _ADD, 1, _ADDED.rule_ids)[1]
MAIL = Story(
    rules=[RULES[0], RULES[1], RULES[3]],
    clusters=[cluster(0, [RULES[0], RULES[3]]), cluster(1, [RULES[1]])],
    came_in=[KEPT],
    rounds=[[_ADDED]],
    effects=[effect(KEPT, 0.1), effect(ADDED, 0.1)],
    prompts=(CLUSTERED, PROMPT),
    trials=[{"clusterer.min_cluster_size": size, "rendering.order": "support"} for size in (4, 8)],
)

# Five instructions; in two rounds the first is revised and the third removed, then the last one is pruned. All of it
# fits together, so that a Student can measure it.
NARROW = instruction("refund", "If [money] is asked for, answer refund.", [RULES[n] for n in (0, 3, 6, 9)])
DELIVERY = instruction("delivery", "If a parcel is late, answer delivery.", [RULES[n] for n in (1, 4)])
ASTRAY = instruction("delivery", "If anybody is glad, answer delivery.", [RULES[n] for n in (7, 10)])
PRAISE = instruction("praise", "If somebody is glad, answer praise.", [RULES[n] for n in (2, 5, 8)])
IDLE = instruction("praise", "If it is praise, answer praise.", [RULES[11]])
CAME_IN = [NARROW, DELIVERY, ASTRAY, PRAISE, IDLE]
_REVISE = Revise(id=NARROW.id, text="If money or a refund is asked for, answer refund.", reason="too narrow")
REVISED = edit_result(1, 1, _REVISE, True, "train-3", "train-9")
REFUND = apply([NARROW], _REVISE, 1)[0]
FINAL = [REFUND, DELIVERY, PRAISE]
EFFECTS = [effect(own, value, n) for n, (own, value) in enumerate(zip(FINAL, (0.12, 0.005, -0.04), strict=True))]
TWO_ROUNDS = Story(
    rules=RULES,
    rejected=[Rejection(example_id="train-13", reason="copied", detail="repeats 8 or more consecutive words of text")],
    clusters=[
        *(cluster(n, [rule for rule in RULES[:12] if rule.label == label]) for n, label in enumerate(LABELS)),
        cluster(3, RULES[12:], noise=True),
    ],
    came_in=CAME_IN,
    rounds=[
        [REVISED, edit_result(3, 1, Remove(id=PRAISE.id, reason="seems idle"), False, "train-2")],
        [
            edit_result(4, 2, Remove(id=IDLE.id, reason="seems idle too"), False),
            edit_result(2, 2, Remove(id=ASTRAY.id, reason="sends praise astray"), True, "train-2"),
        ],
    ],
    pruned=[IDLE],
    effects=EFFECTS,
    trials=[{"rendering.exemplars": 1, "rendering.exemplars_per": "instruction"}],
    train=15,
    validation=30,
    evaluated=False,
)

# The same with five example turns.
WITH_TURNS = replace(
    TWO_ROUNDS,
    trials=[{"rendering.exemplars": 5, "rendering.exemplars_per": "prompt", "rendering.exemplars_as": "turns"}],
)

# What reviewers of that list decide.
NEW_TEXT = "If somebody wants money back, answer refund."
NEW_ID = content_id({"label": "refund", "text": NEW_TEXT}, 12)


def decision(own: Instruction, verdict: str = "approve", text: str | None = None, reviewer: str = "Ann") -> Decision:
    return Decision(
        instruction_id=own.id, text_sha256=sha256(own.text), verdict=verdict, text=text, note="", reviewer=reviewer
    )  # type: ignore[arg-type]
