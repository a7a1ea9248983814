"""Proposes Edits without an LLM: adds and swaps in rules that the Teacher wrote, removes and moves instructions.

Every text is a rule of the same label, so nothing is invented and no call is paid for. The order of the guesses was
measured (docs/explanation/decisions.md).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice

import numpy as np

from pld.records import Instruction, Rule
from pld.resolve.blame import most_blamed, rise_of
from pld.resolve.proposer import Answered, Evidence, Proposal, Proposals
from pld.resolve.records import Add, Edit, Move, Remove, Revise
from pld.resolve.sampling import cells, round_robin


class SearchProposer:
    """Per confusion cell: add a rule of its failures, reword an instruction, remove or move the blamed one."""

    name = "search"

    def propose(self, evidence: Evidence) -> Proposals:
        """No Edit twice, and none that was tried on this list before; ends when rules and instructions are used up."""
        if not evidence.failures:
            return Proposals((), trouble="no failure was shown")
        known = _Known(evidence)
        by_cell = (_Guesses(known, failed, cell).all() for cell, failed in cells(evidence.failures).items())
        overall = _Guesses(known, evidence.failures).of_the_culprit()
        before = [verdict.edit for verdict in evidence.earlier]
        return Proposals(_once(_staggered(chain([overall], by_cell)), before))


class _Known:
    """A round's evidence, indexed. Rules are indices into `evidence.rules`."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence = evidence
        self.rules = evidence.rules
        self.instructions = evidence.instructions
        self.place = {rule.id: at for at, rule in enumerate(self.rules)}
        self.of_example: dict[str, list[int]] = defaultdict(list)
        for at, rule in enumerate(self.rules):
            self.of_example[rule.example_id].append(at)
        self.used = {rule_id for instruction in self.instructions for rule_id in instruction.rule_ids}
        self._vectors = evidence.vectors.astype(np.float64)
        self._texts = {instruction.text for instruction in self.instructions}

    def is_new(self, rule: Rule) -> bool:
        """Whether no present instruction has this text."""
        return rule.text not in self._texts

    def nearest_first(self, places: Sequence[int], centre: Sequence[int]) -> list[int]:
        """`places` by cosine to the centroid of the rules at `centre` (none: unchanged); doubtful rules last."""
        if not places or not centre:
            return sorted(places, key=lambda at: self.rules[at].doubtful)
        # unit rows: ordered by cosine; rounded, so that ties are ties on every machine
        near = np.round(self._vectors[list(places)] @ self._vectors[list(centre)].mean(axis=0), 6)
        near_of = dict(zip(places, near, strict=True))
        return sorted(places, key=lambda at: (self.rules[at].doubtful, -near_of[at], self.rules[at].id))

    def behind(self, instruction: Instruction) -> list[int]:
        return [self.place[rule_id] for rule_id in instruction.rule_ids]

    def alike(self, at: int, places: Sequence[int]) -> list[int]:
        """Those of `places` in the cluster of the rule at `at`; none for noise."""
        cluster = self.evidence.clusters.get(self.rules[at].id)
        if cluster is None:
            return []
        return [other for other in places if self.evidence.clusters.get(self.rules[other].id) == cluster]


class _Guesses:
    """Edits that may fix the failures `failed`: those of one confusion cell, or all that are shown (`cell` None)."""

    def __init__(self, known: _Known, failed: Sequence[Answered], cell: str | None = None) -> None:
        self.known = known
        self.gold = failed[0].example.label
        self.where = cell or "all failures"
        self.example_ids = tuple(failure.example.id for failure in failed)
        rules = known.rules
        own = [at for identity in self.example_ids for at in known.of_example.get(identity, ())]
        own = [at for at in own if rules[at].label == self.gold]
        self.own = known.nearest_first(own, own)  # rules of the failures, the medoid first
        self.charges = self._charges(cell)

    def all(self) -> Iterator[Proposal]:
        """Round-robin over kinds, each with its best guess first; additions at the end come last, since there, next to
        the input, they often drown out the other instructions."""
        front, end = self._additions(0), self._additions(len(self.known.instructions))
        return round_robin((front, self._of_culprits(), self._removals_and_moves(), self._of_gold(), end))

    def of_the_culprit(self) -> Iterator[Proposal]:
        """Remove the most blamed instruction, or reword it by its next-best rule."""
        for culprit, charge in self.charges[:1]:
            if len(self.known.instructions) > 1:
                yield self._proposal(Remove(id=culprit.id, reason=charge))
            yield from islice(self._rewordings(culprit, self.known.behind(culprit), charge), 1)

    def _additions(self, position: int) -> Iterator[Proposal]:
        """Rules of the failures, then unused rules of the gold label."""
        known, rules = self.known, self.known.rules
        spare = [at for at, rule in enumerate(rules) if rule.label == self.gold and rule.id not in known.used]
        spare = known.nearest_first([at for at in spare if at not in self.own], self.own or spare)
        for at in (*self.own, *spare):
            if not known.is_new(rules[at]):
                continue
            support = self.own or known.alike(at, spare)
            behind = tuple(dict.fromkeys(rules[place].id for place in (at, *support)))
            reason = f"{'a rule of' if at in self.own else 'a spare rule for'} the failures {self.where}"
            yield self._proposal(Add(text=rules[at].text, label=self.gold, position=position, reason=reason), behind)

    def _of_culprits(self) -> Iterator[Proposal]:
        """Reword the blamed instructions by their next-best rules."""
        for culprit, charge in self.charges:
            yield from self._rewordings(culprit, self.known.behind(culprit), charge)

    def _of_gold(self) -> Iterator[Proposal]:
        """Reword the gold label's instructions by their rules nearest to the failures."""
        known = self.known
        why = f"{'its rule nearest to' if self.own else 'its next-best rule for'} the failures {self.where}"
        return round_robin(
            self._rewordings(instruction, known.nearest_first(known.behind(instruction), self.own), why)
            for instruction in known.instructions
            if instruction.label == self.gold
        )

    def _rewordings(self, instruction: Instruction, order: Sequence[int], reason: str) -> Iterator[Proposal]:
        for rule in (self.known.rules[at] for at in order):
            if rule.label == instruction.label and self.known.is_new(rule):
                behind = tuple(dict.fromkeys((rule.id, *instruction.rule_ids)))
                yield self._proposal(Revise(id=instruction.id, text=rule.text, reason=reason), behind)

    def _removals_and_moves(self) -> Iterator[Proposal]:
        instructions = self.known.instructions
        last = len(instructions) - 1
        if not last:
            return
        for culprit, charge in self.charges:
            yield self._proposal(Remove(id=culprit.id, reason=charge))
            # the last place weighs most: move instructions of other labels away from it
            for position in (last, 0) if culprit.label == self.gold else (0, last):
                if instructions[position].id != culprit.id:
                    yield self._proposal(Move(id=culprit.id, position=position, reason=charge))

    def _charges(self, cell: str | None) -> list[tuple[Instruction, str]]:
        """The instructions without which the gold label's probability rises, most blamed first, each with a reason."""
        by_id = {instruction.id: instruction for instruction in self.known.instructions}
        rises = {found.instruction_id: rise_of(found, cell) for found in self.known.evidence.blames}
        guilty = [identity for identity in most_blamed(self.known.evidence.blames, cell) if rises[identity] > 0]
        return [
            (by_id[identity], f"{how} blamed for {self.where} ({rises[identity]:+.2f} nats without it)")
            for how, identity in zip(chain(["most"], ["also"] * len(guilty)), guilty, strict=False)
        ]

    def _proposal(self, edit: Edit, rule_ids: tuple[str, ...] = ()) -> Proposal:
        return Proposal(edit, rule_ids, self.example_ids)


def _once(proposals: Iterable[Proposal], before: Iterable[Edit]) -> Iterator[Proposal]:
    """Without repetitions and Edits made `before`, whatever their reasons."""
    seen = {edit.model_copy(update={"reason": ""}) for edit in before}
    for proposal in proposals:
        bare = proposal.edit.model_copy(update={"reason": ""})
        if bare not in seen:
            seen.add(bare)
            yield proposal


def _staggered(streams: Iterable[Iterator[Proposal]]) -> Iterator[Proposal]:
    """One of the first stream, then one each of the first two, and so on. With few tries, round-robin would give each
    cell one rule to add and nothing else; this gives the fullest cells several kinds of guesses."""
    waiting = iter(streams)
    running: list[Iterator[Proposal]] = []
    while True:
        joining = next(waiting, None)
        if joining is not None:
            running.append(joining)
        elif not running:
            return
        for stream in tuple(running):
            guess = next(stream, None)
            if guess is None:
                running.remove(stream)
            else:
                yield guess
