"""How a candidate list wins its place: a race by successive halving, then a test against the present list.

Successive halving: Karnin et al. 2013; as a race among configurations: Jamieson and Talwalkar 2016, arXiv 1502.07943.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pld.distill.cached_scorer import Answering
from pld.distill.trial import groups_of
from pld.metrics import Indices, interval, label_scores, macro_f1, paired_gains
from pld.params import GateParams
from pld.records import Example, SystemPrompt, content_id
from pld.resolve.records import GateVerdict, Rung

PARTS = (0.25, 0.5, 1.0)
LEAST = 64
"""Examples of a part, as far as there are so many: on eight a good list loses by chance."""


@dataclass(frozen=True)
class Race:
    """`winners`: sha256 of the best prompts, the best first; `rungs`: prompt sha256 → its figures on each part that it
    reached; `finalists`: how many reached the last part."""

    winners: tuple[str, ...]
    rungs: Mapping[str, tuple[Rung, ...]]
    finalists: int


def growing_parts(validation: Sequence[Example], seed: int) -> list[list[Example]]:
    """Nested parts of `validation`, the last one all of it: seeded; each holds its share of every label, or, where the
    data set has groups, whole groups. None is smaller than `LEAST` examples, and none is as large as the next."""
    groups = groups_of(validation)
    sizes = sorted({min(len(validation), max(LEAST, round(part * len(validation)))) for part in PARTS})
    if groups is None:
        ordered = _stratified(validation, seed)
        return [ordered[:size] for size in sizes]
    counts = Counter(groups)
    held: set[str] = set()
    parts: dict[int, list[Example]] = {}
    in_turn = iter(sorted(counts, key=lambda group: content_id([seed, "race", group])))
    for size in sizes:
        while sum(counts[group] for group in held) < size:
            held.add(next(in_turn))
        part = [example for example, group in zip(validation, groups, strict=True) if group in held]
        parts[len(part)] = part
    return list(parts.values())


def screen(
    prompts: Sequence[SystemPrompt], present: SystemPrompt, answering: Answering, pool: Sequence[Example], size: int
) -> Race:
    """The best `size` of `prompts` on the training examples of `pool`, so that validation is not asked about each of
    them; at the search's precision, ties by fewer tokens, then by hash. No example may stand in any of the prompts."""
    rungs = {prompt.sha256: (rung(prompt, present, answering, pool),) for prompt in prompts}
    best = sorted(prompts, key=_rank(rungs))
    return Race(tuple(prompt.sha256 for prompt in best[:size]), rungs, len(prompts))


def race(
    prompts: Sequence[SystemPrompt],
    present: SystemPrompt,
    answering: Answering,
    parts: Sequence[Sequence[Example]],
    gate: GateParams,
    join: Callable[[Sequence[SystemPrompt]], Sequence[SystemPrompt]] | None = None,
) -> Race:
    """The better half of `prompts` (all different) on each of the growing `parts` goes on to the next, the first one on
    the last part survives; at the search's precision. After the first part, `join` is given those that do better there
    than the `present` list, the best first, and adds prompts of its own to those that go on.

    Of all that are within `gate.min_gain` of the best the simplest comes first: one that was not joined, then the one
    of fewest tokens; so no Edit rides along for nothing, and what is wrong is taken out rather than put where it does
    no harm. On the last part, those that cost a label more recall than the `gate` allows come behind the others.
    """
    rungs: dict[str, tuple[Rung, ...]] = {prompt.sha256: () for prompt in prompts}
    running, joined = list(prompts), set[str]()
    for part in parts[:-1]:
        _measure(running, present, answering, part, rungs)
        leaders = [prompt for prompt in sorted(running, key=_rank(rungs)) if rungs[prompt.sha256][-1].gain > 0]
        running = _simplest_first(running, rungs, gate.min_gain, joined)[: -(-len(running) // 2)]
        if part is parts[0] and join is not None:
            joint = join(leaders)
            rungs |= {prompt.sha256: () for prompt in joint}
            joined = {prompt.sha256 for prompt in joint}
            running += joint
    _measure(running, present, answering, parts[-1], rungs)
    lost = {prompt.sha256: _label_loss(prompt, present, answering, parts[-1]) for prompt in running}
    eligible = [prompt for prompt in running if lost[prompt.sha256] <= gate.max_label_loss]
    survivor = _simplest_first(eligible or running, rungs, gate.min_gain, joined)[0]
    return Race((survivor.sha256,), rungs, len(running))


def rung(prompt: SystemPrompt, present: SystemPrompt, answering: Answering, examples: Sequence[Example]) -> Rung:
    """`prompt` beside the `present` one on `examples`, at the search's precision."""
    labels, gold = len(answering.config.task.labels), answering.gold(examples)
    ours, theirs = (
        macro_f1(gold, answering.chosen(found, examples, searching=True), labels) for found in (prompt, present)
    )
    return Rung(examples=len(examples), macro_f1=ours, present=theirs)


def wanted_probability(min_confidence: float, finalists: int) -> float:
    """The best of several looks better than it is: `min_confidence` for all of them together asks so much of the one
    (Šidák's correction)."""
    return float(min_confidence ** (1 / finalists))


def judge(
    candidate: SystemPrompt,
    present: SystemPrompt,
    finalists: int,
    answering: Answering,
    validation: Sequence[Example],
    gate: GateParams,
    seed: int,
) -> GateVerdict:
    """`candidate`, the best of `finalists` on all of `validation`, against `present` at the reporting precision."""
    labels = answering.config.task.labels
    gold = answering.gold(validation)
    ours, theirs = answering.chosen(candidate, validation), answering.chosen(present, validation)
    gain, drawn = paired_gains(gold, ours, theirs, len(labels), groups_of(validation), gate.resamples, seed)
    probability, wanted = float((drawn > 0).mean()), wanted_probability(gate.min_confidence, finalists)
    change, lost = _changes(gold, ours, theirs, len(labels))
    failed = []
    # a gain of nothing is no gain, whatever min_gain says
    if gain <= 0 or gain < gate.min_gain:
        failed.append(f"macro-F1 {gain:+.4f}, expected at least +{gate.min_gain:g}")
    if probability < wanted:
        failed.append(f"a gain has probability {probability:.4f}, expected {wanted:.4f} (best of {finalists})")
    for label, loss in zip(labels, lost, strict=True):
        if loss > gate.max_label_loss:
            failed.append(
                f"recall of {label} {-loss:+.3f} and its F1 lower, expected at least -{gate.max_label_loss:g}"
            )
    right, was_right = ours == gold, theirs == gold
    return GateVerdict(
        accepted=not failed,
        gain=interval(gain, drawn),
        probability=probability,
        wanted_probability=wanted,
        finalists=finalists,
        recall_change=dict(zip(labels, change, strict=True)),
        failed=tuple(failed),
        fixed=_ids(validation, right & ~was_right),
        broken=_ids(validation, was_right & ~right),
    )


def _changes(gold: Indices, ours: Indices, theirs: Indices, labels: int) -> tuple[list[float], list[float]]:
    """Recall of each label less what it was; and how much of it is a loss: 0 where the label's F1 does not fall. A list
    that answers one label to everything has all of its recall, and to mend that is no loss to it."""
    (recall, f1), (was_recall, was_f1) = (label_scores(gold, answers, labels) for answers in (ours, theirs))
    change = recall - was_recall
    return [float(x) for x in change], [float(x) for x in np.where(f1 < was_f1, np.maximum(-change, 0.0), 0.0)]


def _label_loss(
    prompt: SystemPrompt, present: SystemPrompt, answering: Answering, examples: Sequence[Example]
) -> float:
    """The most that a label loses."""
    ours, theirs = (answering.chosen(found, examples, searching=True) for found in (prompt, present))
    return max(_changes(answering.gold(examples), ours, theirs, len(answering.config.task.labels))[1])


def _measure(
    prompts: Sequence[SystemPrompt],
    present: SystemPrompt,
    answering: Answering,
    part: Sequence[Example],
    rungs: dict[str, tuple[Rung, ...]],
) -> None:
    for prompt in prompts:
        rungs[prompt.sha256] += (rung(prompt, present, answering, part),)


def _rank(rungs: Mapping[str, tuple[Rung, ...]]) -> Callable[[SystemPrompt], tuple[float, int, str]]:
    """Sorts the best on its last part first, ties by fewer tokens, then by hash."""
    return lambda prompt: (-rungs[prompt.sha256][-1].macro_f1, prompt.tokens, prompt.sha256)


def _simplest_first(
    prompts: Sequence[SystemPrompt], rungs: Mapping[str, tuple[Rung, ...]], margin: float, joined: Collection[str]
) -> list[SystemPrompt]:
    """Those within `margin` of the best by simplicity, then the others, the best first."""
    ranked = sorted(prompts, key=_rank(rungs))
    enough = rungs[ranked[0].sha256][-1].macro_f1 - margin
    close = [prompt for prompt in ranked if rungs[prompt.sha256][-1].macro_f1 >= enough]
    return sorted(close, key=lambda prompt: (prompt.sha256 in joined, prompt.tokens)) + ranked[len(close) :]


def _ids(examples: Sequence[Example], held: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(example.id for example, is_held in zip(examples, held, strict=True) if is_held)


def _stratified(examples: Sequence[Example], seed: int) -> list[Example]:
    """An order of which every beginning holds its share of each label."""
    by_label: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: content_id([seed, "race", example.id])):
        by_label.setdefault(example.label, []).append(example)
    placed = [((at + 0.5) / len(own), example) for own in by_label.values() for at, example in enumerate(own)]
    return [example for _, example in sorted(placed, key=lambda item: (item[0], item[1].id))]
