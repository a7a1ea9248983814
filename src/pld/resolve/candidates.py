"""Edits → the lists that they make of the present one, alone and together."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

from pld.distill.cached_scorer import Answering
from pld.distill.text_checks import Fault, FindPersonalData
from pld.records import Example, Instruction, SystemPrompt, content_id
from pld.resolve.edits import apply, fault_of, lost_labels, withheld
from pld.resolve.proposer import Proposal

OVER_BUDGET = "over_budget"
TOGETHER = 3
"""So many of a race's leaders are tried together."""

Restore = Callable[[str, Collection[str], str], Instruction | None]
"""Label, texts that may not come back, words on its origin → the label's best other rule as an instruction."""


@dataclass(frozen=True)
class Candidate:
    """A list of its own; `proposals`: the Edits that made it, applied in this order."""

    proposals: tuple[Proposal, ...]
    instructions: tuple[Instruction, ...]
    prompt: SystemPrompt
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class Maker:
    """Makes candidates of the list `present` in one round; `sources`: training examples that no text may copy."""

    round: int
    present: Sequence[Instruction]
    answering: Answering
    restore: Restore
    sources: Sequence[Example]
    max_words: int
    max_copied_words: int
    token_budget: int | None
    personal_data: FindPersonalData | None = None

    def make(self, *proposals: Proposal) -> Candidate | Fault:
        """The list that `proposals` make together, or why it can't be tried."""
        edited = list(self.present)
        for proposal in proposals:
            edited = apply(edited, proposal.edit, self.round, proposal.rule_ids, self.answering.weigh)
        alarms = []
        for label in lost_labels(self.present, edited):
            gone = {item.text for item in self.present if item.label == label}
            back = self.restore(label, gone, f"restored in round {self.round}")
            if back is None:
                return Fault("label_lost", f"{label!r} would have no instruction, and has no other rule")
            edited.append(back)
            alarms.append(f"label {label!r} lost its last instruction: its best other rule came back in ({back.id})")
        prompt = self.answering.prompt(edited)
        if self.token_budget is not None and prompt.tokens > self.token_budget:
            return Fault(OVER_BUDGET, f"{prompt.tokens} tokens, at most {self.token_budget}")
        return Candidate(tuple(proposals), tuple(edited), prompt, tuple(alarms))

    def checked(self, proposal: Proposal) -> Candidate | Fault:
        """`make` for one Edit whose text nobody has looked at yet."""
        task, sources = self.answering.config.task, [example.inputs for example in self.sources]
        limits = self.max_words, self.max_copied_words
        fault = fault_of(proposal.edit, self.present, task, sources, *limits, self.personal_data)
        return fault or self.make(proposal)

    def together(self, leaders: Sequence[Candidate], tried: Collection[str]) -> list[Candidate]:
        """Every two and more of the first `TOGETHER` of `leaders`, as far as they make a list that is new."""
        found: dict[str, Candidate] = {}
        first = leaders[:TOGETHER]
        for count in range(2, len(first) + 1):
            for chosen in combinations(first, count):
                joint = self.make(*(proposal for leader in chosen for proposal in leader.proposals))
                if isinstance(joint, Candidate) and joint.prompt.sha256 not in tried:
                    found.setdefault(joint.prompt.sha256, joint)
        return list(found.values())


def edit_id(number: int, proposal: Proposal) -> str:
    """Content id of an Edit of round `number`, whatever its reason."""
    return content_id({"round": number, "edit": proposal.edit.model_dump(exclude={"reason"})}, 12)


def kept(proposal: Proposal, fault: Fault | None) -> Proposal:
    """`proposal` as it may be written down: without its words where they copy an example or hold personal data."""
    if fault is None or fault.reason not in ("copied", "personal_data"):
        return proposal
    return Proposal(withheld(proposal.edit), proposal.rule_ids, proposal.example_ids)
