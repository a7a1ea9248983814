"""How the final list came to be, read from the files of the stages, and looked up by an id of any kind."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pld.artifacts import SHIPS, read_jsonl, read_record, read_text
from pld.distill.extract import asked_about
from pld.errors import ArtifactError
from pld.params import load_config
from pld.records import Cluster, Example, Instruction, Record, Rejection, Reviewed, Rule, sha256
from pld.resolve.edits import apply
from pld.resolve.lineage import step_of
from pld.resolve.records import Descent, EditVerdict, Effect, ResolutionReport, Step
from pld.review.decisions import ReviewEntry, Verdict, edited
from pld.review.decisions import step_of as review_step
from pld.review.log import read_log

PREFIX = 4
_NAMED = 10


class Source(Record):
    """A training example behind an instruction, and the rule that the Teacher wrote for it."""

    example_id: str
    label: str
    rule_id: str
    rule: str
    doubtful: bool


class Decided(Record):
    """What a person decided about an instruction, in a sheet of the prompt that ships or of an earlier one."""

    sheet: int
    at: str
    of_what_ships: bool
    verdict: Verdict
    reviewer: str
    note: str


class Present(Record):
    """An instruction of the final list."""

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
    decisions: tuple[Decided, ...]
    effect: Effect | None
    examples: tuple[Source, ...]


class Gone(Record):
    """An instruction that was in a list once. `became`: what the Edit, or the reviewer, that took it made of it."""

    kind: Literal["gone"] = "gone"
    id: str
    label: str
    text: str
    origin: str
    seen: str
    taken_by: Step | None
    became: tuple[str, ...]
    why: str


class Touched(Record):
    """An Edit that has to do with an example: proposed on seeing it (`answers`), or seen at the gate to turn it right
    or wrong."""

    how: Literal["answers", "fixes", "breaks"]
    edit: Step


class Tried(Record):
    """An Edit, accepted or not, with all that was measured of it."""

    kind: Literal["edit"] = "edit"
    id: str
    step: Step
    found: EditVerdict


class Story(Record):
    """An example: what it gave, and what was done to it. `cluster` None: its rule is noise."""

    kind: Literal["example"] = "example"
    id: str
    split: str
    label: str
    rule: Rule | None
    no_rule: str | None
    cluster: int | None
    instructions: tuple[str, ...]
    fixed_by: tuple[str, ...] | None
    broken_by: tuple[str, ...] | None
    edits: tuple[Touched, ...]


@dataclass(frozen=True)
class Book:
    """All that is known of how the final list came to be; the test split is no part of it. `earlier`: instructions that
    were in a list and are in the final one no more, each with the list that it was in last; `log`: what people decided,
    and `taken`: what that took away, as a step, with what it became; `asked`: training examples that the Teacher was
    asked about."""

    final: list[Instruction]
    descents: dict[str, Descent]
    effects: dict[str, Effect]
    earlier: dict[str, tuple[Instruction, str]]
    log: list[ReviewEntry]
    taken: dict[str, tuple[Step, tuple[str, ...]]]
    ships: str
    verdicts: list[EditVerdict]
    pruned: tuple[str, ...]
    rules: dict[str, Rule]
    rejections: dict[str, Rejection]
    clusters: dict[str, int]
    examples: dict[str, Example]
    asked: frozenset[str]

    @classmethod
    def read(cls, folder: Path) -> "Book":
        resolve = folder / "resolve"
        final = read_jsonl(folder / SHIPS / "instructions.jsonl", Instruction)
        ablation = folder / SHIPS / "ablation.jsonl"
        rounds = sorted((resolve / "rounds").glob("*/instructions.jsonl"))
        lists = [(folder / "best/instructions.jsonl", "the list that came in")]
        lists += [(path, f"the list after round {int(path.parent.name)}") for path in rounds]
        seen = {own.id: (own, where) for path, where in lists for own in read_jsonl(path, Instruction)}
        config = load_config(folder / "config.yaml")
        log = read_log(config.task.name)
        train = read_jsonl(folder / "splits/train.jsonl", Example)
        taken: dict[str, tuple[Step, tuple[str, ...]]] = {}
        for where, left, entry, after in _reviewed(folder, log):
            seen |= {own.id: (own, where) for own in left}
            taken |= _taken(entry, left, after)
        ids = {own.id for own in final}
        return cls(
            final=final,
            descents={own.instruction_id: own for own in read_jsonl(folder / SHIPS / "descent.jsonl", Descent)},
            effects={own.instruction_id: own for own in read_jsonl(ablation, Effect)} if ablation.exists() else {},
            earlier={identity: found for identity, found in seen.items() if identity not in ids},
            log=log,
            taken=taken,
            ships=sha256(read_text(folder / SHIPS / "system_prompt.md")),
            verdicts=[edit for path in rounds for edit in read_jsonl(path.parent / "edits.jsonl", EditVerdict)],
            pruned=read_record(resolve / "report.json", ResolutionReport).pruned,
            rules={rule.id: rule for rule in read_jsonl(folder / "rules/rules.jsonl", Rule)},
            rejections={own.example_id: own for own in read_jsonl(folder / "rules/rejected.jsonl", Rejection)},
            clusters={
                rule_id: cluster.id
                for cluster in read_jsonl(folder / "best/clusters.jsonl", Cluster)
                if not cluster.noise
                for rule_id in cluster.rule_ids
            },
            examples={
                example.id: example for example in (*train, *read_jsonl(folder / "splits/validation.jsonl", Example))
            },
            asked=frozenset(example.id for example in asked_about(config.task, train, config.extraction)),
        )

    def look_up(self, wanted: str) -> Present | Gone | Tried | Story:
        """Raises ArtifactError for an id that is not there, or a beginning of several."""
        identity = self._identity(wanted)
        if any(own.id == identity for own in self.final):
            return self._present(identity)
        if identity in self.earlier:
            return self._gone(identity)
        if tried := next((verdict for verdict in self.verdicts if verdict.id == identity), None):
            return Tried(id=identity, step=_step(tried), found=tried)
        return self._story(self.rules[identity].example_id if identity in self.rules else identity)

    def _identity(self, wanted: str) -> str:
        edits = [verdict.id for verdict in self.verdicts]
        final = [own.id for own in self.final]
        kinds: tuple[Iterable[str], ...] = (final, self.earlier, edits, self.examples, self.rules)
        if any(wanted in kind for kind in kinds):
            return wanted
        for kind in (dict.fromkeys((*kinds[0], *kinds[1])), *kinds[2:]) if len(wanted) >= PREFIX else ():
            begins = [identity for identity in kind if identity.startswith(wanted)]
            if len(begins) == 1:
                return begins[0]
            if begins:
                raise ArtifactError(
                    f"expected an id or the beginning of one, got {wanted!r}, which {len(begins)} begin with: "
                    f"{', '.join(begins[:_NAMED])}{', ...' if len(begins) > _NAMED else ''} (explain)"
                )
        raise ArtifactError(
            f"expected the id of an instruction, an Edit, a rule, or a training or validation example (or {PREFIX} "
            f"characters of its beginning), got {wanted!r} (explain); the instructions are "
            f"{', '.join(own.id for own in self.final)}"
        )

    def _present(self, identity: str) -> Present:
        place, own = next((at, own) for at, own in enumerate(self.final, 1) if own.id == identity)
        descent = self.descents.get(identity)
        if descent is None:
            raise ArtifactError(
                f"expected a line for {identity} of instructions.jsonl, got none (artifacts/{SHIPS}/descent.jsonl); "
                "run `dvc repro`"
            )
        rules = [self.rules[rule_id] for rule_id in descent.rule_ids]
        return Present(
            id=own.id,
            label=own.label,
            text=own.text,
            place=place,
            of=len(self.final),
            origin=descent.origin,
            support=own.support,
            clusters=descent.cluster_ids,
            edits=descent.edits,
            decisions=tuple(self._decided(identity)),
            effect=self.effects.get(identity),
            examples=tuple(
                Source(
                    example_id=rule.example_id,
                    label=self.examples[rule.example_id].label,
                    rule_id=rule.id,
                    rule=rule.text,
                    doubtful=rule.doubtful,
                )
                for rule in rules
            ),
        )

    def _decided(self, identity: str) -> Iterator[Decided]:
        for entry in self.log:
            for decision in entry.decisions:
                if decision.instruction_id == identity:
                    yield Decided(
                        sheet=entry.number,
                        at=entry.at,
                        of_what_ships=entry.prompt_sha256 == self.ships,
                        verdict=decision.verdict,
                        reviewer=decision.reviewer,
                        note=decision.note,
                    )

    def _gone(self, identity: str) -> Gone:
        own, seen = self.earlier[identity]
        gone = {"id": own.id, "label": own.label, "text": own.text, "origin": own.origin, "seen": seen}
        if identity in self.taken:
            taken_by, became = self.taken[identity]
            return Gone(**gone, taken_by=taken_by, became=became, why=taken_by.verdict)
        took = [
            verdict
            for verdict in self.verdicts
            if verdict.outcome == "accepted"
            and verdict.edit.op in ("remove", "revise", "split")
            and verdict.edit.id == identity
        ]
        step = step_of(took[-1], identity) if took else None
        words = next((words for words in self.pruned if words.startswith(f"{identity}: ")), None)
        return Gone(
            **gone,
            taken_by=step,
            became=tuple(new.id for new in apply([own], took[-1].edit, took[-1].round)) if took else (),
            why=step.verdict if step else f"pruned: {words.partition(': ')[2]}" if words else "not in the final list",
        )

    def _story(self, identity: str) -> Story:
        example = self.examples[identity]
        rule = next((rule for rule in self.rules.values() if rule.example_id == identity), None)
        measured = [own for own in self.descents.values() if own.fixed is not None and own.broken is not None]
        return Story(
            id=example.id,
            split=example.split,
            label=example.label,
            rule=rule,
            no_rule=None if rule else self._no_rule(example),
            cluster=self.clusters.get(rule.id) if rule else None,
            instructions=tuple(own.instruction_id for own in self.descents.values() if identity in own.example_ids),
            fixed_by=_of(identity, ((own.instruction_id, own.fixed or ()) for own in measured)) if measured else None,
            broken_by=_of(identity, ((own.instruction_id, own.broken or ()) for own in measured)) if measured else None,
            edits=tuple(self._touched(identity)),
        )

    def _no_rule(self, example: Example) -> str:
        if example.split != "train":
            return f"none is made of {example.split} examples"
        if rejection := self.rejections.get(example.id):
            return f"refused: {rejection.reason}: {rejection.detail}"
        if example.id not in self.asked:
            return "none: the Teacher was not asked about this example (extraction.examples)"
        return "the Teacher gave none"

    def _touched(self, identity: str) -> Iterator[Touched]:
        for verdict in self.verdicts:
            step = _step(verdict)
            if identity in verdict.example_ids:
                yield Touched(how="answers", edit=step)
            if verdict.gate and identity in verdict.gate.fixed:
                yield Touched(how="fixes", edit=step)
            if verdict.gate and identity in verdict.gate.broken:
                yield Touched(how="breaks", edit=step)


def _reviewed(
    folder: Path, log: Sequence[ReviewEntry]
) -> Iterator[tuple[str, list[Instruction], ReviewEntry, list[Instruction]]]:
    """Each sheet whose edits made what ships: the list before it, in words and as it was, the sheet, and the list
    after it."""
    path = folder / "review/review.json"
    sheets = read_record(path, Reviewed).sheets if path.exists() else ()
    where = "the list that the loop left"
    present = read_jsonl(folder / "resolve/final/instructions.jsonl", Instruction) if sheets else []
    for entry in log:
        if entry.number in sheets:
            after = edited(present, entry.decisions)
            yield where, present, entry, after
            where, present = f"the list after sheet {entry.number}", after


def _taken(
    entry: ReviewEntry, before: Sequence[Instruction], after: Sequence[Instruction]
) -> dict[str, tuple[Step, tuple[str, ...]]]:
    """What `entry` took away, each with what it became."""
    stays = {own.id for own in after}
    new = {own.text: own.id for own in after}
    gone = {own.id for own in before} - stays
    return {
        decision.instruction_id: (
            review_step(entry, decision),
            () if decision.text is None else (new[decision.text],),
        )
        for decision in entry.decisions
        if decision.instruction_id in gone
    }


def _step(verdict: EditVerdict) -> Step:
    return step_of(verdict, None if verdict.edit.op == "add" else verdict.edit.id)


def _of(identity: str, held: Iterable[tuple[str, Sequence[str]]]) -> tuple[str, ...]:
    return tuple(instruction_id for instruction_id, example_ids in held if identity in example_ids)
