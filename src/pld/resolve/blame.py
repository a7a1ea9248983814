"""Finds the instruction to blame for failures: without it the gold label's probability rises most."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from pld.metrics import indices
from pld.ports import Scores
from pld.records import Instruction
from pld.resolve.proposer import Answered
from pld.resolve.records import Blame
from pld.resolve.sampling import cells

ScoreList = Callable[[Sequence[Instruction]], Scores]
"""A list of instructions → [n, k] log-scores of the failures."""


def blame(
    instructions: Sequence[Instruction], failures: Sequence[Answered], score: ScoreList, labels: Sequence[str]
) -> list[Blame]:
    """One Blame per instruction, in list order, by leave-one-out: the gold label's log-probability (normalised over
    `labels`) without it less that with it, in nats, averaged over the `failures` [n] and over each cell.

    Failures that can't be scored with or without an instruction are left out of its means. A single instruction is
    compared with the prompt without any.
    """
    if not failures:
        return [Blame(instruction_id=instruction.id, rise=0.0, by_cell={}) for instruction in instructions]
    gold = indices([failure.example.label for failure in failures], labels)
    places = {failure.example.id: place for place, failure in enumerate(failures)}
    members = {cell: np.array([places[failure.example.id] for failure in own]) for cell, own in cells(failures).items()}
    present = _gold_log_probability(score(instructions), gold)
    found = []
    # Last instruction first: a prefix cache then shares everything before the gap with the next prompt.
    for at in reversed(range(len(instructions))):
        without = _gold_log_probability(score([*instructions[:at], *instructions[at + 1 :]]), gold)
        rises = without - present  # (n,)
        by_cell = {cell: _mean(rises[own]) for cell, own in members.items()}
        found.append(Blame(instruction_id=instructions[at].id, rise=_mean(rises), by_cell=by_cell))
    return found[::-1]


def most_blamed(blames: Sequence[Blame], cell: str | None = None) -> list[str]:
    """Instruction ids, highest rise first (over all failures, or those of `cell`), ties by list order."""
    ranked = sorted(blames, key=lambda found: -rise_of(found, cell))
    return [found.instruction_id for found in ranked]


def rise_of(found: Blame, cell: str | None = None) -> float:
    """Over all failures, or those of `cell`; 0 for a cell without failures."""
    return found.rise if cell is None else found.by_cell.get(cell, 0.0)


def _gold_log_probability(scores: Scores, gold: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """`scores` [n, k] → [n]; NaN for a row that could not be scored."""
    with np.errstate(invalid="ignore"):  # of NaN rows
        normalised = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return np.asarray(normalised[np.arange(len(gold)), gold])


def _mean(rises: npt.NDArray[np.float64]) -> float:
    """Mean of the finite values to 6 decimals; 0 if there are none."""
    held = rises[np.isfinite(rises)]
    return round(float(held.mean()), 6) if len(held) else 0.0
