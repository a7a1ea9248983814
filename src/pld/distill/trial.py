"""One point of the sweep: cluster → consolidate → render → Student on validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pld.calibration import calibrate, cross_fitted, fit_batch
from pld.distill.cluster import Clustering
from pld.distill.consolidate import labels_without_instruction
from pld.distill.consolidation import consolidated
from pld.distill.render import exemplars_of, render_input, render_system_prompt, turns_by_label
from pld.errors import DistillError
from pld.metrics import Indices, choose, indices, predictions, system_report
from pld.params import Config, Scalar
from pld.ports import Clusterer, OnProgress, Scores, Student, Teacher, Vectors
from pld.records import (
    LONGEST_PROMPT,
    Calibration,
    Example,
    Instruction,
    Message,
    Prediction,
    Rule,
    SystemPrompt,
    Task,
    content_id,
    registered_length,
)
from pld.reports import TrialReport


@dataclass(frozen=True)
class Material:
    """The inputs of every trial; `vectors` [n, d] belong to `rules` [n]."""

    rules: Sequence[Rule]
    vectors: Vectors
    train: Mapping[str, Example]
    validation: Sequence[Example]


@dataclass(frozen=True)
class Draft:
    """A trial before the Student is run."""

    clustering: Clustering
    instructions: list[Instruction]
    prompt: SystemPrompt


@dataclass(frozen=True)
class Outcome:
    """A trial with its answers on validation."""

    draft: Draft
    report: TrialReport
    predictions: list[Prediction]
    calibration: Calibration


def trial_id(settings: Mapping[str, Scalar]) -> str:
    """Content hash of the trial's settings."""
    return content_id(dict(settings), 12)


def draft(config: Config, material: Material, clusterer: Clusterer, student: Student, teacher: Teacher | None) -> Draft:
    """The prompt of one trial under `config` with the trial's settings applied. Deterministic.

    Raises DistillError when clustering or rendering leaves nothing, or the prompt is too long for the registry.
    """
    found = consolidated(config, material.rules, material.vectors, material.train, clusterer, teacher)
    rendering = config.rendering.model_copy(update={"order": "given"}) if found.in_order else config.rendering
    by_id = {rule.id: rule for rule in material.rules}
    exemplars = exemplars_of(found.instructions, by_id, material.train, config)
    prompt = render_system_prompt(config.task, found.instructions, exemplars, rendering, student.count_tokens)
    if (length := registered_length(prompt.messages)) > LONGEST_PROMPT:
        raise DistillError(
            f"expected a prompt of at most {LONGEST_PROMPT:,} characters, which MLflow's registry takes, got "
            f"{length:,} as it is stored there (rendering.token_budget); lower it, or rendering.exemplars"
        )
    return Draft(found.clustering, found.instructions, prompt)


def comparable(config: Config, scores: Scores, examples: Sequence[Example]) -> Scores:
    """`scores` [n, k] of validation examples as the calibration that ships would leave them, for comparing prompts: it
    takes no answers besides these (affine: cross-fitted; batch: their own mean is subtracted)."""
    task, method = config.task, config.calibration.method
    if method == "none":
        return scores
    if method == "batch":
        return calibrate(scores, fit_batch(scores, task.labels))
    return cross_fitted(scores, gold_of(task, examples), [example.id for example in examples], task.labels)


def measure(
    config: Config,
    settings: Mapping[str, Scalar],
    drafted: Draft,
    examples: Sequence[Example],
    scores: Scores,
    prompt_tokens: int,
) -> tuple[TrialReport, list[Prediction]]:
    """The trial's figures and predictions on `examples`, from scores [n, k] of which the highest decides."""
    labels, identity = config.task.labels, trial_id(settings)
    report = TrialReport(
        trial_id=identity,
        settings=dict(settings),
        report=system_report(
            gold_of(config.task, examples),
            choose(scores),
            labels,
            groups_of(examples),
            config.evaluation.resamples,
            config.evaluation.seed,
            prompt_tokens,
        ),
        instructions=len(drafted.prompt.instruction_ids),
        clusters=sum(not cluster.noise for cluster in drafted.clustering.clusters),
        noise_share=drafted.clustering.noise_share,
        labels_without_instruction=labels_without_instruction(labels, _kept(drafted)),
        cut=drafted.prompt.cut,
        turns=turns_by_label(drafted.prompt.messages, labels),
        cut_turns=drafted.prompt.cut_turns,
        by_size=dict(drafted.clustering.by_size),
        stability=drafted.clustering.stability,
    )
    return report, predictions(examples, identity, scores, labels)


def gold_of(task: Task, examples: Sequence[Example]) -> Indices:
    """[n] indices of the gold labels."""
    return indices([example.label for example in examples], task.labels)


def score_examples(
    student: Student,
    task: Task,
    messages: Sequence[Message],
    examples: Sequence[Example],
    on_progress: OnProgress | None = None,
) -> Scores:
    """Log-scores [n, k] of the declared labels for each example."""
    inputs = [render_input(task, example.inputs) for example in examples]
    return student.score(messages, inputs, task.labels, on_progress)


def groups_of(examples: Sequence[Example]) -> list[str] | None:
    """The groups of the examples (one without a group is its own), or None when no example has any."""
    if all(example.group is None for example in examples):
        return None
    return [f"group:{example.group}" if example.group is not None else f"id:{example.id}" for example in examples]


def objective(report: TrialReport) -> tuple[float, int, str]:
    """Sorts the best trial first: macro-F1 on the examples that it answered, then fewer prompt tokens, then the trial
    id."""
    return (-round(report.report.macro_f1.value, 6), report.report.prompt_tokens, report.trial_id)


def sample(examples: Sequence[Example], size: int, purpose: str) -> list[Example]:
    """At most `size` examples, drawn by the hash of their ids, in the order of `examples`, so that data added later
    change few of them."""
    drawn = sorted(examples, key=lambda example: content_id([purpose, example.id]))[:size]
    chosen = {example.id for example in drawn}
    return [example for example in examples if example.id in chosen]


def _kept(drafted: Draft) -> list[Instruction]:
    kept = set(drafted.prompt.instruction_ids)
    return [instruction for instruction in drafted.instructions if instruction.id in kept]
