"""Traces each instruction of the final list back: Edits → first instruction → clusters → rules → training examples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pld.distill.text_checks import one_line
from pld.records import Instruction, Rule, content_id
from pld.resolve.edits import apply
from pld.resolve.records import Add, Descent, EditResult, Effect, Step

BY_A_REVIEWER = 0
"""The round of a Step that a reviewer made, after the loop."""


@dataclass(frozen=True)
class Line:
    """An instruction with the origin of its first version and the accepted Edits since."""

    instruction: Instruction
    origin: str
    steps: tuple[Step, ...] = ()


def descents(
    final: Sequence[Instruction],
    came_in: Sequence[Instruction],
    verdicts: Sequence[EditResult],
    rules: Mapping[str, Rule],
    clusters: Mapping[str, int],
    effects: Sequence[Effect] | None,
) -> list[Descent]:
    """One for each of `final`, in its order. `verdicts`: of all rounds; `rules` by id; `clusters`: rule id → cluster
    (none for noise).

    A lineage begins with an instruction of the initial list, an `add`, or a rule restored for a lost label.
    """
    lines = trace(came_in, verdicts, rules)
    found = []
    for own in final:
        line = lines.get(own.id) or Line(own, own.origin)  # not edited since it was restored
        found.append(
            Descent(
                instruction_id=own.id,
                label=own.label,
                text=own.text,
                origin=line.origin,
                example_ids=tuple(dict.fromkeys(rules[rule_id].example_id for rule_id in own.rule_ids)),
                rule_ids=own.rule_ids,
                cluster_ids=tuple(sorted({clusters[rule_id] for rule_id in own.rule_ids if rule_id in clusters})),
                edits=line.steps,
                fixed=None,
                broken=None,
            )
        )
    return with_effects(found, effects)


def with_effects(descents: Sequence[Descent], effects: Sequence[Effect] | None) -> list[Descent]:
    """`descents` with the validation examples that each instruction fixes and breaks (None: not measured)."""
    changed = {effect.instruction_id: {"fixed": effect.fixed, "broken": effect.broken} for effect in effects or ()}
    unknown = {"fixed": None, "broken": None}
    return [own.model_copy(update=changed.get(own.instruction_id, unknown)) for own in descents]


def trace(came_in: Sequence[Instruction], verdicts: Sequence[EditResult], rules: Mapping[str, Rule]) -> dict[str, Line]:
    """Instruction id → its line, for each instruction still present after the accepted Edits.

    An instruction restored for a lost label has a line only once an Edit changes it.
    """
    lines = {own.id: Line(own, own.origin) for own in came_in}
    accepted = [verdict for verdict in verdicts if verdict.outcome == "accepted"]
    for at, verdict in enumerate(accepted):
        edit = verdict.edit
        before = None
        if not isinstance(edit, Add):
            before = lines.pop(edit.id, None) or _restored(edit.id, rules, accepted[:at])
            if before is None:
                continue
        made = apply([before.instruction] if before else [], edit, verdict.round, verdict.rule_ids)
        step = step_of(verdict, before.instruction.id if before else None)
        for own in made:
            line = before or Line(own, own.origin)
            lines[own.id] = replace(line, instruction=own, steps=(*line.steps, step))
    return lines


def describe_result(verdict: EditResult) -> str:
    """The outcome of an Edit in words."""
    if verdict.gate is None:
        return f"{verdict.outcome}: {verdict.why}" if verdict.why else verdict.outcome
    gain = verdict.gate.gain
    figures = (
        f"macro-F1 on validation {gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}], "
        f"a gain has probability {verdict.gate.probability:.4f}"
    )
    failed = f"; {'; '.join(verdict.gate.failed)}" if verdict.gate.failed else ""
    return f"{verdict.outcome}: {figures}{failed}"


def describe_step(step: Step) -> str:
    """A step in words, on one line."""
    came = f" of {step.from_id}" if step.from_id else ""
    reason = f" because: {one_line(step.reason)}" if step.reason else ""
    if step.round == BY_A_REVIEWER:
        return f"{step.edit_id}: {step.op}{came} by the reviewer {step.proposer}{reason}"
    return f"round {step.round}: {step.op}{came} (Edit {step.edit_id}, by {step.proposer}){reason}; {step.verdict}"


def step_of(verdict: EditResult, from_id: str | None) -> Step:
    """The Edit as a step from the instruction `from_id` (None: it added one)."""
    return Step(
        round=verdict.round,
        edit_id=verdict.id,
        op=verdict.edit.op,
        proposer=verdict.proposer,
        reason=verdict.edit.reason,
        from_id=from_id,
        verdict=describe_result(verdict),
    )


def _restored(identity: str, rules: Mapping[str, Rule], earlier: Sequence[EditResult]) -> Line | None:
    """The line of an instruction restored for a lost label: it has a rule's text."""
    own = [rule for rule in rules.values() if content_id({"label": rule.label, "text": rule.text}, 12) == identity]
    if not own:
        return None
    alarmed = [verdict.round for verdict in earlier if any(identity in alarm for alarm in verdict.alarms)]
    origin = f"restored in round {alarmed[-1]}" if alarmed else "restored before round 1"
    instruction = Instruction(
        id=identity,
        text=own[0].text,
        label=own[0].label,
        rule_ids=tuple(rule.id for rule in own),
        support=len(own),
        origin=origin,
    )
    return Line(instruction, origin)
