"""What the distilled prompt is measured against: names, the examples that are shown, and what a reader is told."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pld.distill.extract import ExtractionSummary
from pld.distill.teacher_consolidation import MERGED
from pld.params import RenderingParams
from pld.ports import Vectors
from pld.records import (
    CALIBRATED,
    DISTILLED,
    WITHOUT_LLM,
    Comparison,
    Example,
    Instruction,
    LoopEffect,
    SystemReport,
    Task,
    TrainingCost,
    content_id,
)
from pld.resolve.records import ResolutionReport

_CELLS = 2**23  # of queries by training examples that are compared at a time: 32 MiB


def few_shot_examples(task: Task, train: Sequence[Example], size: int, seed: int) -> list[Example]:
    """`size` training examples, as many of each label as can be (earlier declared labels get one more where it does
    not divide), drawn and ordered by a seeded hash of their ids."""
    drawn: list[Example] = []
    for place, label in enumerate(task.labels):
        wanted = size // len(task.labels) + (place < size % len(task.labels))
        own = [example for example in train if example.label == label]
        drawn += sorted(own, key=lambda example: _draw(seed, example))[:wanted]
    return sorted(drawn, key=lambda example: _draw(seed, example))


def nearest_examples(
    train: Sequence[Example], vectors: Vectors, asked: Sequence[Example], queries: Vectors, size: int
) -> list[list[Example]]:
    """For each of `asked` [m] (`queries` [m, d]) the `size` examples of `train` [n] (`vectors` [n, d]) of the highest
    cosine, the nearest one last; rows are of length one. An example that is itself in `train` is not its own
    neighbour; ties go to the earlier one."""
    found = []
    at_a_time = max(1, _CELLS // max(len(train), 1))
    for start in range(0, len(asked), at_a_time):
        similarity = queries[start : start + at_a_time] @ vectors.T  # (some of m, n)
        for row, example in zip(similarity, asked[start : start + at_a_time], strict=True):
            order = _greatest_first(row, size + 1)  # one more, should it be itself
            found.append([train[at] for at in order if train[at].id != example.id][:size][::-1])
    return found


def _greatest_first(values: npt.NDArray[np.float32], size: int) -> npt.NDArray[np.int64]:
    """The places of the `size` greatest of `values` [n], of equal ones the earlier first."""
    if size >= len(values):
        return np.argsort(-values, kind="stable")
    least = np.partition(values, -size)[-size]
    enough = np.flatnonzero(values >= least)
    return enough[np.argsort(-values[enough], kind="stable")][:size]


def majority_scores(train: Sequence[Example], labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """Log of each label's share of `train` [k], with one more example of each, so that none is impossible."""
    counts = Counter(example.label for example in train)
    return np.array([math.log((counts[label] + 1) / (len(train) + len(labels))) for label in labels])


def shipped_system(method: str) -> str:
    """The system that is registered, by `calibration.method`."""
    return DISTILLED + (CALIBRATED if method == "batch" else "")


def rivals(system: str, measured: Collection[str]) -> tuple[str, ...]:
    """The other systems of `measured` that `system` is compared with: with calibration where it has it and they have
    it, else without."""
    wanted = []
    for name in measured:
        if name.endswith(CALIBRATED) or name == system.removesuffix(CALIBRATED):
            continue
        calibrated = name + CALIBRATED
        wanted.append(calibrated if system.endswith(CALIBRATED) and calibrated in measured else name)
    return tuple(wanted)


def findings(
    shipped: str, systems: Mapping[str, SystemReport], comparisons: Sequence[Comparison], task: str
) -> tuple[str, ...]:
    """One plain sentence for each system without an LLM that does better than the `shipped` one."""
    own = systems[shipped].macro_f1.value
    sentences = []
    for found in comparisons:
        delta = found.macro_f1_delta
        if found.a != shipped or found.b not in WITHOUT_LLM or delta.value >= 0:
            continue
        figures = f"macro-F1 {systems[found.b].macro_f1.value:.3f} against {own:.3f}"
        difference = f"by {-delta.value:.3f} [{-delta.high:.3f}, {-delta.low:.3f}]"
        clear = difference if delta.high < 0 else f"{difference}, which may be chance"
        sentences.append(f"{found.b}, which needs no LLM, does better than {shipped} on {task}: {figures}, {clear}.")
    return tuple(sentences)


def loop_findings(loop: LoopEffect | None) -> tuple[str, ...]:
    """A plain sentence where the loop's gain on test is not what validation, on which it was chosen, said."""
    if loop is None:
        return ()
    chosen, honest = loop.validation.macro_f1_delta.value, loop.test.macro_f1_delta
    figures = f"macro-F1 {chosen:+.3f} on validation, where it was chosen, and {honest.signed} on test"
    if loop.accepted and honest.value <= 0:
        return (f"What the loop accepted gained nothing on examples that it had not seen: {figures}.",)
    if not honest.low <= chosen <= honest.high:
        return (f"The loop's gain on test is not the one that validation promised: {figures}.",)
    return ()


def unparsable_findings(systems: Mapping[str, SystemReport]) -> tuple[str, ...]:
    """A plain sentence for each system that left test examples without an answer."""
    return tuple(
        f"{name} has no answer to {report.unparsable:,} of {report.n:,} test examples (unparsable, as inputs "
        "are that are longer than the Student's context), which count as wrong."
        for name, report in systems.items()
        if report.unparsable and not name.endswith(CALIBRATED)
    )


def readable_prompt(instructions: Sequence[Instruction], rendering: RenderingParams) -> str:
    """What a person can read of a distilled prompt with these `instructions`, in words."""
    shown = sum(len(rules[: rendering.exemplars]) for rules in _exemplar_pools(instructions, rendering))
    told = _count(len(instructions), "instruction")
    return f"{told} with {_count(shown, 'example')}" if shown else told


def distillation_cost(
    summary: ExtractionSummary, instructions: Sequence[Instruction], student_answers: int
) -> TrainingCost:
    """Of the rules, of the merges behind `instructions`, and of the sweep's `student_answers` on validation."""
    merges = sum(instruction.origin == MERGED or "merge refused" in instruction.origin for instruction in instructions)
    return TrainingCost(
        teacher_calls=summary.calls + merges,
        teacher_tokens=sum(count for name, count in summary.usage.items() if name.endswith("tokens")),
        recorded=summary.recorded,
        student_answers=student_answers,
    )


def resolution_cost(clustered: TrainingCost, resolution: ResolutionReport) -> TrainingCost:
    """What the list that came in had cost, and the loop on top of it."""
    return TrainingCost(
        teacher_calls=clustered.teacher_calls + resolution.teacher_calls,
        teacher_tokens=clustered.teacher_tokens + resolution.teacher_tokens,
        recorded=clustered.recorded and not resolution.teacher_tokens,
        student_answers=clustered.student_answers + resolution.student_answers,
    )


def _exemplar_pools(instructions: Sequence[Instruction], rendering: RenderingParams) -> list[list[str]]:
    """The rules (each of one example) from which the rendering takes its exemplars, by instruction or by label."""
    if rendering.exemplars_per == "instruction":
        return [list(instruction.rule_ids) for instruction in instructions]
    pools: dict[str, dict[str, None]] = {}
    for instruction in instructions:
        pools.setdefault(instruction.label, {}).update(dict.fromkeys(instruction.rule_ids))
    return [list(pool) for pool in pools.values()]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _draw(seed: int, example: Example) -> str:
    return content_id([seed, "few_shot", example.id])
