"""Where each instruction of the prompt that ships comes from, and which instructions an example or a rule led to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pld.artifacts import SHIPS, read_jsonl, read_prompt
from pld.config.settings import load_config
from pld.distill.extract import asked_about
from pld.distill.render import turn_examples
from pld.errors import ArtifactError
from pld.records import Cluster, Example, Instruction, Record, Rejection, Rule
from pld.resolve.records import Descent, Effect, Step

PREFIX = 4
_NAMED = 10


class Source(Record):
    """A training example behind an instruction, and the rule that the Teacher wrote for it. `turn`: its place among the
    example turns of the prompt, from 1 (None: it is not shown)."""

    example_id: str
    label: str
    rule_id: str
    rule: str
    doubtful: bool
    turn: int | None = None


class InstructionOrigin(Record):
    """`place` from 1; `edits`: those of the conflict loop and of reviewers, the first first; `effect` None: not
    measured."""

    kind: Literal["instruction"] = "instruction"
    id: str
    label: str
    text: str
    place: int
    of: int
    origin: str
    support: int | float
    clusters: tuple[int, ...]
    edits: tuple[Step, ...]
    effect: Effect | None
    examples: tuple[Source, ...]


class ExampleUse(Record):
    """`no_rule`: why there is no `rule`; `cluster` None: noise; `turn` as in Source; `instructions`: ids of those that
    rest on the rule; `fixed_by`, `broken_by`: ids of those without which the answer would be wrong, or right (None: not
    measured)."""

    kind: Literal["example"] = "example"
    id: str
    split: str
    label: str
    rule: Rule | None
    no_rule: str | None
    cluster: int | None
    turn: int | None
    instructions: tuple[str, ...]
    fixed_by: tuple[str, ...] | None
    broken_by: tuple[str, ...] | None


@dataclass(frozen=True)
class Provenance:
    """Everything by id, from train and validation; `clusters`: rule id → cluster, without noise; `asked`: ids of the
    training examples that the Teacher was asked about; `turns`: example id → place among the prompt's example turns."""

    final: dict[str, Instruction]
    descents: dict[str, Descent]
    effects: dict[str, Effect]
    rules: dict[str, Rule]
    rejections: dict[str, Rejection]
    clusters: dict[str, int]
    examples: dict[str, Example]
    asked: frozenset[str]
    turns: dict[str, int]

    @classmethod
    def read(cls, artifacts: Path) -> "Provenance":
        config = load_config(artifacts / "config.yaml")
        train = read_jsonl(artifacts / "splits/train.jsonl", Example)
        validation = read_jsonl(artifacts / "splits/validation.jsonl", Example)
        ablation = artifacts / SHIPS / "ablation.jsonl"
        clusters = read_jsonl(artifacts / "best/clusters.jsonl", Cluster)
        shown = turn_examples(config.task, read_prompt(artifacts / SHIPS), train)
        return cls(
            final={own.id: own for own in read_jsonl(artifacts / SHIPS / "instructions.jsonl", Instruction)},
            descents={own.instruction_id: own for own in read_jsonl(artifacts / SHIPS / "descent.jsonl", Descent)},
            effects={own.instruction_id: own for own in read_jsonl(ablation, Effect)} if ablation.exists() else {},
            rules={rule.id: rule for rule in read_jsonl(artifacts / "rules/rules.jsonl", Rule)},
            rejections={own.example_id: own for own in read_jsonl(artifacts / "rules/rejected.jsonl", Rejection)},
            clusters={rule_id: own.id for own in clusters if not own.noise for rule_id in own.rule_ids},
            examples={example.id: example for example in (*train, *validation)},
            turns={own: place for place, own in enumerate(shown, 1)},
            asked=frozenset(example.id for example in asked_about(config.task, train, config.extraction)),
        )

    def look_up(self, wanted: str) -> InstructionOrigin | ExampleUse:
        """`wanted`: the id of an instruction, a rule or an example, or its beginning. Raises ArtifactError if nothing,
        or more than one thing, has it."""
        identity = self._identity(wanted)
        if identity in self.final:
            return self._instruction(self.final[identity])
        return self._example(self.examples[self.rules[identity].example_id if identity in self.rules else identity])

    def _identity(self, wanted: str) -> str:
        ids = [*self.final, *self.examples, *self.rules]
        if wanted in ids:
            return wanted
        begins = [identity for identity in ids if identity.startswith(wanted)] if len(wanted) >= PREFIX else []
        if len(begins) == 1:
            return begins[0]
        if begins:
            named = f"{', '.join(begins[:_NAMED])}{', ...' if len(begins) > _NAMED else ''}"
            raise ArtifactError(f"expected one id, got {wanted!r}, with which {len(begins)} begin (explain): {named}")
        raise ArtifactError(
            f"expected the id of an instruction, a rule, or a training or validation example (or {PREFIX} characters "
            f"of its beginning), got {wanted!r} (explain); the instructions are {', '.join(self.final)}"
        )

    def _instruction(self, own: Instruction) -> InstructionOrigin:
        descent = self.descents.get(own.id)
        if descent is None:
            raise ArtifactError(
                f"expected a line for {own.id} of instructions.jsonl, got none (artifacts/{SHIPS}/descent.jsonl); "
                "run `dvc repro`"
            )
        return InstructionOrigin(
            id=own.id,
            label=own.label,
            text=own.text,
            place=list(self.final).index(own.id) + 1,
            of=len(self.final),
            origin=descent.origin,
            support=own.support,
            clusters=descent.cluster_ids,
            edits=descent.edits,
            effect=self.effects.get(own.id),
            examples=tuple(
                Source(
                    example_id=rule.example_id,
                    label=self.examples[rule.example_id].label,
                    rule_id=rule.id,
                    rule=rule.text,
                    doubtful=rule.doubtful,
                    turn=self.turns.get(rule.example_id),
                )
                for rule in (self.rules[rule_id] for rule_id in descent.rule_ids)
            ),
        )

    def _example(self, example: Example) -> ExampleUse:
        rule = next((rule for rule in self.rules.values() if rule.example_id == example.id), None)
        descents = self.descents.values()
        measured = any(own.fixed is not None for own in descents)
        return ExampleUse(
            id=example.id,
            split=example.split,
            label=example.label,
            rule=rule,
            no_rule=None if rule else self._no_rule(example),
            cluster=self.clusters.get(rule.id) if rule else None,
            turn=self.turns.get(example.id),
            instructions=tuple(own.instruction_id for own in descents if example.id in own.example_ids),
            fixed_by=_holding(example.id, {own.instruction_id: own.fixed for own in descents}) if measured else None,
            broken_by=_holding(example.id, {own.instruction_id: own.broken for own in descents}) if measured else None,
        )

    def _no_rule(self, example: Example) -> str:
        if example.split != "train":
            return f"rules come from train examples only, not from {example.split}"
        if rejection := self.rejections.get(example.id):
            return f"refused: {rejection.reason}: {rejection.detail}"
        if example.id not in self.asked:
            return "none: the Teacher was not asked about this example (extraction.examples)"
        return "the Teacher gave none"


def _holding(example_id: str, ids_of: dict[str, Sequence[str] | None]) -> tuple[str, ...]:
    return tuple(instruction_id for instruction_id, ids in ids_of.items() if example_id in (ids or ()))
