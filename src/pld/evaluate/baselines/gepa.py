"""A prompt optimiser as baseline: GEPA (Agrawal et al. 2025, arXiv 2507.19457) by the package `gepa`, the engine of
DSPy's GEPA and of MLflow's optimize_prompts.

The search starts from the task's base instruction. In each round the Student answers three training examples with a
prompt drawn from the Pareto front on validation, the Teacher sees the answers and rewrites the prompt, and a rewrite
that gets more of the three right is measured on validation. The wording of the question is GEPA's own; the Teacher, its
answer store and the budget are pld's.
"""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from pydantic import Field

from pld import prompts
from pld.adapters.teachers.recorded import check_can_be_asked
from pld.distill import text_checks
from pld.distill.render import prompt_messages, render_input
from pld.errors import ConfigError, DataError, TeacherError
from pld.metrics import choose, indices, macro_f1
from pld.params import GepaParams
from pld.ports import OnProgress, Scores, Student, Teacher, TeacherAnswer, TeacherRequest
from pld.records import Example, Record, Task, content_id
from pld.reports import TrainingCost

if TYPE_CHECKING:
    from gepa.core.adapter import EvaluationBatch
    from gepa.core.result import GEPAResult
    from gepa.core.state import GEPAState

ROLE = "optimise"
MAX_WORDS = 2000
"""Longer proposed prompts are refused; about 2,600 tokens."""
SHOWN = 3
"""Training examples in a round, GEPA's own default."""

_PROMPT = "prompt"  # the one component of what GEPA optimises
_CURRENT, _SHOWN = "<curr_param>", "<side_info>"  # GEPA's placeholders for the current prompt and the examples


class ProposedPrompt(Record):
    """The Teacher's answer."""

    prompt: str = Field(description="The new instruction in full, as plain text.")


@dataclass(frozen=True)
class Optimised:
    """`prompt` has the best `validation_macro_f1` of all `candidates` measured on validation, the base instruction
    among them; `refused`: number of unusable Teacher answers by reason; `seconds`: wall time, Teacher included."""

    prompt: str
    validation_macro_f1: float
    candidates: int
    cost: TrainingCost
    refused: Mapping[str, int]
    seconds: float


def optimise(
    task: Task,
    train: Sequence[Example],
    validation: Sequence[Example],
    student: Student,
    teacher: Teacher,
    params: GepaParams,
    distillation_calls: int,
    on_progress: OnProgress | None = None,
) -> Optimised:
    """Search for a system prompt within two hard limits: `params.max_metric_calls` answers of the Student (at its
    precision for searching), and `params.max_teacher_calls` questions to the Teacher (null: `distillation_calls`).

    Answers from the Teacher's store count like new ones, so that a rerun takes the same course and pays nothing. An
    unusable Teacher answer costs a call and the search goes on. `on_progress` counts Student answers up to
    `max_metric_calls`. Raises ConfigError for a Teacher that only plays back, a missing package or too small a
    budget, and what Student and Teacher raise.
    """
    check(teacher)
    from gepa.api import optimize

    if not train or not validation:
        empty = "train" if not train else "validation"
        raise DataError(f"expected {empty} examples to search with, got none (baselines.gepa); set baselines.gepa=null")
    calls = distillation_calls if params.max_teacher_calls is None else params.max_teacher_calls
    search = _Search(task, validation, student.for_search(), teacher, calls, params.max_metric_calls, on_progress)
    search.check_budget()
    started = time.perf_counter()
    result: GEPAResult[Any, Any] = optimize(
        seed_candidate={_PROMPT: task.base_instruction},
        trainset=list(train),
        valset=list(validation),
        adapter=cast(Any, search),  # its protocol has propose_new_texts as an attribute
        reflection_minibatch_size=SHOWN,
        stop_callbacks=search.is_over,
        logger=_Silence(),
        track_best_outputs=False,
        seed=params.seed,
    )
    if search.fault is not None:
        raise search.fault
    if on_progress:
        on_progress(params.max_metric_calls - search.answers)
    texts = list(dict.fromkeys(candidate[_PROMPT] for candidate in result.candidates))
    best = min(texts, key=lambda text: (-search.macro_f1(text), student.count_tokens(prompt_messages(text))))
    return Optimised(
        prompt=best,
        validation_macro_f1=search.macro_f1(best),
        candidates=len(texts),
        cost=TrainingCost(
            teacher_calls=search.calls,
            teacher_tokens=search.tokens,
            student_answers=search.answers,
        ),
        refused=dict(sorted(search.refused.items())),
        seconds=time.perf_counter() - started,
    )


def check(teacher: Teacher) -> None:
    """Raises ConfigError if GEPA can't run with `teacher`, before anything is computed."""
    check_can_be_asked(teacher, "baselines.gepa", "baselines.gepa=null", ROLE)
    try:
        import gepa  # noqa: F401
    except ImportError:
        raise ConfigError(
            "expected the package gepa, got it not installed (baselines.gepa); run `pip install 'pld[gepa]'` or "
            "set baselines.gepa=null"
        ) from None


class _Search:
    """The GEPAAdapter that GEPA calls, and the budget spent.

    gepa 0.1.4 treats any exception in `propose_new_texts` as one bad answer and asks again, so an error is kept in
    `fault`, which ends the search and is raised after it.
    """

    def __init__(
        self,
        task: Task,
        validation: Sequence[Example],
        student: Student,
        teacher: Teacher,
        max_calls: int,
        max_answers: int,
        on_progress: OnProgress | None,
    ) -> None:
        self.calls = self.tokens = self.answers = 0
        self.refused: Counter[str] = Counter()
        self.fault: Exception | None = None
        self._task = task
        self._validation = validation
        self._student = student
        self._teacher = teacher
        self._max_calls = max_calls
        self._max_answers = max_answers
        self._advance = on_progress or (lambda _finished: None)
        self._known: dict[str, dict[str, Scores]] = {}  # prompt → example id → scores [k]

    def check_budget(self) -> None:
        least = len(self._validation) + self._round()
        if self._max_answers < least:
            raise ConfigError(
                f"expected {least} or more (the base instruction on {len(self._validation)} validation examples, "
                f"and one round), got {self._max_answers} (baselines.gepa.max_metric_calls); raise it"
            )

    def is_over(self, gepa_state: "GEPAState[Any, Any]") -> bool:
        """Called before each round: whether the round could exceed a limit, or validation has no errors left."""
        return (
            self.fault is not None
            or self.calls >= self._max_calls
            or self.answers + self._round() > self._max_answers
            or max(gepa_state.program_full_scores_val_set) >= 1.0
        )

    def evaluate(
        self, batch: list[Example], candidate: dict[str, str], capture_traces: bool = False
    ) -> "EvaluationBatch[dict[str, str], int]":
        """Scores: 1 for a right label, 0 for a wrong one. Traces: examples as the Teacher sees them."""
        from gepa.core.adapter import EvaluationBatch

        scores = self._scores(candidate[_PROMPT], batch)
        chosen = choose(scores)
        self.answers += len(batch)
        self._advance(len(batch))
        labels = self._task.labels
        return EvaluationBatch(
            outputs=[int(place) for place in chosen],
            scores=[
                float(place >= 0 and labels[place] == example.label)
                for place, example in zip(chosen, batch, strict=True)
            ],
            trajectories=list(map(self._trace, batch, chosen, scores)) if capture_traces else None,
        )

    def make_reflective_dataset(
        self,
        candidate: dict[str, str],  # noqa: ARG002
        eval_batch: "EvaluationBatch[dict[str, str], int]",
        components_to_update: list[str],
    ) -> dict[str, list[dict[str, str]]]:
        return {name: list(eval_batch.trajectories or ()) for name in components_to_update}

    def propose_new_texts(
        self,
        candidate: dict[str, str],
        reflective_dataset: Mapping[str, Sequence[Mapping[str, Any]]],
        components_to_update: list[str],  # noqa: ARG002
    ) -> dict[str, str]:
        """The Teacher's new prompt, or nothing if its answer is unusable; GEPA then goes on to the next round."""
        current = candidate[_PROMPT]
        try:
            self.calls += 1
            answers = list(self._teacher.ask([self._request(current, reflective_dataset[_PROMPT])]))
            if not answers:
                raise TeacherError(
                    f"expected a new prompt for baselines.gepa, got no answer ({self._teacher.name}); set "
                    "groups.teacher=anthropic or baselines.gepa=null"
                )
            self.tokens += sum(count for name, count in answers[0].usage.items() if name.endswith("tokens"))
            text, reason = _read(answers[0], current)
        except Exception as error:
            self.fault = error
            return {}
        if reason is not None:
            self.refused[reason] += 1
            return {}
        return {_PROMPT: text}

    def macro_f1(self, prompt: str) -> float:
        """On validation; no new answers for a `prompt` that was measured there."""
        labels = self._task.labels
        gold = indices([example.label for example in self._validation], labels)
        return macro_f1(gold, choose(self._scores(prompt, self._validation)), len(labels))

    def _round(self) -> int:
        """The most Student answers that a round takes: parent and child on the shown examples, child on validation."""
        return 2 * SHOWN + len(self._validation)

    def _scores(self, prompt: str, examples: Sequence[Example]) -> Scores:
        """[n, k]; each example is asked once for each prompt."""
        known = self._known.setdefault(prompt, {})
        new = list({example.id: example for example in examples if example.id not in known}.values())
        inputs = [render_input(self._task, example.inputs) for example in new]
        scores = self._student.score(prompt_messages(prompt), inputs, self._task.labels)
        known |= {example.id: row for example, row in zip(new, scores, strict=True)}
        return np.array([known[example.id] for example in examples])

    def _trace(self, example: Example, chosen: int, scores: Scores) -> dict[str, str]:
        labels, gold = self._task.labels, example.label
        if chosen < 0:
            answer, feedback = "none", f"Wrong: the instruction is too long for the model. The right answer is {gold}."
        else:
            answer, share = labels[chosen], _share(scores, labels.index(gold))
            feedback = (
                f"Right, with a probability of {share:.2f}."
                if answer == gold
                else f"Wrong: the right answer is {gold}, to which the model gave a probability of {share:.2f}."
            )
        return {
            "Inputs": render_input(self._task, example.inputs),
            "Generated Outputs": answer,
            "Feedback": feedback,
        }

    def _request(self, current: str, shown: Sequence[Mapping[str, Any]]) -> TeacherRequest:
        from gepa.strategies.instruction_proposal import InstructionProposalSignature

        # split first and fill in afterwards, so that filled-in text is never searched for placeholders
        before, _, rest = InstructionProposalSignature.default_prompt_template.partition(_CURRENT)
        between, _, after = rest.partition(_SHOWN)
        examples = [dict(record) for record in shown]
        blocks = prompts.data_block("instruction", current), prompts.data_block("examples", examples)
        schema = ProposedPrompt.model_json_schema()
        schema.pop("description")  # the class's docstring is for readers of the code
        return TeacherRequest(
            key=content_id([current, examples]),
            role=ROLE,
            system=prompts.render("gepa_system", labels=self._task.labels, max_words=MAX_WORDS),
            prompt="".join((before, blocks[0], between, blocks[1], after)),
            schema=schema,
        )


class _Silence:
    """Discards GEPA's log, which would go to stdout."""

    def log(self, message: str) -> None:
        pass


def _share(scores: Scores, place: int) -> float:
    """The softmax of log-scores [k] at `place`."""
    weights = [math.exp(score - max(scores)) for score in scores]
    return weights[place] / sum(weights)


def _read(answer: TeacherAnswer, current: str) -> tuple[str, str | None]:
    """The proposed prompt, and why it is refused (None: it is not)."""
    if answer.content is None:
        return "", (answer.error or "invalid").partition(":")[0].strip()
    text = _unfenced(ProposedPrompt.model_validate(dict(answer.content)).prompt)
    if not text:
        return "", "empty"
    if text_checks.control_token(text):
        return "", "control_token"
    if len(text.split()) > MAX_WORDS:
        return "", "too_long"
    return text, "unchanged" if text == current else None


def _unfenced(text: str) -> str:
    """Drop the ``` lines around the whole text: GEPA's wording asks for them, although the answer is JSON."""
    lines = text.strip().split("\n")
    if len(lines) > 1 and lines[0].startswith("```") and lines[-1] == "```":
        lines = lines[1:-1]
    return "\n".join(lines).strip()
