"""What a run up to the stage `resolve` leaves under artifacts/, small and made up: two rounds and a pruned instruction.
All files of it fit together, so that what it holds can be measured with a real Student too."""

import shutil
from pathlib import Path

import numpy as np
import yaml

from pld.artifacts import SHIPS, write_json, write_jsonl, write_text
from pld.distill.render import exemplars_of, frame_system_prompt
from pld.metrics import system_report
from pld.records import (
    SPLITS,
    Cluster,
    Comparison,
    Example,
    Instruction,
    Interval,
    Rejection,
    Rule,
    SystemPrompt,
    TrialReport,
    content_id,
)
from pld.resolve.ablation import FrontPoint, pareto, pareto_csv
from pld.resolve.edits import apply
from pld.resolve.lineage import descents
from pld.resolve.records import Edit, EditResult, Effect, GateResult, Remove, ResolutionReport, Revise
from support.artifact_tree import composed
from support.mails import LABELS, mails

TRAIN = mails("train", 15)
_WHY = {"refund": "money is asked for", "delivery": "a parcel is late", "praise": "somebody is glad"}
RULES = [
    Rule(
        id=content_id(["rule", example.id]),
        example_id=example.id,
        label=example.label,
        rationale="It says so.",
        text=f"If {_WHY[example.label]} as in {example.id}, answer {example.label}.",
        teacher="t",
        doubtful=example.id == "train-3",
    )
    for example in TRAIN[:13]
]
CLUSTERS = [
    Cluster(
        id=place,
        rule_ids=tuple(rule.id for rule in RULES[:12] if rule.label == label),
        labels={label: 4},
        noise=False,
    )
    for place, label in enumerate(LABELS)
] + [Cluster(id=3, rule_ids=(RULES[12].id,), labels={"refund": 1}, noise=True)]


def _instruction(text: str, label: str, rules: list[Rule]) -> Instruction:
    ids = tuple(rule.id for rule in rules)
    identity = content_id({"label": label, "text": text}, 12)
    return Instruction(id=identity, text=text, label=label, rule_ids=ids, support=len(ids), origin="medoid")


REFUND = _instruction("If [money] is asked for, answer refund.", "refund", [RULES[n] for n in (0, 3, 6, 9)])
DELIVERY = _instruction("If a parcel is late, answer delivery.", "delivery", [RULES[n] for n in (1, 4)])
ASTRAY = _instruction("If anybody is glad, answer delivery.", "delivery", [RULES[n] for n in (7, 10)])
PRAISE = _instruction("If somebody is glad, answer praise.", "praise", [RULES[n] for n in (2, 5, 8)])
IDLE = _instruction("If it is praise, answer praise.", "praise", [RULES[11]])
CAME_IN = [REFUND, DELIVERY, ASTRAY, PRAISE, IDLE]


def _interval(value: float) -> Interval:
    return Interval(value=value, low=value - 0.01, high=value + 0.03)


def _verdict(number: int, edit: Edit, accepted: bool, example_ids: tuple[str, ...]) -> EditResult:
    gate = GateResult(
        accepted=accepted,
        gain=_interval(0.02 if accepted else -0.05),
        probability=0.98 if accepted else 0.1,
        wanted_probability=0.95,
        finalists=2,
        recall_change=dict.fromkeys(LABELS, 0.0),
        failed=() if accepted else ("macro-F1 -0.0500, expected at least +0.005",),
        fixed=("validation-1",) if accepted else (),
        broken=() if accepted else ("validation-1",),
    )
    return EditResult(
        id=content_id([number, edit.model_dump()], 12),
        round=number,
        proposer="search",
        edit=edit,
        rule_ids=(),
        example_ids=example_ids,
        outcome="accepted" if accepted else "rejected",
        why="",
        gate=gate,
    )


REVISED = _verdict(
    1, Revise(id=REFUND.id, text="If money or a refund is asked for, answer refund.", reason="too narrow"),
    True, ("train-3", "train-9"),
)  # fmt: skip
REJECTED = _verdict(1, Remove(id=PRAISE.id, reason="seems idle"), False, ("train-2",))
KEPT_IDLE = _verdict(2, Remove(id=IDLE.id, reason="seems idle too"), False, ())
REMOVED = _verdict(2, Remove(id=ASTRAY.id, reason="sends praise astray"), True, ("train-2",))
AFTER = [apply(CAME_IN, REVISED.edit, 1)]
AFTER.append(apply(AFTER[0], REMOVED.edit, 2))
FINAL = [own for own in AFTER[1] if own is not IDLE]
EFFECTS = [
    Effect(
        instruction_id=own.id,
        label=own.label,
        macro_f1=_interval(value),
        per_label={label: value if label == own.label else 0.0 for label in LABELS},
        tokens=20 + place,
        fixed=tuple(f"validation-{n}" for n in range(4 * place, 4 * place + 12)),
        broken=("validation-2",) if place else (),
    )
    for place, (own, value) in enumerate(zip(FINAL, (0.12, 0.005, -0.04), strict=True))
]


def write_two_rounds(folder: Path, *, ablated: bool = True) -> None:
    """The whole tree; without `ablated` as with resolution.ablation false."""
    config = composed()
    write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    for split in SPLITS:
        write_jsonl(folder / f"splits/{split}.jsonl", TRAIN if split == "train" else mails(split, 30))
    write_jsonl(folder / "rules/rules.jsonl", RULES)
    rejected = Rejection(example_id="train-13", reason="copied", detail="repeats 8 or more consecutive words of text")
    write_jsonl(folder / "rules/rejected.jsonl", [rejected])
    vectors = np.eye(len(RULES), dtype=np.float32)
    (folder / "embeddings").mkdir(parents=True, exist_ok=True)
    np.save(folder / "embeddings/vectors.npy", vectors)
    write_json(folder / "embeddings/rule_ids.json", {"rule_ids": [rule.id for rule in RULES]})
    write_jsonl(folder / "best/clusters.jsonl", CLUSTERS)
    write_jsonl(folder / "best/instructions.jsonl", CAME_IN)
    write_text(folder / "best/system_prompt.md", _prompt(CAME_IN).text)
    write_json(folder / "best/trial.json", _trial())
    for number, (edits, after) in enumerate(zip(([REVISED, REJECTED], [KEPT_IDLE, REMOVED]), AFTER, strict=True), 1):
        write_jsonl(folder / f"resolve/rounds/{number:02}/edits.jsonl", edits)
        write_jsonl(folder / f"resolve/rounds/{number:02}/instructions.jsonl", after)
    _write_final(folder / "resolve", EFFECTS if ablated else None)
    shutil.copytree(folder / "resolve/final", folder / SHIPS, dirs_exist_ok=True)
    if not ablated:
        (folder / SHIPS / "ablation.jsonl").unlink(missing_ok=True)


def _write_final(folder: Path, effects: list[Effect] | None) -> None:
    write_jsonl(folder / "final/instructions.jsonl", FINAL)
    write_text(folder / "final/system_prompt.md", _prompt(FINAL).text)
    rules = {rule.id: rule for rule in RULES}
    clusters = {rule_id: own.id for own in CLUSTERS if not own.noise for rule_id in own.rule_ids}
    verdicts = [REVISED, REJECTED, KEPT_IDLE, REMOVED]
    write_jsonl(folder / "final/descent.jsonl", descents(FINAL, CAME_IN, verdicts, rules, clusters, effects))
    (folder / "final/ablation.jsonl").unlink(missing_ok=True)
    if effects is not None:
        write_jsonl(folder / "final/ablation.jsonl", effects)
    points = [
        FrontPoint(what=what, prompt_sha256=what, tokens=tokens, macro_f1=value, low=value - 0.1, high=value + 0.1)
        for what, tokens, value in (("what the loop left", 90, 0.8), ("what came in", 120, 0.75), ("pruned 1", 70, 0.7))
    ]
    write_text(folder / "pareto.csv", pareto_csv(pareto(points)))
    write_json(folder / "report.json", _report())


def _report() -> ResolutionReport:
    found = _trial().report
    nothing = Interval(value=0, low=0, high=0)
    return ResolutionReport(
        resolver="search",
        sampler="covering",
        ended="the limit of 2 rounds",
        came_in=found,
        result=found,
        gain=Comparison(a="distilled", b="clustered", macro_f1_delta=nothing, fixed=0, broken=0, mcnemar_p=1),
        candidates=3,
        accepted=(REVISED.id, REMOVED.id),
        alarms=(),
        pruned=(f"{IDLE.id}: 9 tokens; without it macro-F1 on validation +0.0000",),
        rounds=(),
        teacher_calls=0,
        teacher_tokens=0,
        student_answers=0,
    )


def _trial() -> TrialReport:
    gold = np.arange(30) % 3
    return TrialReport(
        trial_id="t" * 12,
        settings={"rendering.exemplars": 1, "rendering.exemplars_per": "instruction"},
        report=system_report(gold, gold, LABELS, None, 100, 0, 60),
        instructions=len(CAME_IN),
        clusters=3,
        noise_share=0.1,
        labels_without_instruction=(),
        cut=(),
    )


def _prompt(instructions: list[Instruction]) -> SystemPrompt:
    config = composed()
    rendering = config.rendering.model_copy(update={"exemplars": 1, "exemplars_per": "instruction"})
    train: dict[str, Example] = {example.id: example for example in TRAIN}
    exemplars = exemplars_of(instructions, {rule.id: rule for rule in RULES}, train)
    return frame_system_prompt(config.task, instructions, exemplars, rendering, len)
