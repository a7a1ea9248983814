"""What each instruction of a list does, by leaving it out; what can go without loss; quality against length."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from pld.distill.cached_scorer import Answering
from pld.distill.trial import groups_of
from pld.metrics import Indices, compare
from pld.params import GateParams
from pld.records import Comparison, Example, Instruction, Record, SystemPrompt, SystemReport
from pld.resolve.records import Effect


class FrontPoint(Record):
    """A list that was measured: its macro-F1 on validation with the interval against the `tokens` that all requests
    share; `on_front`: no other one is as good with fewer tokens, or better with no more."""

    what: str
    prompt_sha256: str
    tokens: int
    macro_f1: float
    low: float
    high: float
    on_front: bool = False


@dataclass(frozen=True)
class Pruned:
    """`dropped`: ids, each with words on what it was worth; `points`: every list that was tried."""

    instructions: list[Instruction]
    dropped: tuple[tuple[str, str], ...]
    points: list[FrontPoint]


@dataclass(frozen=True)
class _Measured:
    prompt: SystemPrompt
    report: SystemReport
    chosen: Indices

    @property
    def macro_f1(self) -> float:
        return self.report.macro_f1.value


def ablate(instructions: Sequence[Instruction], answering: Answering, validation: Sequence[Example]) -> list[Effect]:
    """Leave-one-instruction-out on all of `validation` at the reporting precision, in the order of `instructions`.

    A single instruction is measured against the frame without any. n + 1 prompts for n instructions.
    """
    whole = _measure(instructions, answering, validation)
    gold = answering.gold(validation)
    found = []
    for place, without in _shortened(instructions, answering, validation):
        own = instructions[place]
        right, was_right = whole.chosen == gold, without.chosen == gold
        found.append(
            Effect(
                instruction_id=own.id,
                label=own.label,
                macro_f1=_compare(whole, without, answering, validation).macro_f1_delta,
                per_label={
                    label: score.f1 - without.report.per_label[label].f1
                    for label, score in whole.report.per_label.items()
                },
                tokens=whole.prompt.tokens - without.prompt.tokens,
                fixed=_ids(validation, right & ~was_right),
                broken=_ids(validation, was_right & ~right),
            )
        )
    return found[::-1]


def ablated_points(
    instructions: Sequence[Instruction], answering: Answering, validation: Sequence[Example]
) -> list[FrontPoint]:
    """The shortened lists of `ablate` as points; after it they cost no answer of the Student."""
    points = [
        front_point(f"without {instructions[place].id}", without.prompt, without.report)
        for place, without in _shortened(instructions, answering, validation)
    ]
    return points[::-1]


def prune(
    instructions: Sequence[Instruction],
    answering: Answering,
    validation: Sequence[Example],
    gate: GateParams,
    floor: float,
) -> Pruned:
    """Drop what is not missed, the longest instruction first, and look at the rest again after each that went.

    One goes when, against the unpruned list, macro-F1 on `validation` falls by at most `gate.min_gain` and no declared
    label's recall by more than `gate.max_label_loss` while its F1 falls too, macro-F1 stays at `floor` or above, and
    its label keeps another instruction; so the list never gets empty, and small losses don't add up. Point estimates at
    the reporting precision decide; the interval of each loss stands in `dropped`.
    """
    unpruned = _measure(instructions, answering, validation)
    kept = list(instructions)
    dropped: list[tuple[str, str]] = []
    points: list[FrontPoint] = []
    progressed = True
    while progressed:
        progressed = False
        for own in _longest_first(kept, answering):
            shorter = [instruction for instruction in kept if instruction is not own]
            without = _measure(shorter, answering, validation)
            goes = _holds(without, unpruned, gate, floor)
            points.append(front_point(_name(dropped, own, goes), without.prompt, without.report))
            if goes:
                saved = answering.prompt(kept).tokens - without.prompt.tokens
                loss = _compare(without, unpruned, answering, validation).macro_f1_delta
                words = (
                    f"{saved} tokens; without it macro-F1 on validation {loss.value:+.4f} "
                    f"[{loss.low:+.4f}, {loss.high:+.4f}] against the unpruned list"
                )
                dropped.append((own.id, words))
                kept, progressed = shorter, True
                break
    return Pruned(kept, tuple(dropped), points)


def front_point(what: str, prompt: SystemPrompt, report: SystemReport) -> FrontPoint:
    """`report` of `prompt` on validation; `pareto` sets `on_front`."""
    figure = report.macro_f1
    return FrontPoint(
        what=what,
        prompt_sha256=prompt.sha256,
        tokens=report.prompt_tokens,
        macro_f1=figure.value,
        low=figure.low,
        high=figure.high,
    )


def pareto(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """`points` with `on_front` set, the shortest first, a prompt that was measured several times under its first name.

    On the front: no other point has at least its macro-F1 with fewer tokens, or a higher one with at most its tokens.
    """
    different = list({point.prompt_sha256: point for point in reversed(points)}.values())
    flagged = [
        point.model_copy(update={"on_front": not any(_dominates(other, point) for other in different)})
        for point in different
    ]
    return sorted(flagged, key=lambda point: (point.tokens, -point.macro_f1, point.prompt_sha256))


def pareto_csv(points: Sequence[FrontPoint]) -> str:
    """artifacts/resolve/pareto.csv, a row for each point."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(FrontPoint.model_fields), lineterminator="\n")
    writer.writeheader()
    for point in points:
        figures = {name: f"{getattr(point, name):.6f}" for name in ("macro_f1", "low", "high")}
        writer.writerow({**point.model_dump(), **figures, "on_front": str(point.on_front).lower()})
    return buffer.getvalue()


def read_pareto_csv(text: str) -> list[FrontPoint]:
    """The points of a text that `pareto_csv` made."""
    return [FrontPoint.model_validate(row) for row in csv.DictReader(io.StringIO(text))]


def _measure(instructions: Sequence[Instruction], answering: Answering, validation: Sequence[Example]) -> _Measured:
    prompt = answering.prompt(instructions)
    return _Measured(prompt, answering.report(prompt, validation), answering.chosen(prompt, validation))


def _shortened(
    instructions: Sequence[Instruction], answering: Answering, validation: Sequence[Example]
) -> Iterator[tuple[int, _Measured]]:
    """Each place, the last one first, and the list without it: consecutive lists share the longest beginnings, which
    the Student's cache holds."""
    for place in reversed(range(len(instructions))):
        yield place, _measure([*instructions[:place], *instructions[place + 1 :]], answering, validation)


def _compare(a: _Measured, b: _Measured, answering: Answering, validation: Sequence[Example]) -> Comparison:
    labels, settings = answering.config.task.labels, answering.config.evaluation
    gold, groups = answering.gold(validation), groups_of(validation)
    return compare("a", "b", gold, a.chosen, b.chosen, len(labels), groups, settings.resamples, settings.seed)


def _longest_first(kept: Sequence[Instruction], answering: Answering) -> list[Instruction]:
    """Those whose label has another instruction, by the tokens that the prompt saves without them."""
    count = Counter(instruction.label for instruction in kept)
    candidates = [instruction for instruction in kept if count[instruction.label] > 1]

    def tokens(own: Instruction) -> int:
        return answering.prompt([instruction for instruction in kept if instruction is not own]).tokens

    return sorted(candidates, key=tokens)


def _holds(without: _Measured, unpruned: _Measured, gate: GateParams, floor: float) -> bool:
    if without.macro_f1 < floor or unpruned.macro_f1 - without.macro_f1 > gate.min_gain:
        return False
    recalls = without.report.per_label
    return all(
        score.recall - recalls[label].recall <= gate.max_label_loss or recalls[label].f1 >= score.f1
        for label, score in unpruned.report.per_label.items()
    )


def _name(dropped: Sequence[tuple[str, str]], own: Instruction, goes: bool) -> str:
    if goes:
        return f"pruned {len(dropped) + 1}"
    return f"pruned {len(dropped)}, without {own.id}" if dropped else f"without {own.id}"


def _dominates(other: FrontPoint, point: FrontPoint) -> bool:
    shorter = other.tokens < point.tokens and other.macro_f1 >= point.macro_f1
    return shorter or (other.tokens <= point.tokens and other.macro_f1 > point.macro_f1)


def _ids(examples: Sequence[Example], where: Indices) -> tuple[str, ...]:
    return tuple(examples[int(place)].id for place in np.flatnonzero(where))
