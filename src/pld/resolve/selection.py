"""Selects among candidate lists: a race by successive halving, then a paired test of the winner (the gate).

Successive halving: Karnin et al. 2013; as a race among configurations: Jamieson and Talwalkar 2016, arXiv 1502.07943.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pld.distill.cached_scorer import CachedScorer
from pld.distill.race import nested_parts
from pld.distill.trial import groups_of
from pld.metrics import Indices, interval, label_scores, macro_f1, paired_gains
from pld.params import GateParams
from pld.records import Example, SystemPrompt
from pld.resolve.records import GateResult, Rung

PARTS = (0.25, 0.5, 1.0)
LEAST = 64
"""Examples per part, if there are so many: on eight a good list loses by chance."""


@dataclass(frozen=True)
class Race:
    """`winners`: sha256 of the best prompts, best first; `rungs`: sha256 → figures on the parts that the prompt
    reached; `finalists`: how many reached the last part."""

    winners: tuple[str, ...]
    rungs: Mapping[str, tuple[Rung, ...]]
    finalists: int


def growing_parts(validation: Sequence[Example], seed: int) -> list[list[Example]]:
    """Nested parts of `validation`, the last one all of it (`nested_parts`). Each has at least `LEAST` examples and is
    smaller than the next."""
    sizes = sorted({min(len(validation), max(LEAST, round(part * len(validation)))) for part in PARTS})
    return nested_parts(validation, sizes, seed)


def screen(
    prompts: Sequence[SystemPrompt], present: SystemPrompt, scorer: CachedScorer, pool: Sequence[Example], size: int
) -> Race:
    """The best `size` of `prompts` on the training examples of `pool`, which saves answers on validation; at the
    search's precision, ties by fewer tokens, then by hash. No prompt may show any of the examples."""
    rungs = {prompt.sha256: (rung(prompt, present, scorer, pool),) for prompt in prompts}
    best = sorted(prompts, key=_rank(rungs))
    return Race(tuple(prompt.sha256 for prompt in best[:size]), rungs, len(prompts))


def race(
    prompts: Sequence[SystemPrompt],
    present: SystemPrompt,
    scorer: CachedScorer,
    parts: Sequence[Sequence[Example]],
    gate: GateParams,
    join: Callable[[Sequence[SystemPrompt]], Sequence[SystemPrompt]] | None = None,
) -> Race:
    """Successive halving of `prompts` (all different) over the growing `parts`, at the search's precision; one wins.
    After the first part, `join` receives those that beat the `present` list there, best first, and adds combinations.

    Among prompts within `gate.min_gain` of the best the simplest wins: not joined, then fewest tokens. So no Edit rides
    along without effect, and a wrong instruction is removed rather than moved to where it does no harm. On the last
    part, prompts that cost a label more recall than the `gate` allows rank last.
    """
    rungs: dict[str, tuple[Rung, ...]] = {prompt.sha256: () for prompt in prompts}
    running, joined = list(prompts), set[str]()

    def measure(measured: Sequence[SystemPrompt], part: Sequence[Example]) -> None:
        for prompt in measured:
            rungs[prompt.sha256] += (rung(prompt, present, scorer, part),)

    for part in parts[:-1]:
        measure(running, part)
        leaders = [prompt for prompt in sorted(running, key=_rank(rungs)) if rungs[prompt.sha256][-1].gain > 0]
        running = _simplest_first(running, rungs, gate.min_gain, joined)[: -(-len(running) // 2)]
        if part is parts[0] and join is not None:
            joint = join(leaders)
            rungs |= {prompt.sha256: () for prompt in joint}
            joined = {prompt.sha256 for prompt in joint}
            running += joint
    measure(running, parts[-1])
    lost = {prompt.sha256: _label_loss(prompt, present, scorer, parts[-1]) for prompt in running}
    eligible = [prompt for prompt in running if lost[prompt.sha256] <= gate.max_label_loss]
    survivor = _simplest_first(eligible or running, rungs, gate.min_gain, joined)[0]
    return Race((survivor.sha256,), rungs, len(running))


def rung(prompt: SystemPrompt, present: SystemPrompt, scorer: CachedScorer, examples: Sequence[Example]) -> Rung:
    """`prompt` and the `present` one on `examples`, at the search's precision."""
    labels, gold = len(scorer.config.task.labels), scorer.gold(examples)
    ours, theirs = (
        macro_f1(gold, scorer.chosen(found, examples, searching=True), labels) for found in (prompt, present)
    )
    return Rung(examples=len(examples), macro_f1=ours, present=theirs)


def required_probability(min_confidence: float, finalists: int) -> float:
    """`min_confidence` with Šidák's correction for choosing the best of `finalists`."""
    return float(min_confidence ** (1 / finalists))


def apply_gate(
    candidate: SystemPrompt,
    present: SystemPrompt,
    finalists: int,
    scorer: CachedScorer,
    validation: Sequence[Example],
    gate: GateParams,
    seed: int,
) -> GateResult:
    """Test `candidate`, the best of `finalists` on `validation`, against `present` at the reporting precision."""
    labels = scorer.config.task.labels
    gold = scorer.gold(validation)
    ours, theirs = scorer.chosen(candidate, validation), scorer.chosen(present, validation)
    gain, drawn = paired_gains(gold, ours, theirs, len(labels), groups_of(validation), gate.resamples, seed)
    probability, required = float((drawn > 0).mean()), required_probability(gate.min_confidence, finalists)
    change, lost = _changes(gold, ours, theirs, len(labels))
    failed = []
    # a gain of 0 fails even if min_gain is 0
    if gain <= 0 or gain < gate.min_gain:
        failed.append(f"macro-F1 {gain:+.4f}, wanted at least +{gate.min_gain:g}")
    if probability < required:
        failed.append(f"a gain has probability {probability:.4f}, wanted {required:.4f} (best of {finalists})")
    for label, loss in zip(labels, lost, strict=True):
        if loss > gate.max_label_loss:
            failed.append(f"recall of {label} {-loss:+.3f} and its F1 lower, wanted at least -{gate.max_label_loss:g}")
    right, was_right = ours == gold, theirs == gold
    return GateResult(
        accepted=not failed,
        gain=interval(gain, drawn),
        probability=probability,
        wanted_probability=required,
        finalists=finalists,
        recall_change=dict(zip(labels, change, strict=True)),
        failed=tuple(failed),
        fixed=ids_where(validation, right & ~was_right),
        broken=ids_where(validation, was_right & ~right),
    )


def _changes(gold: Indices, ours: Indices, theirs: Indices, labels: int) -> tuple[list[float], list[float]]:
    """The change of each label's recall, and its loss: 0 unless the label's F1 falls too. A list that answers one label
    to everything has recall 1 there, and losing some of that is no harm."""
    (recall, f1), (was_recall, was_f1) = (label_scores(gold, answers, labels) for answers in (ours, theirs))
    change = recall - was_recall
    return [float(x) for x in change], [float(x) for x in np.where(f1 < was_f1, np.maximum(-change, 0.0), 0.0)]


def _label_loss(
    prompt: SystemPrompt, present: SystemPrompt, scorer: CachedScorer, examples: Sequence[Example]
) -> float:
    """The largest loss of recall of any label."""
    ours, theirs = (scorer.chosen(found, examples, searching=True) for found in (prompt, present))
    return max(_changes(scorer.gold(examples), ours, theirs, len(scorer.config.task.labels))[1])


def _rank(rungs: Mapping[str, tuple[Rung, ...]]) -> Callable[[SystemPrompt], tuple[float, int, str]]:
    """Sort key: best on its last part first, ties by fewer tokens, then by hash."""
    return lambda prompt: (-rungs[prompt.sha256][-1].macro_f1, prompt.tokens, prompt.sha256)


def _simplest_first(
    prompts: Sequence[SystemPrompt], rungs: Mapping[str, tuple[Rung, ...]], margin: float, joined: Collection[str]
) -> list[SystemPrompt]:
    """Those within `margin` of the best by simplicity, then the others, best first."""
    ranked = sorted(prompts, key=_rank(rungs))
    enough = rungs[ranked[0].sha256][-1].macro_f1 - margin
    close = [prompt for prompt in ranked if rungs[prompt.sha256][-1].macro_f1 >= enough]
    return sorted(close, key=lambda prompt: (prompt.sha256 in joined, prompt.tokens)) + ranked[len(close) :]


def ids_where(examples: Sequence[Example], held: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(example.id for example, is_held in zip(examples, held, strict=True) if is_held)
