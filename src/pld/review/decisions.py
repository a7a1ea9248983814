"""Reviewers' decisions on instructions: records, the hash chain of log entries, and the list that decisions make."""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pld.errors import ReviewError
from pld.records import Instruction, Record, canonical_json, content_id, sha256
from pld.resolve.lineage import BY_A_REVIEWER
from pld.resolve.records import Descent, Step

Verdict = Literal["approve", "edit", "reject"]
VERDICTS: tuple[Verdict, ...] = ("approve", "edit", "reject")
ORIGIN = "edited by a reviewer"
GENESIS = "0" * 64
"""The `previous` of a log's first entry."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ReviewStanding(Record):
    """What the log says about one prompt. `approved`: its latest sheet approves every instruction; `words`: that, or
    what is missing, for a person; `entries` and `head`: length and last hash of the log."""

    approved: bool
    words: str
    entries: int
    head: str


class Decision(Record):
    """One reviewer's decision on one instruction, whose text had the hash `text_sha256`; `text`: the new one, with the
    verdict `edit` only."""

    instruction_id: str
    text_sha256: Digest
    verdict: Verdict
    text: str | None
    note: str
    reviewer: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _text_belongs_to_edit(self) -> Self:
        if (self.verdict == "edit") != (self.text is not None):
            raise ValueError(f"expected a text with verdict edit only, got verdict {self.verdict}")
        return self


class ReviewEntry(Record):
    """One line of reviews/<task>.jsonl: a sheet on the prompt `prompt_sha256`, imported at `at` (UTC). `makes`: hash of
    the resulting prompt (the same if everything is approved); `previous`: hash of the entry before; `hash`: hash of the
    canonical JSON of all other fields."""

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
            raise ValueError("expected another prompt if, and only if, the entry edits or rejects")
        return self

    @property
    def approves(self) -> bool:
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
    """The `hash` that the entry must have."""
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
    """Why `entry` can't follow `last` in the log of `task`, if so."""
    if entry.hash != hash_of(entry):
        return "expected the hash of what the line says, got another: it was edited"
    number, previous = (last.number + 1, last.hash) if last else (1, GENESIS)
    if entry.number != number:
        return f"expected entry {number}, got entry {entry.number}: a line was removed, inserted or moved"
    if entry.previous != previous:
        return "expected the hash of the line before, got another: that line was exchanged, removed or inserted"
    if entry.task != task:
        return f"expected an entry of task {task}, got one of {entry.task!r:.60}"
    return None


def same_again(
    entries: Sequence[ReviewEntry], prompt: str, decisions: Sequence[Decision], makes: str
) -> ReviewEntry | None:
    """The entry that already holds these decisions: the latest on `prompt`, unless a later one made that prompt."""
    for entry in reversed(entries):
        if entry.prompt_sha256 == prompt:
            return entry if (entry.decisions, entry.makes) == (tuple(decisions), makes) else None
        if entry.makes == prompt:
            return None
    return None


def applied_entries(entries: Sequence[ReviewEntry], came_in: str) -> list[ReviewEntry]:
    """The entries whose edits apply, one after the other, starting from the prompt with the hash `came_in`.

    Only the latest sheet on a prompt counts, and only if it is later than the sheet that made the prompt; so the chain
    ends even if sheets lead back to an earlier prompt.
    """
    applied: list[ReviewEntry] = []
    present, number = came_in, 0
    while True:
        own = [entry for entry in entries if entry.prompt_sha256 == present and entry.number > number]
        if not own or own[-1].approves:
            return applied
        applied.append(own[-1])
        present, number = own[-1].makes, own[-1].number


def final_prompt(applied: Sequence[ReviewEntry], came_in: str) -> str:
    """The hash of the prompt after the entries `applied`."""
    return applied[-1].makes if applied else came_in


def apply_decisions(instructions: Sequence[Instruction], decisions: Sequence[Decision]) -> list[Instruction]:
    """The list after `decisions`: an edited instruction keeps its place, rules, label and support, and gets a new id.
    Raises ReviewError if they are decisions on another list."""
    decided = {decision.instruction_id: decision for decision in decisions}
    texts = {own.id: sha256(own.text) for own in instructions}
    if {identity: decision.text_sha256 for identity, decision in decided.items()} != texts:
        raise ReviewError(
            f"expected decisions on the instructions {', '.join(texts)}, got decisions on {', '.join(decided)} or on "
            "other texts (review); `pld review export` writes a sheet of the present list"
        )
    made = []
    for own in instructions:
        decision = decided[own.id]
        if decision.verdict == "reject":
            continue
        if decision.text is not None:
            update = {"id": _identity(own.label, decision.text), "text": decision.text, "origin": ORIGIN}
            own = own.model_copy(update=update)
        made.append(own)
    return made


def review_step(entry: ReviewEntry, decision: Decision) -> Step:
    """An edit or a rejection as a step in the instruction's lineage."""
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
    """The lineage of each instruction that `entry` `made`, from the `descents` of the list before: an edited one gets
    one more step, with the reviewer, the sheet and the note."""
    by_id = {own.instruction_id: own for own in descents}
    decisions = [decision for decision in entry.decisions if decision.verdict == "edit"]
    for decision in decisions:
        before = by_id[decision.instruction_id]
        assert decision.text is not None
        identity, edits = _identity(before.label, decision.text), (*before.edits, review_step(entry, decision))
        by_id[identity] = before.model_copy(update={"instruction_id": identity, "text": decision.text, "edits": edits})
    return [by_id[own.id] for own in made]


def standing(entries: Sequence[ReviewEntry], prompt: str, instruction_ids: Sequence[str]) -> ReviewStanding:
    """Whether the log's `entries` approve the prompt (a hash) with these instructions."""
    own = [entry for entry in entries if entry.prompt_sha256 == prompt]
    approved, words = False, f"no sheet decides on prompt {prompt[:12]}; `pld review export` writes one"
    if own:
        last = own[-1]
        decided = [decision.instruction_id for decision in last.decisions]
        if not last.approves:
            words = (
                f"sheet {last.number} changes prompt {prompt[:12]} ({last.summary}): it makes {last.makes[:12]}, which "
                "needs its own sheet"
            )
        elif sorted(decided) != sorted(instruction_ids):
            words = f"sheet {last.number} decides on other instructions than the prompt's; `pld review export` anew"
        else:
            approved, words = True, f"sheet {last.number}: {last.summary}"
    head = entries[-1].hash if entries else GENESIS
    return ReviewStanding(approved=approved, words=words, entries=len(entries), head=head)


def _identity(label: str, text: str) -> str:
    return content_id({"label": label, "text": text}, 12)
