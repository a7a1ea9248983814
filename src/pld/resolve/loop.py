"""The closed loop: instructions that mislead the Student are found on train, mended, and proven on validation.

Step 3 of Prompt-Level Distillation (arXiv 2602.21103), with what the paper leaves open decided here: which failures are
shown, which instruction is to blame, and by what test an Edit is accepted.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pld.distill.text_checks import Fault
from pld.distill.trial import groups_of
from pld.errors import TeacherError
from pld.metrics import compare, predictions
from pld.ports import Scores
from pld.records import CLUSTERED, DISTILLED, Comparison, Example, Instruction, Prediction, SystemPrompt
from pld.resolve import sampling
from pld.resolve.blame import blame
from pld.resolve.candidates import OVER_BUDGET, TOGETHER, Candidate, Maker, edit_id, kept
from pld.resolve.edits import restored
from pld.resolve.proposer import Answered, Evidence, Proposal, Proposals
from pld.resolve.records import Blame, EditVerdict, GateVerdict, RoundReport, Rung, Shown, Together
from pld.resolve.selection import growing_parts, judge, race, screen
from pld.resolve.view import Ground, Viewer

_MOST_REFUSED = 100  # Edits of a round: with a full token budget nothing that a proposer still has would fit


@dataclass(frozen=True)
class Round:
    """One turn, as it is written to rounds/NN/; `instructions` is the list that it ended with."""

    report: RoundReport
    pool: Sequence[Prediction]
    shown: Sequence[Shown]
    blames: Sequence[Blame]
    edits: Sequence[EditVerdict]
    instructions: Sequence[Instruction]
    prompt: SystemPrompt


@dataclass(frozen=True)
class _Turn:
    """What a round made of the failures that it was shown."""

    blames: Sequence[Blame] = ()
    edits: Sequence[EditVerdict] = ()
    together: Sequence[Together] = ()
    trouble: str | None = None
    usage: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Loop:
    """`present` is the list so far: the one that came in, then each that the gate let pass. `ended` says why it ended;
    `tried`: hashes of all prompts that were measured, `raced`: of those that validation was asked about; `measured`:
    those that met the gate, by what they are."""

    ground: Ground
    came_in: Sequence[Instruction]
    present: list[Instruction] = field(init=False)
    ended: str = field(default="", init=False)
    alarms: list[str] = field(default_factory=list, init=False)
    tried: set[str] = field(default_factory=set, init=False)
    raced: set[str] = field(default_factory=set, init=False)
    accepted: list[str] = field(default_factory=list, init=False)
    calls: int = field(default=0, init=False)
    tokens: int = field(default=0, init=False)
    measured: dict[str, SystemPrompt] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.present = list(self.came_in)
        self._answering = self.ground.answering
        self._parts = growing_parts(self.ground.validation, self.ground.params.seed)
        self._viewer = Viewer(self.ground)
        self._earlier: list[EditVerdict] = []
        self._on_pool: Mapping[str, Rung] = {}

    def rounds(self) -> Iterator[Round]:
        """Play round after round. A Teacher's outage or bad answer ends its round, not the loop."""
        self._cover_labels()
        params, idle = self.ground.params, 0
        for number in range(1, params.rounds + 1):
            if not self._viewer.pool(number, self.present):
                self.ended = "every training example stands in the prompt, so none is left to predict"
                return
            done = self._round(number)
            yield done
            if not done.report.failures:
                self.ended = "the pool has no failure"
                return
            if _all_over_budget(done):
                self.ended = "nothing that was proposed fits into the token budget"
                return
            idle = 0 if done.report.accepted else idle + 1
            if idle >= params.patience:
                self.ended = f"no Edit was accepted for {idle} {'round' if idle == 1 else 'rounds'}"
                return
        self.ended = f"the limit of {params.rounds} rounds"

    def gain(self) -> Comparison:
        """The present list against the one that came in, on validation, where it was chosen."""
        answering, validation = self._answering, self.ground.validation
        settings = answering.config.evaluation
        return compare(
            DISTILLED,
            CLUSTERED,
            answering.gold(validation),
            answering.chosen(answering.prompt(self.present), validation),
            answering.chosen(answering.prompt(self.came_in), validation),
            len(answering.config.task.labels),
            groups_of(validation),
            settings.resamples,
            settings.seed,
        )

    def _cover_labels(self) -> None:
        """Labels that lost their last instruction in merging: their rules come back in, unless validation is worse."""
        validation = self.ground.validation
        held = {instruction.label for instruction in self.present}
        for label in self._answering.config.task.labels:
            if label in held:
                continue
            back = self._restored(label, (), "restored before round 1")
            if back is None:
                self.alarms.append(f"label {label!r} has no instruction, and no rule that could come back in")
                continue
            grown = [*self.present, back]
            self.raced.add(self._answering.prompt(grown).sha256)
            with self.ground.phase("gate"):
                now, then = (
                    self._answering.report(self._answering.prompt(found), validation).macro_f1.value
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

    def _round(self, number: int) -> Round:
        answering, labels = self._answering, self._answering.config.task.labels
        began = answering.prompt(self.present)
        pool = self._viewer.pool(number, self.present)
        with self.ground.phase("pool"):
            scores = answering.scores(began, pool)  # of the reporting precision: what is shown repeats to the bit
        answers = sampling.answered(pool, scores, labels)
        failed = [found for found in answers if not found.right]
        failures, successes = self._viewer.shown(number, failed, [found for found in answers if found.right])
        turn = self._turn(number, failures, successes, pool) if failures else _Turn()
        accepted = tuple(edit.id for edit in turn.edits if edit.outcome == "accepted")
        self._earlier = [] if accepted else [*self._earlier, *turn.edits]
        after = answering.prompt(self.present)
        report = RoundReport(
            round=number,
            pool=answering.report(began, pool),
            failures=len(failed),
            shown_failures=len(failures),
            shown_successes=len(successes),
            proposed=len(turn.edits),
            refused=sum(edit.outcome == "refused" for edit in turn.edits),
            raced=sum(bool(edit.race) for edit in turn.edits) + len(turn.together),
            together=tuple(turn.together),
            accepted=accepted,
            validation=answering.report(after, self.ground.validation),
            instructions=len(self.present),
            trouble=turn.trouble,
            usage=dict(turn.usage),
        )
        rows = predictions(pool, "pool", scores, labels)
        shown = sampling.shown_rows(failures, successes, self._viewer.cluster_of)
        return Round(report, rows, shown, turn.blames, turn.edits, tuple(self.present), after)

    def _turn(
        self, number: int, failures: Sequence[Answered], successes: Sequence[Answered], pool: Sequence[Example]
    ) -> _Turn:
        """From the failures to the verdict on each Edit."""
        with self.ground.phase("blame"):
            blames = blame(self.present, failures, self._scores_of(failures), self._answering.config.task.labels)
        maker = self._maker(number)
        with self.ground.phase("propose"):
            proposals = self._proposals(number, failures, successes, blames)
            candidates, edits = self._candidates(maker, proposals)
        together: list[Together] = []
        if candidates:
            chosen, screened = self._screened(number, candidates, pool)
            tested, together = self._tested(maker, chosen)
            edits += screened + tested
        trouble = proposals.trouble or (None if edits else "nothing new to try")
        return _Turn(blames, edits, together, trouble, proposals.usage)

    def _scores_of(self, failures: Sequence[Answered]) -> Callable[[Sequence[Instruction]], Scores]:
        examples = [found.example for found in failures]
        # not calibrated: each list without an instruction would need a calibration of its own
        return lambda instructions: self._answering.raw_scores(
            self._answering.prompt(instructions), examples, searching=True
        )

    def _proposals(
        self, number: int, failures: Sequence[Answered], successes: Sequence[Answered], blames: Sequence[Blame]
    ) -> Proposals:
        ground = self.ground
        evidence = Evidence(
            round=number,
            task=self._answering.config.task,
            instructions=tuple(self.present),
            failures=failures,
            successes=successes,
            blames=blames,
            rules=ground.rules,
            vectors=ground.vectors,
            clusters=ground.clusters,
            earlier=tuple(self._earlier),
        )
        try:
            found = ground.proposer.propose(evidence)
        except TeacherError as error:
            return Proposals((), trouble=str(error))
        self.calls += found.calls
        self.tokens += sum(count for name, count in found.usage.items() if name.endswith("tokens"))
        return found

    def _candidates(self, maker: Maker, proposals: Proposals) -> tuple[list[Candidate], list[EditVerdict]]:
        """Lists that are new to validation, each made once, and the Edits that made none."""
        found: list[Candidate] = []
        seen: set[str] = set()
        refused: list[EditVerdict] = []
        for proposal in proposals.edits:
            made = maker.checked(proposal)
            if isinstance(made, Fault):
                why = f"{made.reason}: {made.detail}"
                refused.append(self._verdict(maker.round, kept(proposal, made), "refused", why))
            elif made.prompt.sha256 in self.tried:
                why = "tried: this list lost in an earlier round, and the present one has only become better since"
                refused.append(self._verdict(maker.round, proposal, "refused", why))
            elif made.prompt.sha256 not in seen:
                seen.add(made.prompt.sha256)
                found.append(made)
            if len(found) == self.ground.params.proposals or len(refused) == _MOST_REFUSED:
                break
        return found, refused

    def _maker(self, number: int) -> Maker:
        ground, rendering = self.ground, self._answering.config.rendering
        return Maker(
            round=number,
            present=tuple(self.present),
            answering=self._answering,
            restore=self._restored,
            sources=ground.train,
            max_words=ground.max_words,
            max_copied_words=ground.max_copied_words,
            personal_data=ground.personal_data,
            token_budget=ground.params.token_budget or rendering.token_budget,
        )

    def _restored(self, label: str, dropped: Collection[str], origin: str) -> Instruction | None:
        ground = self.ground
        return restored(label, ground.rules, ground.vectors, ground.noise, dropped, origin, self._answering.weigh)

    def _screened(
        self, number: int, candidates: Sequence[Candidate], pool: Sequence[Example]
    ) -> tuple[list[Candidate], list[EditVerdict]]:
        """Those that do best on the pool, without its examples that some list shows, and what is told of the others."""
        self._on_pool = {}
        self.tried.update(candidate.prompt.sha256 for candidate in candidates)
        if len(candidates) <= self.ground.params.candidates:
            return list(candidates), []
        shown = {identity for candidate in candidates for identity in self._viewer.in_prompt(candidate.instructions)}
        unseen = [example for example in pool if example.id not in shown]
        present = self._answering.prompt(self.present)
        with self.ground.phase("screen"):
            prompts = [candidate.prompt for candidate in candidates]
            found = screen(prompts, present, self._answering, unseen, self.ground.params.candidates)
        self._on_pool = {sha: rungs[0] for sha, rungs in found.rungs.items()}
        dropped = []
        for candidate in candidates:
            if candidate.prompt.sha256 not in found.winners:
                on_pool = self._on_pool[candidate.prompt.sha256]
                why = f"macro-F1 {on_pool.macro_f1:.4f} on the pool, the present list {on_pool.present:.4f}"
                (proposal,) = candidate.proposals
                dropped.append(self._told(self._verdict(number, proposal, "dropped", why), candidate))
        return [candidate for candidate in candidates if candidate.prompt.sha256 in found.winners], dropped

    def _told(self, verdict: EditVerdict, candidate: Candidate) -> EditVerdict:
        """`verdict` with the figures of the list that the Edit makes alone."""
        prompt = candidate.prompt
        figures = {
            "prompt_sha256": prompt.sha256,
            "prompt_tokens": prompt.tokens,
            "pool": self._on_pool.get(prompt.sha256),
        }
        return verdict.model_copy(update={"alarms": candidate.alarms, **figures})

    def _tested(self, maker: Maker, candidates: Sequence[Candidate]) -> tuple[list[EditVerdict], list[Together]]:
        """The race among `candidates` and the gate for its survivor, which becomes the present list if it passes."""
        ground, answering = self.ground, self._answering
        present = answering.prompt(self.present)
        lists = {candidate.prompt.sha256: candidate for candidate in candidates}

        def join(leaders: Sequence[SystemPrompt]) -> list[SystemPrompt]:
            leading = {leader.sha256 for leader in leaders[:TOGETHER]}
            joint = maker.together([lists[sha] for sha in lists if sha in leading], self.tried)
            lists.update({candidate.prompt.sha256: candidate for candidate in joint})
            return [candidate.prompt for candidate in joint]

        with ground.phase("race"):
            prompts = [candidate.prompt for candidate in candidates]
            ran = race(prompts, present, answering, self._parts, ground.params.gate, join)
        self.tried.update(lists)
        self.raced.update(lists)
        survivor = lists[ran.winners[0]]
        survived = [edit_id(maker.round, proposal) for proposal in survivor.proposals]
        self.measured[f"round {maker.round}: {' and '.join(survived)}"] = survivor.prompt
        with ground.phase("gate"):
            gate = judge(
                survivor.prompt,
                present,
                ran.finalists,
                answering,
                ground.validation,
                ground.params.gate,
                ground.params.seed,
            )
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
        verdicts = [self._raced(maker.round, candidate, ran.rungs, survived, gate) for candidate in candidates]
        return verdicts, together

    def _raced(
        self,
        number: int,
        candidate: Candidate,
        rungs: Mapping[str, tuple[Rung, ...]],
        survived: Sequence[str],
        gate: GateVerdict,
    ) -> EditVerdict:
        """What became of the one Edit of `candidate`; `survived`: ids of the Edits of the list that met the gate."""
        (proposal,) = candidate.proposals
        own = edit_id(number, proposal)
        others = [identity for identity in survived if identity != own]
        beside = f"together with {' and '.join(others)}: " if others else ""
        if own not in survived:
            last = rungs[candidate.prompt.sha256][-1]
            why = f"macro-F1 {last.macro_f1:.4f} on {last.examples} examples, the present list {last.present:.4f}"
            verdict = self._verdict(number, proposal, "dropped", why)
        elif gate.accepted:
            why = f"{beside}macro-F1 {gate.gain.value:+.4f}, a gain has probability {gate.probability:.4f}"
            verdict = self._verdict(number, proposal, "accepted", why)
        else:
            verdict = self._verdict(number, proposal, "rejected", beside + "; ".join(gate.failed))
        race = rungs[candidate.prompt.sha256]
        met = {"race": race, "gate": gate if own in survived else None}
        return self._told(verdict, candidate).model_copy(update=met)

    def _verdict(
        self,
        number: int,
        proposal: Proposal,
        outcome: Literal["refused", "dropped", "rejected", "accepted"],
        why: str,
    ) -> EditVerdict:
        return EditVerdict(
            id=edit_id(number, proposal),
            round=number,
            proposer=self.ground.proposer.name,
            edit=proposal.edit,
            rule_ids=proposal.rule_ids,
            example_ids=proposal.example_ids,
            outcome=outcome,
            why=why,
        )


def _all_over_budget(done: Round) -> bool:
    over = [edit for edit in done.edits if edit.why.startswith(OVER_BUDGET)]
    return bool(over) and done.report.raced == 0
