"""What people decide about instructions, and what becomes of the list: decisions on a sheet, entries of a log whose
hashes make a chain, and the lists that entries make of one another."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pld.errors import ReviewError
from pld.records import Instruction, Record, canonical_json, content_id, sha256
from pld.resolve.lineage import BY_A_REVIEWER
from pld.resolve.records import Descent, Effect, Step

Verdict = Literal["approve", "edit", "reject"]
VERDICTS: tuple[Verdict, ...] = ("approve", "edit", "reject")
ORIGIN = "edited by a reviewer"
GENESIS = "0" * 64
"""What the first entry of a log follows."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ReviewStanding(Record):
    """What the log says of one prompt. `approved`: its latest sheet decides on every instruction of it, each with
    approve; `words`: that, or what is missing, for a person; `entries` and `head`: length and last hash of the log."""

    approved: bool
    words: str
    entries: int
    head: str


class Decision(Record):
    """What one person decided about one instruction, whose text had the hash `text_sha256`; `text` is the new one, of
    `edit` alone."""

    instruction_id: str
    text_sha256: Digest
    verdict: Verdict
    text: str | None
    note: str
    reviewer: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _text_belongs_to_edit(self) -> Self:
        if (self.verdict == "edit") != (self.text is not None):
            raise ValueError(f"a text belongs to edit alone, found verdict {self.verdict}")
        return self


class ReviewEntry(Record):
    """One line of reviews/<task>.jsonl: a sheet about the prompt `prompt_sha256`, imported at `at` (UTC). `makes`: hash
    of the prompt that results (the same one where all is approved); `previous`: hash of the entry before; `hash`: of
    canonical JSON of all the rest."""

    number: Annotated[int, Field(ge=1)]
    at: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    task: str
    prompt_sha256: Digest
    decisions: Annotated[tuple[Decision, ...], Field(min_length=1)]
    makes: Digest
    previous: Digest
    hash: Digest

    @model_validator(mode="after")
    def _makes_what_is_decided(self) -> Self:
        if self.approves != (self.makes == self.prompt_sha256):
            raise ValueError("an entry makes another prompt if, and only if, it edits or rejects")
        return self

    @property
    def approves(self) -> bool:
        """Whether every decision is approve."""
        return all(decision.verdict == "approve" for decision in self.decisions)

    @property
    def reviewers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(decision.reviewer for decision in self.decisions))

    @property
    def summary(self) -> str:
        """`3 approve, 1 edit by Ann and Bob`"""
        count = Counter(decision.verdict for decision in self.decisions)
        said = ", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS if count[verdict])
        return f"{said} by {', '.join(self.reviewers)}"


def hash_of(entry: ReviewEntry) -> str:
    """What the entry's `hash` must be."""
    return sha256(canonical_json(entry.model_dump(mode="json", exclude={"hash"})))


def entry_after(
    last: ReviewEntry | None, at: str, task: str, prompt: str, decisions: Sequence[Decision], makes: str
) -> ReviewEntry:
    """The entry that follows `last` (None: the first one); `prompt` and `makes` are hashes."""
    open_entry = ReviewEntry(
        number=last.number + 1 if last else 1,
        at=at,
        task=task,
        prompt_sha256=prompt,
        decisions=tuple(decisions),
        makes=makes,
        previous=last.hash if last else GENESIS,
        hash=GENESIS,
    )
    return open_entry.model_copy(update={"hash": hash_of(open_entry)})


def chain_fault(entry: ReviewEntry, last: ReviewEntry | None, task: str) -> str | None:
    """Why `entry` can't stand behind `last` in the log of `task`: what was wanted and found."""
    if entry.hash != hash_of(entry):
        return "wanted the hash of what the line says, found another: it was edited"
    number, previous = (last.number + 1, last.hash) if last else (1, GENESIS)
    if entry.number != number:
        return f"wanted entry {number}, found entry {entry.number}: a line was removed, inserted or moved"
    if entry.previous != previous:
        return "wanted the hash of the line before, found another: that line was exchanged, removed or inserted"
    if entry.task != task:
        return f"wanted an entry of task {task}, found one of {entry.task!r:.60}"
    return None


def same_again(
    entries: Sequence[ReviewEntry], prompt: str, decisions: Sequence[Decision], makes: str
) -> ReviewEntry | None:
    """The entry that says this already and still stands: the latest one on `prompt`, which was not made anew since."""
    for entry in reversed(entries):
        if entry.prompt_sha256 == prompt:
            return entry if (entry.decisions, entry.makes) == (tuple(decisions), makes) else None
        if entry.makes == prompt:
            return None
    return None


def in_turn(entries: Sequence[ReviewEntry], came_in: str) -> list[ReviewEntry]:
    """The entries whose edits are applied, one after the other, from the prompt that `came_in` (a hash).

    For each prompt its latest sheet counts, and only one that is later than the sheet that made the prompt, so that
    it ends where sheets lead back to a prompt that was there before.
    """
    applied: list[ReviewEntry] = []
    present, number = came_in, 0
    while True:
        own = [entry for entry in entries if entry.prompt_sha256 == present and entry.number > number]
        if not own or own[-1].approves:
            return applied
        applied.append(own[-1])
        present, number = own[-1].makes, own[-1].number


def ends_with(applied: Sequence[ReviewEntry], came_in: str) -> str:
    """The hash of the prompt that `applied` end with, from the one that `came_in`."""
    return applied[-1].makes if applied else came_in


def edited(instructions: Sequence[Instruction], decisions: Sequence[Decision]) -> list[Instruction]:
    """What `decisions` make of the list: an edited instruction stands at its place with a new id, its rules, label and
    support. Raises ReviewError where they are decisions on another list."""
    decided = {decision.instruction_id: decision for decision in decisions}
    wanted = {own.id: sha256(own.text) for own in instructions}
    if {identity: decision.text_sha256 for identity, decision in decided.items()} != wanted:
        raise ReviewError(
            f"review: wanted decisions on the instructions {', '.join(wanted)}, found them on {', '.join(decided)} or "
            "on other texts of them; `pld review export` writes a sheet of the list as it is"
        )
    found = []
    for own in instructions:
        decision = decided[own.id]
        if decision.verdict != "reject":
            found.append(own if decision.text is None else _with_text(own, decision.text))
    return found


def step_of(entry: ReviewEntry, decision: Decision) -> Step:
    """An edit or a rejection as a step in the instruction's line of descent."""
    return Step(
        round=BY_A_REVIEWER,
        edit_id=f"sheet {entry.number}",
        op="remove" if decision.text is None else "revise",
        proposer=decision.reviewer,
        reason=decision.note,
        from_id=decision.instruction_id,
        verdict="decided by a person",
    )


def descents_after(descents: Sequence[Descent], entry: ReviewEntry, made: Sequence[Instruction]) -> list[Descent]:
    """Where each instruction of the list that `entry` `made` comes from, `descents` being those of the list before:
    an edited one has a step more, which says who edited it in which sheet, and the note."""
    by_id = {own.instruction_id: own for own in descents}
    decisions = [decision for decision in entry.decisions if decision.verdict == "edit"]
    for decision in decisions:
        before = by_id[decision.instruction_id]
        assert decision.text is not None
        identity, edits = _identity(before.label, decision.text), (*before.edits, step_of(entry, decision))
        by_id[identity] = before.model_copy(update={"instruction_id": identity, "text": decision.text, "edits": edits})
    return [by_id[own.id] for own in made]


def with_effects(descents: Sequence[Descent], effects: Sequence[Effect] | None) -> list[Descent]:
    """`descents` with what was measured in the list that they are of (None: nothing)."""
    effect_of = {effect.instruction_id: effect for effect in effects or ()}
    found = []
    for own in descents:
        effect = effect_of.get(own.instruction_id)
        measured = {"fixed": effect.fixed if effect else None, "broken": effect.broken if effect else None}
        found.append(own.model_copy(update=measured))
    return found


def standing(entries: Sequence[ReviewEntry], prompt: str, instruction_ids: Sequence[str]) -> ReviewStanding:
    """Whether the prompt (a hash) of these instructions is approved by the log's `entries`."""
    own = [entry for entry in entries if entry.prompt_sha256 == prompt]
    approved, words = False, f"no sheet decides on prompt {prompt[:12]}; `pld review export` writes one"
    if own:
        last = own[-1]
        decided = [decision.instruction_id for decision in last.decisions]
        if not last.approves:
            words = (
                f"sheet {last.number} changes prompt {prompt[:12]} ({last.summary}): it makes {last.makes[:12]}, which "
                "needs a sheet of its own"
            )
        elif sorted(decided) != sorted(instruction_ids):
            words = f"sheet {last.number} decides on other instructions than the prompt's; `pld review export` anew"
        else:
            approved, words = True, f"sheet {last.number}: {last.summary}"
    head = entries[-1].hash if entries else GENESIS
    return ReviewStanding(approved=approved, words=words, entries=len(entries), head=head)


def _with_text(own: Instruction, text: str) -> Instruction:
    return own.model_copy(update={"id": _identity(own.label, text), "text": text, "origin": ORIGIN})


def _identity(label: str, text: str) -> str:
    return content_id({"label": label, "text": text}, 12)
