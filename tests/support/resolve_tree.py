"""What the stage `resolve` leaves under artifacts/resolve/, made up: one round, in which one Edit was accepted."""

from pathlib import Path

from pld.artifacts import write_json, write_jsonl, write_text
from pld.metrics import choose, compare, indices, predictions, system_report
from pld.params import Config
from pld.records import Calibration, Example, Instruction, Interval, SystemReport, sha256
from pld.resolve.records import (
    Add,
    Blame,
    Descent,
    EditResult,
    Effect,
    GateResult,
    ResolutionReport,
    RoundReport,
    Rung,
    ShownExample,
    Step,
)
from support.mails import LABELS, mails, scores

CLUSTERED = "Answer with one word.\n\n- money back, {{ curly }} and all: refund\n"
PROMPT = CLUSTERED + "- a parcel that is late: delivery\n"
"""What ships: the loop added an instruction."""
KEPT = Instruction(
    id="i1",
    text="money back, {{ curly }} and all",
    label="refund",
    rule_ids=("r1", "r2"),
    support=2,
    origin="medoid",
)
ADDED = Instruction(
    id="i2",
    text="a parcel that is late",
    label="delivery",
    rule_ids=("r3",),
    support=1,
    origin="added in round 1",
)
EDIT = Add(text=ADDED.text, label="delivery", position=1, reason="late parcels were taken for refunds")


def resolution_report(config: Config, rounds: int = 1, accepted: int = 1, gain: float = 0.1) -> ResolutionReport:
    """Of a loop that tried three lists a round; `gain` is what validation said."""
    validation, train = mails("validation", 9), mails("train", 9)
    before, after = _system_report(config, validation, 0.6, 55), _system_report(config, validation, 0.8, 60)
    gold = indices([example.label for example in validation], LABELS)
    chosen = [choose(scores(validation, share)) for share in (0.8, 0.6)]
    compared = compare("distilled", "clustered", gold, *chosen, len(LABELS), None, 200, 0)
    delta = Interval(value=gain, low=gain - 0.08, high=gain + 0.08)
    return ResolutionReport(
        resolver=config.resolver.kind,
        sampler=config.resolution.sampler,
        ended=f"the limit of {rounds} rounds",
        came_in=before,
        result=after if accepted else before,
        gain=compared.model_copy(update={"macro_f1_delta": delta}),
        candidates=3 * rounds,
        accepted=tuple(f"e{number}" for number in range(1, accepted + 1)),
        alarms=(),
        pruned=(),
        rounds=tuple(
            RoundReport(
                round=number,
                pool=_system_report(config, train, 0.5, 55),
                failures=4,
                shown_failures=4,
                shown_successes=4,
                proposed=4,
                refused=1,
                raced=3,
                together=(),
                accepted=(f"e{number}",) if number <= accepted else (),
                validation=after if accepted else before,
                instructions=2 if accepted else 1,
                trouble=None,
                usage={},
            )
            for number in range(1, rounds + 1)
        ),
        teacher_calls=0,
        teacher_tokens=0,
        student_answers=307,
    )


def write_resolution(folder: Path, config: Config, prompt: str, calibration: Calibration) -> ResolutionReport:
    looped = config.resolver.kind != "none"
    validation = mails("validation", 9)
    report = resolution_report(config) if looped else resolution_report(config, rounds=0, accepted=0, gain=0.0)
    instructions = [KEPT, ADDED] if looped else [KEPT]
    write_json(folder / "report.json", report)
    write_text(folder / "pareto.csv", "what,prompt_sha256,tokens,macro_f1,low,high,on_front\n")
    for found in report.rounds:
        _write_round(folder / f"rounds/{found.round:02}", found, prompt)
    final = folder / "final"
    write_text(final / "system_prompt.md", prompt)
    write_jsonl(final / "instructions.jsonl", instructions)
    write_json(final / "calibration.json", calibration)
    write_jsonl(final / "predictions.jsonl", predictions(validation, "final", scores(validation, 0.8), LABELS))
    write_jsonl(
        final / "ablation.jsonl",
        [
            Effect(
                instruction_id=item.id,
                label=item.label,
                macro_f1=Interval(value=0.1, low=-0.02, high=0.2),
                per_label={item.label: 0.1},
                tokens=8,
                fixed=("validation-1",),
                broken=(),
            )
            for item in instructions
        ],
    )
    write_jsonl(final / "descent.jsonl", [_descent(item) for item in instructions])
    return report


def _write_round(folder: Path, report: RoundReport, prompt: str) -> None:
    train = mails("train", 9)
    verdict = GateResult(
        accepted=True,
        gain=Interval(value=0.1, low=0.02, high=0.18),
        probability=0.99,
        wanted_probability=0.97,
        finalists=3,
        recall_change={"delivery": 0.3},
        failed=(),
        fixed=("validation-1",),
        broken=(),
    )
    edit = EditResult(
        id="e1",
        round=report.round,
        proposer="search",
        edit=EDIT,
        rule_ids=ADDED.rule_ids,
        example_ids=("train-1",),
        outcome="accepted",
        why="",
        prompt_sha256=sha256(prompt),
        prompt_tokens=60,
        race=(Rung(examples=9, macro_f1=0.8, present=0.6),),
        gate=verdict,
    )
    shown = ShownExample(
        example_id="train-1", kind="failure", label="delivery", predicted="praise", margin=2.9, cluster=1
    )
    write_jsonl(folder / "pool.jsonl", predictions(train, "pool", scores(train, 0.5), LABELS))
    write_jsonl(folder / "shown.jsonl", [shown])
    write_jsonl(folder / "blame.jsonl", [Blame(instruction_id="i1", rise=0.2, by_cell={"delivery -> praise": 0.2})])
    write_jsonl(folder / "edits.jsonl", [edit])
    write_jsonl(folder / "instructions.jsonl", [KEPT, ADDED])
    write_text(folder / "system_prompt.md", prompt)
    write_json(folder / "report.json", report)


def _descent(item: Instruction) -> Descent:
    step = Step(
        round=1, edit_id="e1", op="add", proposer="search", reason=EDIT.reason, from_id=None, verdict="accepted"
    )
    return Descent(
        instruction_id=item.id,
        label=item.label,
        text=item.text,
        origin=item.origin,
        example_ids=tuple(f"train-{rule_id[1:]}" for rule_id in item.rule_ids),
        rule_ids=item.rule_ids,
        cluster_ids=(0,) if item is KEPT else (1,),
        edits=() if item is KEPT else (step,),
        fixed=("validation-1",),
        broken=(),
    )


def _system_report(config: Config, examples: list[Example], share: float, tokens: int) -> SystemReport:
    gold = indices([example.label for example in examples], LABELS)
    settings = config.evaluation
    chosen = choose(scores(examples, share))
    return system_report(gold, chosen, LABELS, None, settings.resamples, settings.seed, tokens)
