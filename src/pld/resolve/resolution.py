"""The stage `resolve` as a whole: the loop, then pruning, and what each instruction of the result does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pld.distill.trial import groups_of
from pld.metrics import compare, predictions
from pld.records import CLUSTERED, DISTILLED, Calibration, Instruction, Prediction, SystemPrompt
from pld.resolve.ablation import FrontPoint, ablate, ablated_points, ablation_part, front_point, pareto, prune
from pld.resolve.inputs import ResolveInputs
from pld.resolve.lineage import descents
from pld.resolve.loop import Loop, Round
from pld.resolve.proposer import Proposer
from pld.resolve.records import CAME_IN, LEFT, Descent, Effect, ResolutionReport
from pld.resolve.sampling import Embed


@dataclass(frozen=True)
class Resolution:
    """The resulting list and how it came to be. `effects`: None without an ablation; `points`: every list that was
    measured on all of validation at the reporting precision."""

    report: ResolutionReport
    instructions: Sequence[Instruction]
    prompt: SystemPrompt
    calibration: Calibration
    predictions: Sequence[Prediction]
    effects: Sequence[Effect] | None
    descents: Sequence[Descent]
    points: Sequence[FrontPoint]


def resolve(
    inputs: ResolveInputs, proposer: Proposer | None, embed: Embed, on_round: Callable[[Round], object]
) -> Resolution:
    """Run the loop with `proposer` (None: no loop); `on_round` receives each round when it ends.

    The result is never worse on validation than the initial list, and every label that had an instruction keeps one.
    """
    scorer, validation, params = inputs.scorer, inputs.validation, inputs.config.resolution
    loop = Loop(inputs, proposer, embed)
    rounds: list[Round] = []
    for played in loop.rounds():
        on_round(played)
        rounds.append(played)
    came_in = scorer.prompt(inputs.instructions)
    before = scorer.report(came_in, validation)
    points = [front_point(what, prompt, scorer.report(prompt, validation)) for what, prompt in loop.measured.items()]
    instructions, candidates = loop.present, loop.raced
    pruned: tuple[tuple[str, str], ...] = ()
    if params.pruning == "ablation":
        slim = prune(instructions, scorer, validation, params.gate, before.macro_f1.value)
        instructions, pruned = slim.instructions, slim.dropped
        candidates = candidates | {point.prompt_sha256 for point in slim.points}
        points += slim.points
    effects: list[Effect] | None = None
    if params.ablation:
        part = ablation_part(validation, params)
        effects = ablate(instructions, scorer, part)
        if part is validation:  # figures on a part are no points of the same front
            points += ablated_points(instructions, scorer, validation)
    prompt = scorer.prompt(instructions)
    after = scorer.report(prompt, validation)
    scores, calibration = scorer.shipped_scores(prompt, validation)
    settings, labels = inputs.config.evaluation, inputs.config.task.labels
    ours, theirs = (scorer.chosen(found, validation) for found in (prompt, came_in))
    groups, edits = groups_of(validation), [edit for played in rounds for edit in played.edits]
    return Resolution(
        report=ResolutionReport(
            resolver=inputs.config.resolver.kind,
            sampler=params.sampler,
            ended=loop.ended,
            came_in=before,
            result=after,
            gain=compare(
                DISTILLED,
                CLUSTERED,
                scorer.gold(validation),
                ours,
                theirs,
                len(labels),
                groups,
                settings.resamples,
                settings.seed,
            ),
            candidates=len(candidates),
            accepted=tuple(loop.accepted),
            alarms=tuple(loop.alarms),
            pruned=tuple(f"{identity}: {words}" for identity, words in pruned),
            rounds=tuple(played.report for played in rounds),
            teacher_calls=loop.calls,
            teacher_tokens=loop.tokens,
            student_answers=scorer.asked,
        ),
        instructions=tuple(instructions),
        prompt=prompt,
        calibration=calibration,
        predictions=predictions(validation, DISTILLED, scores, labels),
        effects=effects,
        descents=descents(instructions, inputs.instructions, edits, scorer.rules, inputs.clusters, effects),
        points=pareto([front_point(LEFT, prompt, after), front_point(CAME_IN, came_in, before), *points]),
    )
