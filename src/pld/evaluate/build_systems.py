"""Builds every system that `evaluate` measures: the baselines of conf/, then the distilled prompt before and after the
conflict loop. Also says what a distilled prompt cost."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pld.adapters.teachers.factory import create_teacher
from pld.config.build import build
from pld.distill.calibrating import Part, calibration_parts
from pld.distill.consolidation import calls_behind
from pld.distill.extract import ExtractionSummary
from pld.distill.input_vectors import embed_inputs
from pld.distill.render import base_messages, few_shot_messages, prompt_messages, render_input
from pld.evaluate.baselines import gepa, lora
from pld.evaluate.baselines.prompting import ChainOfThought, NearestShots
from pld.evaluate.baselines.without_llm import Majority, train_embedding_classifier, train_word_classifier
from pld.evaluate.systems import Prompted, System
from pld.params import Config, GepaParams, LoraParams, RenderingParams
from pld.ports import Embedder, Student, Teacher, Vectors
from pld.progress import progress
from pld.records import (
    CHAIN_OF_THOUGHT,
    CLUSTERED,
    DISTILLED,
    EMBEDDING_LOGREG,
    EXPLAINED,
    FEW_SHOT_NEAREST,
    GEPA,
    LORA,
    MAJORITY,
    TFIDF_LOGREG,
    UNREVIEWED,
    ZERO_SHOT,
    Calibration,
    Example,
    Instruction,
    Message,
    Messages,
)
from pld.reports import TrainingCost
from pld.resolve.records import ResolutionReport


@dataclass(frozen=True)
class DistilledPrompt:
    """A prompt that the pipeline made, what a person can read of it, and its one-time cost."""

    messages: tuple[Message, ...]
    calibration: Calibration
    readable: str
    training: TrainingCost
    labelled: frozenset[str] = frozenset()
    """Ids of the training examples whose labels made it."""


@dataclass(frozen=True)
class SystemInputs:
    """What systems are built from. `explained`, which the Teacher explained, is a part of `train`;
    `shots`: those of each few-shot system; `clustered` won the sweep, `unreviewed` is what the loop left (None:
    reviewers changed nothing), `distilled` ships. Models load once, on first use."""

    config: Config
    train: Sequence[Example]
    validation: Sequence[Example]
    explained: Sequence[Example]
    shots: Mapping[str, Sequence[Example]]
    clustered: DistilledPrompt
    distilled: DistilledPrompt
    unreviewed: DistilledPrompt | None = None
    given_student: Student | None = None
    """None: the one that `config` names."""

    def calibration_parts(self, messages: Messages) -> list[Part]:
        """What calibrates a system that begins with `messages`; the same examples for all but for what these show."""
        explained, config = _ids(self.explained), self.config
        return calibration_parts(config.task, config.calibration, messages, self.train, explained)

    @cached_property
    def student(self) -> Student:
        student: Student = self.given_student or build(self.config.student, "student")
        return student

    @cached_property
    def embedder(self) -> Embedder:
        embedder: Embedder = build(self.config.embedder, "embedder")
        return embedder

    @cached_property
    def teacher(self) -> Teacher:
        return create_teacher(self.config)

    @cached_property
    def rendered(self) -> list[str]:
        """The rendered inputs of `train` [n]."""
        return [render_input(self.config.task, example.inputs) for example in self.train]

    @cached_property
    def embedded(self) -> tuple[Vectors, float]:
        """Vectors [n, d] of `train`, and the seconds that they took, without loading the model."""
        task = self.config.task
        embed_inputs(self.embedder, task, self.train[:1])
        started = time.perf_counter()
        with progress("evaluate: embedding the training examples", len(self.train)) as advance:
            vectors = embed_inputs(self.embedder, task, self.train, advance)
        return vectors, time.perf_counter() - started


def build_systems(inputs: SystemInputs) -> Iterator[System]:
    """The systems in the order of the report. Each is trained when it is its turn and can be freed when the next one is
    asked for. Raises ConfigError for an optional baseline that can't run, before the first system."""
    task, optional = inputs.config.task, inputs.config.baselines
    if optional.lora is not None:
        lora.check(inputs.config.student)
    if optional.gepa is not None:
        gepa.check(inputs.teacher)
    yield System(MAJORITY, Majority(task, inputs.train), readable="one label", labelled=_ids(inputs.train))
    yield _baseline(inputs, ZERO_SHOT, base_messages(task), "the base instruction")
    for name, shots in inputs.shots.items():
        readable = _count(len(shots), "example")
        yield _baseline(inputs, name, few_shot_messages(task, shots), readable, labelled=_ids(shots))
    yield _few_shot_nearest(inputs)
    yield _chain_of_thought(inputs)
    yield from _classifiers(inputs)
    if optional.lora is not None:
        yield _lora(inputs, optional.lora)
    if optional.gepa is not None:
        yield _gepa(inputs, optional.gepa)
    yield from distilled_systems(inputs)


def distilled_systems(inputs: SystemInputs) -> Iterator[System]:
    """The distilled prompt at each step of the pipeline."""
    steps = {CLUSTERED: inputs.clustered, UNREVIEWED: inputs.unreviewed, DISTILLED: inputs.distilled}
    for name, own in steps.items():
        if own is not None:
            yield _prompted(
                inputs,
                name,
                own.messages,
                own.readable,
                training=own.training,
                calibration=own.calibration,
                calibration_parts=inputs.calibration_parts(own.messages),
                labelled=own.labelled,
            )


def _few_shot_nearest(inputs: SystemInputs) -> System:
    task, settings = inputs.config.task, inputs.config.baselines.few_shot_nearest
    vectors, seconds = inputs.embedded
    return System(
        FEW_SHOT_NEAREST,
        NearestShots(task, inputs.student, inputs.embedder, inputs.train, vectors, settings.shown),
        readable=f"{_count(settings.shown, 'example')} for each input",
        student=inputs.student,
        beginning=base_messages(task),
        training_seconds=seconds,
        calibration_parts=inputs.calibration_parts(base_messages(task)),
        labelled=_ids(inputs.train),
        sample=settings.examples,
    )


def _chain_of_thought(inputs: SystemInputs) -> System:
    settings = inputs.config.baselines.chain_of_thought
    thinking = ChainOfThought(inputs.config.task, inputs.student, settings.max_tokens)
    return System(
        CHAIN_OF_THOUGHT,
        thinking,
        readable="a chain of thought for each input",
        student=inputs.student,
        beginning=thinking.beginning,
        sample=settings.examples,
        requests=settings.latency_requests,
    )


def _classifiers(inputs: SystemInputs) -> Iterator[System]:
    """Trained on all of `train`, and on just the examples that the Teacher explained, if these are fewer."""
    task = inputs.config.task
    vectors, seconds = inputs.embedded
    own, explained = _ids(inputs.train), _ids(inputs.explained)
    parts = {"": own} | ({EXPLAINED: explained} if explained and explained < own else {})
    for suffix, ids in parts.items():
        places = [place for place, example in enumerate(inputs.train) if example.id in ids]
        train = [inputs.train[place] for place in places]
        words = train_word_classifier(task, train)
        yield System(
            TFIDF_LOGREG + suffix,
            words,
            readable=f"weights of {words.terms:,} terms",
            training_seconds=words.seconds,
            labelled=ids,
        )
        embedded = train_embedding_classifier(task, train, vectors[places], inputs.embedder)
        yield System(
            EMBEDDING_LOGREG + suffix,
            embedded,
            readable="nothing",
            training_seconds=seconds * len(places) / len(own) + embedded.seconds,
            labelled=ids,
        )


def _lora(inputs: SystemInputs, params: LoraParams) -> System:
    config, messages = inputs.config, base_messages(inputs.config.task)
    answers = [example.label for example in inputs.train]
    with progress("evaluate: lora, training", params.epochs * len(inputs.train)) as advance:
        tuned = lora.fine_tune(config.student, messages, inputs.rendered, answers, config.task.labels, params, advance)
    seconds = tuned.training.seconds
    return _prompted(  # without a calibration: it was trained on every example that could fit one
        inputs,
        LORA,
        messages,
        "nothing",
        student=tuned.student,
        training_seconds=seconds,
        labelled=_ids(inputs.train),
    )


def _gepa(inputs: SystemInputs, params: GepaParams) -> System:
    calls, task = inputs.distilled.training.teacher_calls, inputs.config.task
    with progress("evaluate: gepa, Student answers of the search", params.max_metric_calls) as advance:
        found = gepa.optimise(
            task, inputs.train, inputs.validation, inputs.student, inputs.teacher, params, calls, advance
        )
    readable, messages = f"a prompt of {len(found.prompt.split()):,} words", prompt_messages(found.prompt)
    return _baseline(
        inputs,
        GEPA,
        messages,
        readable,
        training=found.cost,
        training_seconds=found.seconds,
        labelled=_ids(inputs.train),
    )


def _baseline(inputs: SystemInputs, name: str, messages: tuple[Message, ...], readable: str, **own: Any) -> System:
    parts = inputs.calibration_parts(messages)
    return _prompted(inputs, name, messages, readable, calibration_parts=parts, **own)


def _prompted(
    inputs: SystemInputs,
    name: str,
    messages: tuple[Message, ...],
    readable: str,
    student: Student | None = None,
    **own: Any,
) -> System:
    student = student or inputs.student
    return System(
        name, Prompted(inputs.config.task, student, messages), readable, student=student, beginning=messages, **own
    )


def readable_prompt(instructions: Sequence[Instruction], messages: Messages, rendering: RenderingParams) -> str:
    """What a person can read of the distilled prompt `messages` with these `instructions`."""
    if rendering.exemplars_as == "turns":
        shown = len(messages) // 2
    else:
        shown = sum(len(rules[: rendering.exemplars]) for rules in _exemplar_pools(instructions, rendering))
    listed = _count(len(instructions), "instruction")
    return f"{listed} with {_count(shown, 'example')}" if shown else listed


def distillation_cost(
    summary: ExtractionSummary, instructions: Sequence[Instruction], student_answers: int
) -> TrainingCost:
    """Cost of the rules, the consolidation behind `instructions`, and the sweep's `student_answers` on validation."""
    return TrainingCost(
        teacher_calls=summary.calls + calls_behind(instructions),
        teacher_tokens=sum(count for name, count in summary.usage.items() if name.endswith("tokens")),
        recorded=summary.recorded,
        student_answers=student_answers,
    )


def resolution_cost(clustered: TrainingCost, resolution: ResolutionReport) -> TrainingCost:
    """Cost of `clustered`, the list that the loop started from, plus that of the loop."""
    return TrainingCost(
        teacher_calls=clustered.teacher_calls + resolution.teacher_calls,
        teacher_tokens=clustered.teacher_tokens + resolution.teacher_tokens,
        recorded=clustered.recorded and not resolution.teacher_tokens,
        student_answers=clustered.student_answers + resolution.student_answers,
    )


def _exemplar_pools(instructions: Sequence[Instruction], rendering: RenderingParams) -> list[list[str]]:
    """The rules (each of one example) from which the rendering takes its exemplars: by instruction, by label or all."""
    if rendering.exemplars_per == "instruction":
        return [list(instruction.rule_ids) for instruction in instructions]
    pools: dict[str, dict[str, None]] = {}
    for instruction in instructions:
        pools.setdefault(instruction.label if rendering.exemplars_per == "label" else "", {}).update(
            dict.fromkeys(instruction.rule_ids)
        )
    return [list(pool) for pool in pools.values()]


def _ids(examples: Sequence[Example]) -> frozenset[str]:
    return frozenset(example.id for example in examples)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
