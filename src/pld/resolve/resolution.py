"""The stage `resolve` as a whole: the loop, then pruning, and what each instruction of the result does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pld.metrics import predictions
from pld.records import DISTILLED, Calibration, Instruction, Prediction, SystemPrompt
from pld.resolve.ablation import FrontPoint, ablate, ablated_points, front_point, pareto, prune
from pld.resolve.lineage import descents
from pld.resolve.loop import Loop, Round
from pld.resolve.records import Descent, Effect, ResolutionReport
from pld.resolve.view import Ground

LEFT, CAME_IN = "what the loop left", "what came in"


@dataclass(frozen=True)
class Resolution:
    """What ships, and how it came to be; `effects` is None where no ablation was asked for; `points`: every list that
    was measured on all of validation at the reporting precision."""

    report: ResolutionReport
    instructions: Sequence[Instruction]
    prompt: SystemPrompt
    calibration: Calibration
    predictions: Sequence[Prediction]
    effects: Sequence[Effect] | None
    descents: Sequence[Descent]
    points: Sequence[FrontPoint]


def resolve(
    ground: Ground, came_in: Sequence[Instruction], resolver: str, on_round: Callable[[Round], object]
) -> Resolution:
    """Play the loop on the list that `came_in`, unless `resolver` is `none`; `on_round` is given each round as it ends.

    What ships is never worse on validation than what came in, and every label that had an instruction keeps one.
    """
    answering, validation, params = ground.answering, ground.validation, ground.params
    loop = Loop(ground, came_in)
    rounds: list[Round] = []
    for played in loop.rounds() if resolver != "none" else ():
        on_round(played)
        rounds.append(played)
    before = answering.report(answering.prompt(came_in), validation)
    points = [front_point(what, prompt, answering.report(prompt, validation)) for what, prompt in loop.measured.items()]
    pruned: tuple[str, ...] = ()
    if params.pruning == "ablation":
        with ground.phase("pruning"):
            slim = prune(loop.present, answering, validation, params.gate, before.macro_f1.value)
        loop.present = slim.instructions
        loop.raced |= {point.prompt_sha256 for point in slim.points}
        points += slim.points
        pruned = tuple(f"{identity}: {words}" for identity, words in slim.dropped)
    effects: list[Effect] | None = None
    if params.ablation:
        with ground.phase("ablation"):
            effects = ablate(loop.present, answering, validation)
        points += ablated_points(loop.present, answering, validation)
    prompt = answering.prompt(loop.present)
    after = answering.report(prompt, validation)
    scores = answering.scores(prompt, validation)
    ends = [front_point(LEFT, prompt, after), front_point(CAME_IN, answering.prompt(came_in), before)]
    return Resolution(
        report=ResolutionReport(
            resolver=resolver,
            sampler=params.sampler,
            ended=loop.ended or "no resolver",
            came_in=before,
            result=after,
            gain=loop.gain(),
            candidates=len(loop.raced),
            accepted=tuple(loop.accepted),
            alarms=tuple(loop.alarms),
            pruned=pruned,
            rounds=tuple(played.report for played in rounds),
            teacher_calls=loop.calls,
            teacher_tokens=loop.tokens,
            student_answers=answering.asked,
        ),
        instructions=tuple(loop.present),
        prompt=prompt,
        calibration=answering.calibration(prompt),
        predictions=predictions(validation, DISTILLED, scores, answering.config.task.labels),
        effects=effects,
        descents=descents(
            loop.present,
            came_in,
            [edit for played in rounds for edit in played.edits],
            answering.rules,
            ground.clusters,
            effects,
        ),
        points=pareto([*ends, *points]),
    )
