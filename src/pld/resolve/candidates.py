"""Makes candidate lists from Edits of the present list, one Edit alone or several together."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations

from pld.distill.text_checks import Fault, FindPersonalData
from pld.records import LONGEST_PROMPT, Instruction, SystemPrompt, content_id, registered_length
from pld.resolve.edits import apply, fault_of, lost_labels, withheld
from pld.resolve.inputs import ResolveInputs
from pld.resolve.proposer import Proposal

OVER_BUDGET = "over_budget"
TOGETHER = 3
"""So many leaders of a race are combined."""


@dataclass(frozen=True)
class Candidate:
    """A list to try; `proposals`: the Edits that made it, in this order; `alarms`: labels that an Edit left without an
    instruction."""

    proposals: tuple[Proposal, ...]
    instructions: tuple[Instruction, ...]
    prompt: SystemPrompt
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class CandidateMaker:
    """Makes candidates from the list `present` in one round."""

    inputs: ResolveInputs
    round: int
    present: Sequence[Instruction]
    personal_data: FindPersonalData | None = None

    def make(self, *proposals: Proposal) -> Candidate | Fault:
        """The list that `proposals` make together, or why it can't be tried."""
        scorer, config = self.inputs.scorer, self.inputs.config
        edited = list(self.present)
        for proposal in proposals:
            edited = apply(edited, proposal.edit, self.round, proposal.rule_ids, scorer.weigh)
        alarms = []
        for label in lost_labels(self.present, edited):
            gone = {item.text for item in self.present if item.label == label}
            back = self.inputs.restored(label, gone, f"restored in round {self.round}")
            if back is None:
                return Fault("label_lost", f"{label!r} would have no instruction, and has no other rule")
            edited.append(back)
            alarms.append(f"label {label!r} lost its last instruction: its best other rule came back in ({back.id})")
        prompt = scorer.prompt(edited)
        budget = config.resolution.token_budget or config.rendering.token_budget
        if budget is not None and prompt.tokens > budget:
            return Fault(OVER_BUDGET, f"{prompt.tokens} tokens, at most {budget}")
        if (length := registered_length(prompt.messages)) > LONGEST_PROMPT:
            return Fault(OVER_BUDGET, f"{length:,} characters in MLflow's registry, at most {LONGEST_PROMPT:,}")
        return Candidate(tuple(proposals), tuple(edited), prompt, tuple(alarms))

    def checked(self, proposal: Proposal) -> Candidate | Fault:
        """`make` for a single Edit, after checking its text."""
        sources = [example.inputs for example in self.inputs.train]
        limits = self.inputs.max_words, self.inputs.config.extraction.max_copied_words
        task = self.inputs.config.task
        fault = fault_of(proposal.edit, self.present, task, sources, *limits, self.personal_data)
        return fault or self.make(proposal)

    def together(self, leaders: Sequence[Candidate], tried: Collection[str]) -> list[Candidate]:
        """All combinations of two or more of the first `TOGETHER` `leaders` that make a list not `tried` (hashes)."""
        found: dict[str, Candidate] = {}
        first = leaders[:TOGETHER]
        for count in range(2, len(first) + 1):
            for chosen in combinations(first, count):
                joint = self.make(*(proposal for leader in chosen for proposal in leader.proposals))
                if isinstance(joint, Candidate) and joint.prompt.sha256 not in tried:
                    found.setdefault(joint.prompt.sha256, joint)
        return list(found.values())


def edit_id(number: int, proposal: Proposal) -> str:
    """Content id of an Edit in round `number`, independent of its reason."""
    return content_id({"round": number, "edit": proposal.edit.model_dump(exclude={"reason"})}, 12)


def storable(proposal: Proposal, fault: Fault) -> Proposal:
    """`proposal` as it may be stored: without its words if they copy an example or hold personal data."""
    if fault.reason not in ("copied", "personal_data"):
        return proposal
    return Proposal(withheld(proposal.edit), proposal.rule_ids, proposal.example_ids)
