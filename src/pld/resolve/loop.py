"""The closed loop: find instructions that mislead the Student on train, edit them, accept an Edit only if validation
shows a gain.

Step 3 of Prompt-Level Distillation (arXiv 2602.21103). Decided here, since the paper leaves it open: which failures are
shown, which instruction is blamed, and by what test an Edit is accepted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pld.distill.personal_data import personal_data_check
from pld.distill.text_checks import Fault
from pld.errors import TeacherError, WaitingError
from pld.metrics import predictions
from pld.ports import Scores
from pld.records import Example, Instruction, Prediction, SystemPrompt
from pld.resolve import sampling
from pld.resolve.blame import ScoreList, blame
from pld.resolve.candidates import OVER_BUDGET, TOGETHER, Candidate, CandidateMaker, edit_id, storable
from pld.resolve.inputs import ResolveInputs
from pld.resolve.proposer import Answered, Evidence, Proposal, Proposals, Proposer
from pld.resolve.records import Blame, EditResult, Outcome, RoundReport, Rung, ShownExample, Together
from pld.resolve.selection import apply_gate, growing_parts, race, screen

_MOST_REFUSED = 100  # Edits per round: with a full token budget none that a proposer still has would fit


@dataclass(frozen=True)
class Round:
    """One round, as written to rounds/NN/; `instructions`: the list at its end."""

    report: RoundReport
    pool: Sequence[Prediction]
    shown: Sequence[ShownExample]
    blames: Sequence[Blame]
    edits: Sequence[EditResult]
    instructions: Sequence[Instruction]
    prompt: SystemPrompt


class Loop:
    """`present`: the list so far; `ended`: why the loop ended; `tried`: hashes of all prompts that were measured,
    `raced`: of those measured on validation; `measured`: the prompts that reached the gate, by description; `calls`,
    `tokens`: of the Teacher. All are for reading."""

    def __init__(self, inputs: ResolveInputs, proposer: Proposer | None, embed: sampling.Embed) -> None:
        self._inputs, self._proposer = inputs, proposer
        self._scorer, self._params = inputs.scorer, inputs.config.resolution
        self._parts = growing_parts(inputs.validation, self._params.seed)
        self._sampler = sampling.ExampleSampler(inputs, embed)
        self._personal_data = personal_data_check(inputs.config.extraction.personal_data)
        self._earlier: list[EditResult] = []
        self._on_pool: Mapping[str, Rung] = {}
        self.present = list(inputs.instructions)
        self.ended = "no resolver"
        self.alarms: list[str] = []
        self.accepted: list[str] = []
        self.tried: set[str] = set()
        self.raced: set[str] = set()
        self.measured: dict[str, SystemPrompt] = {}
        self.calls = self.tokens = 0

    def rounds(self) -> Iterator[Round]:
        """Run round after round. An outage or a bad answer of the Teacher ends its round, not the loop."""
        if self._proposer is None:
            return
        self._cover_labels()
        params, idle = self._params, 0
        for number in range(1, params.rounds + 1):
            pool = self._sampler.pool(number, self.present)
            if not pool:
                self.ended = "every training example stands in the prompt, so none is left to predict"
                return
            done = self._round(number, pool, self._proposer)
            yield done
            if not done.report.failures:
                self.ended = "the pool has no failure"
                return
            if not done.report.raced and any(edit.why.startswith(OVER_BUDGET) for edit in done.edits):
                self.ended = "nothing that was proposed fits into the token budget"
                return
            idle = 0 if done.report.accepted else idle + 1
            if idle >= params.patience:
                self.ended = f"no Edit was accepted for {idle} {'round' if idle == 1 else 'rounds'}"
                return
        self.ended = f"the limit of {params.rounds} rounds"

    def _cover_labels(self) -> None:
        """Restore a rule for each label that lost its last instruction in merging, unless validation gets worse."""
        held = {instruction.label for instruction in self.present}
        for label in self._inputs.config.task.labels:
            if label in held:
                continue
            back = self._inputs.restored(label, (), "restored before round 1")
            if back is None:
                self.alarms.append(f"label {label!r} has no instruction, and no rule that could come back in")
                continue
            grown = [*self.present, back]
            self.raced.add(self._scorer.prompt(grown).sha256)
            now, then = (
                self._scorer.report(self._scorer.prompt(found), self._inputs.validation).macro_f1.value
                for found in (grown, self.present)
            )
            if now < then:
                self.alarms.append(
                    f"label {label!r} has no instruction: with its best rule ({back.id}) macro-F1 on validation falls "
                    f"from {then:.4f} to {now:.4f}, so it stays out"
                )
                continue
            self.alarms.append(f"label {label!r} had no instruction: its best rule came back in ({back.id})")
            self.present = grown

    def _round(self, number: int, pool: Sequence[Example], proposer: Proposer) -> Round:
        scorer, labels = self._scorer, self._inputs.config.task.labels
        began = scorer.prompt(self.present)
        scores = scorer.scores(began, pool)  # at the reporting precision, so that `shown` is reproducible
        answers = sampling.answered(pool, scores, labels)
        failed = [found for found in answers if not found.right]
        failures, successes = self._sampler.shown(number, failed, [found for found in answers if found.right])
        blames: list[Blame] = []
        edits: list[EditResult] = []
        together: list[Together] = []
        proposals = Proposals(())
        if failures:
            maker = CandidateMaker(self._inputs, number, tuple(self.present), self._personal_data)
            blames = blame(self.present, failures, self._scores_of(failures), labels)
            proposals = self._propose(proposer, number, failures, successes, blames)
            candidates, edits = self._candidates(maker, proposals)
            if candidates:
                chosen, dropped = self._screened(number, candidates, pool)
                tested, together = self._tested(maker, chosen)
                edits += dropped + tested
        accepted = tuple(edit.id for edit in edits if edit.outcome == "accepted")
        self._earlier = [] if accepted else [*self._earlier, *edits]
        after = scorer.prompt(self.present)
        report = RoundReport(
            round=number,
            pool=scorer.report(began, pool),
            failures=len(failed),
            shown_failures=len(failures),
            shown_successes=len(successes),
            proposed=len(edits),
            refused=sum(edit.outcome == "refused" for edit in edits),
            raced=sum(bool(edit.race) for edit in edits) + len(together),
            together=tuple(together),
            accepted=accepted,
            validation=scorer.report(after, self._inputs.validation),
            instructions=len(self.present),
            trouble=proposals.trouble or ("nothing new to try" if failures and not edits else None),
            usage=dict(proposals.usage),
        )
        shown = sampling.shown_rows(failures, successes, self._sampler.cluster_of)
        rows = predictions(pool, "pool", scores, labels)
        return Round(report, rows, shown, blames, edits, tuple(self.present), after)

    def _scores_of(self, failures: Sequence[Answered]) -> ScoreList:
        examples = [found.example for found in failures]

        def score(instructions: Sequence[Instruction]) -> Scores:
            # not calibrated: each shortened list would need its own calibration
            prompt = self._scorer.prompt(instructions)
            scores = self._scorer.raw_scores(prompt, examples, searching=True)
            # without an instruction other examples become turns, perhaps one of these with its label
            scores[[example.id in prompt.example_ids for example in examples]] = np.nan
            return scores

        return score

    def _propose(
        self,
        proposer: Proposer,
        number: int,
        failures: Sequence[Answered],
        successes: Sequence[Answered],
        blames: Sequence[Blame],
    ) -> Proposals:
        inputs = self._inputs
        evidence = Evidence(
            round=number,
            task=inputs.config.task,
            instructions=tuple(self.present),
            failures=failures,
            successes=successes,
            blames=blames,
            rules=inputs.rules,
            vectors=inputs.vectors,
            clusters=inputs.clusters,
            earlier=tuple(self._earlier),
        )
        try:
            found = proposer.propose(evidence)
        except WaitingError:
            raise
        except TeacherError as error:
            return Proposals((), trouble=str(error))
        self.calls += found.calls
        self.tokens += sum(count for name, count in found.usage.items() if name.endswith("tokens"))
        return found

    def _candidates(self, maker: CandidateMaker, proposals: Proposals) -> tuple[list[Candidate], list[EditResult]]:
        """Candidates that were not tried before, each once, and the Edits that were refused."""
        found: dict[str, Candidate] = {}
        refused: list[EditResult] = []
        for proposal in proposals.edits:
            made = maker.checked(proposal)
            if isinstance(made, Fault):
                why = f"{made.reason}: {made.detail}"
                refused.append(self._result(maker.round, storable(proposal, made), "refused", why))
            elif made.prompt.sha256 in self.tried:
                why = "tried: this list lost in an earlier round, and the present one has only become better since"
                refused.append(self._result(maker.round, proposal, "refused", why))
            else:
                found.setdefault(made.prompt.sha256, made)
            if len(found) == self._params.proposals or len(refused) == _MOST_REFUSED:
                break
        return list(found.values()), refused

    def _screened(
        self, number: int, candidates: Sequence[Candidate], pool: Sequence[Example]
    ) -> tuple[list[Candidate], list[EditResult]]:
        """The best candidates on the pool, without the examples that any of them shows, and the results of the rest."""
        self._on_pool = {}
        self.tried.update(candidate.prompt.sha256 for candidate in candidates)
        if len(candidates) <= self._params.candidates:
            return list(candidates), []
        shown = {identity for candidate in candidates for identity in self._sampler.in_prompt(candidate.instructions)}
        unseen = [example for example in pool if example.id not in shown]
        prompts = [candidate.prompt for candidate in candidates]
        found = screen(prompts, self._scorer.prompt(self.present), self._scorer, unseen, self._params.candidates)
        self._on_pool = {sha: rungs[0] for sha, rungs in found.rungs.items()}
        kept, dropped = [], []
        for candidate in candidates:
            if candidate.prompt.sha256 in found.winners:
                kept.append(candidate)
                continue
            on_pool = self._on_pool[candidate.prompt.sha256]
            why = f"macro-F1 {on_pool.macro_f1:.4f} on the pool, the present list {on_pool.present:.4f}"
            dropped.append(self._result(number, candidate.proposals[0], "dropped", why, candidate))
        return kept, dropped

    def _tested(
        self, maker: CandidateMaker, candidates: Sequence[Candidate]
    ) -> tuple[list[EditResult], list[Together]]:
        """The race among `candidates` and the gate for its winner, which becomes the present list if it passes."""
        scorer, validation, params = self._scorer, self._inputs.validation, self._params
        present = scorer.prompt(self.present)
        lists = {candidate.prompt.sha256: candidate for candidate in candidates}

        def join(leaders: Sequence[SystemPrompt]) -> list[SystemPrompt]:
            leading = {leader.sha256 for leader in leaders[:TOGETHER]}
            joint = maker.together([lists[sha] for sha in lists if sha in leading], self.tried)
            lists.update({candidate.prompt.sha256: candidate for candidate in joint})
            return [candidate.prompt for candidate in joint]

        ran = race([candidate.prompt for candidate in candidates], present, scorer, self._parts, params.gate, join)
        self.tried.update(lists)
        self.raced.update(lists)
        survivor = lists[ran.winners[0]]
        survived = [edit_id(maker.round, proposal) for proposal in survivor.proposals]
        self.measured[f"round {maker.round}: {' and '.join(survived)}"] = survivor.prompt
        gate = apply_gate(survivor.prompt, present, ran.finalists, scorer, validation, params.gate, params.seed)
        if gate.accepted:
            self.present = list(survivor.instructions)
            self.accepted += survived
            self.alarms += survivor.alarms
        together = [
            Together(
                edit_ids=tuple(edit_id(maker.round, proposal) for proposal in candidate.proposals),
                prompt_sha256=sha,
                prompt_tokens=candidate.prompt.tokens,
                race=ran.rungs[sha],
            )
            for sha, candidate in lists.items()
            if len(candidate.proposals) > 1
        ]
        results = []
        for candidate in candidates:
            (proposal,) = candidate.proposals
            rungs, own = ran.rungs[candidate.prompt.sha256], edit_id(maker.round, proposal)
            others = [identity for identity in survived if identity != own]
            beside = f"together with {' and '.join(others)}: " if others else ""
            outcome: Outcome
            if own not in survived:
                last = rungs[-1]
                why = f"macro-F1 {last.macro_f1:.4f} on {last.examples} examples, the present list {last.present:.4f}"
                outcome = "dropped"
            elif gate.accepted:
                why = f"{beside}macro-F1 {gate.gain.value:+.4f}, a gain has probability {gate.probability:.4f}"
                outcome = "accepted"
            else:
                why, outcome = beside + "; ".join(gate.failed), "rejected"
            met = gate if own in survived else None
            results.append(self._result(maker.round, proposal, outcome, why, candidate, race=rungs, gate=met))
        return results, together

    def _result(
        self,
        number: int,
        proposal: Proposal,
        outcome: Outcome,
        why: str,
        candidate: Candidate | None = None,
        **figures: Any,
    ) -> EditResult:
        """`candidate`: the list that the Edit makes alone."""
        if candidate is not None:
            prompt = candidate.prompt
            figures |= {"prompt_sha256": prompt.sha256, "prompt_tokens": prompt.tokens, "alarms": candidate.alarms}
            figures["pool"] = self._on_pool.get(prompt.sha256)
        assert self._proposer is not None
        return EditResult(
            id=edit_id(number, proposal),
            round=number,
            proposer=self._proposer.name,
            edit=proposal.edit,
            rule_ids=proposal.rule_ids,
            example_ids=proposal.example_ids,
            outcome=outcome,
            why=why,
            **figures,
        )
