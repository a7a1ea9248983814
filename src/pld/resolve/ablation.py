"""Leave-one-out effect of each instruction, pruning of those that are not missed, and the Pareto front."""

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pld.distill.cached_scorer import CachedScorer
from pld.distill.race import nested_parts
from pld.distill.trial import groups_of
from pld.metrics import Indices, compare
from pld.params import GateParams, ResolutionParams
from pld.records import Example, Instruction, Record, SystemPrompt
from pld.reports import Comparison, SystemReport
from pld.resolve.records import Effect
from pld.resolve.selection import ids_where


class FrontPoint(Record):
    """A measured list: macro-F1 on validation with its interval, and its prompt's `tokens`; `on_front`: no other list
    is as good with fewer tokens, or better with no more."""

    what: str
    prompt_sha256: str
    tokens: int
    macro_f1: float
    low: float
    high: float
    on_front: bool = False


@dataclass(frozen=True)
class Pruned:
    """`dropped`: ids, each with its effect in words; `points`: every list that was tried."""

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


def ablation_part(validation: Sequence[Example], params: ResolutionParams) -> Sequence[Example]:
    """The examples of `validation` on which instructions are ablated, stratified by label."""
    if params.ablation_examples is None or params.ablation_examples >= len(validation):
        return validation
    return nested_parts(validation, [params.ablation_examples], params.seed)[0]


def ablate(instructions: Sequence[Instruction], scorer: CachedScorer, validation: Sequence[Example]) -> list[Effect]:
    """Leave-one-instruction-out on `validation` at the reporting precision, in the order of `instructions`.

    A single instruction is compared with the frame alone. Scores n + 1 prompts for n instructions.
    """
    whole = _measure(instructions, scorer, validation)
    gold = scorer.gold(validation)
    was_f1 = {label: score.f1 for label, score in whole.report.per_label.items()}
    found = []
    for place, without in _shortened(instructions, scorer, validation):
        right, was_right = whole.chosen == gold, without.chosen == gold
        found.append(
            Effect(
                instruction_id=instructions[place].id,
                label=instructions[place].label,
                macro_f1=_compare(whole, without, scorer, validation).macro_f1_delta,
                per_label={label: f1 - without.report.per_label[label].f1 for label, f1 in was_f1.items()},
                tokens=whole.prompt.tokens - without.prompt.tokens,
                fixed=ids_where(validation, right & ~was_right),
                broken=ids_where(validation, was_right & ~right),
                examples=len(validation),
            )
        )
    return found[::-1]


def ablated_points(
    instructions: Sequence[Instruction], scorer: CachedScorer, validation: Sequence[Example]
) -> list[FrontPoint]:
    """The shortened lists of `ablate` as points; free after `ablate`, since their scores are cached."""
    points = [
        front_point(f"without {instructions[place].id}", without.prompt, without.report)
        for place, without in _shortened(instructions, scorer, validation)
    ]
    return points[::-1]


def prune(
    instructions: Sequence[Instruction],
    scorer: CachedScorer,
    validation: Sequence[Example],
    gate: GateParams,
    floor: float,
) -> Pruned:
    """Drop instructions that are not missed, longest first, restarting after each one dropped.

    An instruction is dropped if, against the unpruned list, macro-F1 on `validation` falls by at most `gate.min_gain`
    (so small losses don't add up), no label's recall falls by more than `gate.max_label_loss` while its F1 falls too,
    macro-F1 stays at `floor` or above, and its label keeps another instruction. Point estimates at the reporting
    precision decide.
    """
    unpruned = _measure(instructions, scorer, validation)
    kept = list(instructions)
    dropped: list[tuple[str, str]] = []
    points: list[FrontPoint] = []
    while True:
        for own in _longest_first(kept, scorer):
            shorter = [instruction for instruction in kept if instruction is not own]
            without = _measure(shorter, scorer, validation)
            goes = _holds(without, unpruned, gate, floor)
            points.append(front_point(_name(dropped, own, goes), without.prompt, without.report))
            if goes:
                saved = scorer.prompt(kept).tokens - without.prompt.tokens
                loss = _compare(without, unpruned, scorer, validation).macro_f1_delta
                words = (
                    f"{saved} tokens; without it macro-F1 on validation {loss.value:+.4f} "
                    f"[{loss.low:+.4f}, {loss.high:+.4f}] against the unpruned list"
                )
                dropped.append((own.id, words))
                kept = shorter
                break
        else:
            return Pruned(kept, tuple(dropped), points)


def front_point(what: str, prompt: SystemPrompt, report: SystemReport) -> FrontPoint:
    """`report` of `prompt` on validation; `pareto` sets `on_front`."""
    figure = {"macro_f1": report.macro_f1.value, "low": report.macro_f1.low, "high": report.macro_f1.high}
    return FrontPoint(what=what, prompt_sha256=prompt.sha256, tokens=report.prompt_tokens, **figure)


def pareto(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """`points` with `on_front` set, shortest first; a prompt measured several times keeps its first name."""
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
    """The inverse of `pareto_csv`."""
    return [FrontPoint.model_validate(row) for row in csv.DictReader(io.StringIO(text))]


def _measure(instructions: Sequence[Instruction], scorer: CachedScorer, validation: Sequence[Example]) -> _Measured:
    prompt = scorer.prompt(instructions)
    return _Measured(prompt, scorer.report(prompt, validation), scorer.chosen(prompt, validation))


def _shortened(
    instructions: Sequence[Instruction], scorer: CachedScorer, validation: Sequence[Example]
) -> Iterator[tuple[int, _Measured]]:
    """Each index with the list without it; last first, so that consecutive prompts share the longest prefixes."""
    for place in reversed(range(len(instructions))):
        yield place, _measure([*instructions[:place], *instructions[place + 1 :]], scorer, validation)


def _compare(a: _Measured, b: _Measured, scorer: CachedScorer, validation: Sequence[Example]) -> Comparison:
    labels, settings = scorer.config.task.labels, scorer.config.evaluation
    gold, groups = scorer.gold(validation), groups_of(validation)
    return compare("a", "b", gold, a.chosen, b.chosen, len(labels), groups, settings.resamples, settings.seed)


def _longest_first(kept: Sequence[Instruction], scorer: CachedScorer) -> list[Instruction]:
    """Those whose label has another instruction, by the tokens that dropping them saves."""
    count = Counter(instruction.label for instruction in kept)
    candidates = [instruction for instruction in kept if count[instruction.label] > 1]

    def tokens(own: Instruction) -> int:
        return scorer.prompt([instruction for instruction in kept if instruction is not own]).tokens

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
