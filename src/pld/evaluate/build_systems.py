"""Every system that `evaluate` measures, one after the other: the baselines of conf/, then the distilled prompt before
and after the conflict loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from pld.adapters.teachers.factory import hire
from pld.config.build import build
from pld.distill.render import base_messages, few_shot_messages, prompt_messages, render_input
from pld.evaluate import gepa as gepa_optimizer
from pld.evaluate import lora
from pld.evaluate.logreg import train_embedding_classifier, train_word_classifier
from pld.evaluate.systems import ChainOfThought, Majority, NearestShots, Prompted, System
from pld.params import Config
from pld.ports import Embedder, Student, Teacher, Vectors
from pld.progress import progress
from pld.records import (
    CHAIN_OF_THOUGHT,
    CLUSTERED,
    DISTILLED,
    EMBEDDING_LOGREG,
    FEW_SHOT,
    FEW_SHOT_NEAREST,
    GEPA,
    LORA,
    MAJORITY,
    TFIDF_LOGREG,
    UNREVIEWED,
    ZERO_SHOT,
    Calibration,
    Example,
    Message,
    TrainingCost,
)


@dataclass(frozen=True)
class Distilled:
    """A prompt of the pipeline's own, and what it cost to make."""

    prompt: str
    calibration: Calibration
    readable: str
    training: TrainingCost


@dataclass(frozen=True)
class Ground:
    """What all systems are made of; `calibrated_on` is a part of `train`, `clustered` the winner of the sweep, and
    `distilled` what ships; `unreviewed`: what the conflict loop left, where reviewers edited it. Each heavy thing is
    loaded once, when the first system asks for it."""

    config: Config
    train: Sequence[Example]
    validation: Sequence[Example]
    calibrated_on: Sequence[Example]
    shots: Sequence[Example]
    clustered: Distilled
    distilled: Distilled
    unreviewed: Distilled | None = None

    @cached_property
    def student(self) -> Student:
        student: Student = build(self.config.student, "student")
        return student

    @cached_property
    def embedder(self) -> Embedder:
        embedder: Embedder = build(self.config.embedder, "embedder")
        return embedder

    @cached_property
    def teacher(self) -> Teacher:
        return hire(self.config)

    @cached_property
    def inputs(self) -> list[str]:
        """The rendered inputs of `train` [n]."""
        return [render_input(self.config.task, example.inputs) for example in self.train]

    @cached_property
    def embedded(self) -> tuple[Vectors, float]:
        """`train`'s vectors [n, d], and the seconds that they took (the model's loading left out)."""
        self.embedder.embed(self.inputs[:1])
        started = time.perf_counter()
        with progress("evaluate: embedding the training examples", len(self.inputs)) as advance:
            vectors = self.embedder.embed(self.inputs, advance)
        return vectors, time.perf_counter() - started


def lineup(ground: Ground) -> Iterator[System]:
    """The systems in the order of the report; each is trained or indexed when it is its turn, and can be dropped when
    the next one is asked for. Raises ConfigError for an optional one that can't be had, before the first."""
    baselines = ground.config.baselines
    if baselines.lora is not None:
        lora.check(ground.config.student)
    if baselines.gepa is not None:
        gepa_optimizer.check(ground.teacher)
    for make in _MAKERS:
        yield from make(ground)


def _majority(ground: Ground) -> Iterator[System]:
    yield System(MAJORITY, Majority(ground.config.task, ground.train), readable="one label")


def _zero_shot(ground: Ground) -> Iterator[System]:
    yield _prompted(ground, ZERO_SHOT, base_messages(ground.config.task), "the base instruction")


def _few_shot(ground: Ground) -> Iterator[System]:
    beginning = few_shot_messages(ground.config.task, ground.shots)
    yield _prompted(ground, FEW_SHOT, beginning, f"{len(ground.shots)} examples")


def _few_shot_nearest(ground: Ground) -> Iterator[System]:
    task, size = ground.config.task, ground.config.baselines.few_shot_nearest
    vectors, seconds = ground.embedded
    yield System(
        FEW_SHOT_NEAREST,
        NearestShots(task, ground.student, ground.embedder, ground.train, vectors, size),
        readable=f"{size} examples for each input",
        student=ground.student,
        beginning=base_messages(task),
        training_seconds=seconds,
        calibrated_on=ground.calibrated_on,
    )


def _chain_of_thought(ground: Ground) -> Iterator[System]:
    settings = ground.config.baselines.chain_of_thought
    thinking = ChainOfThought(ground.config.task, ground.student, settings.max_tokens)
    yield System(
        CHAIN_OF_THOUGHT,
        thinking,
        readable="a chain of thought for each input",
        student=ground.student,
        beginning=thinking.beginning,
        sample=settings.examples,
        requests=settings.latency_requests,
    )


def _tfidf_logreg(ground: Ground) -> Iterator[System]:
    trained = train_word_classifier(ground.config.task, ground.train)
    yield System(
        TFIDF_LOGREG, trained, readable=f"weights of {trained.terms:,} terms", training_seconds=trained.seconds
    )


def _embedding_logreg(ground: Ground) -> Iterator[System]:
    vectors, seconds = ground.embedded
    trained = train_embedding_classifier(ground.config.task, ground.train, vectors, ground.embedder)
    yield System(EMBEDDING_LOGREG, trained, readable="nothing", training_seconds=seconds + trained.seconds)


def _lora(ground: Ground) -> Iterator[System]:
    config = ground.config
    if config.baselines.lora is None:
        return
    beginning = base_messages(config.task)
    answers = [example.label for example in ground.train]
    with progress("evaluate: lora, training", config.baselines.lora.epochs * len(ground.train)) as advance:
        tuned = lora.fine_tune(
            config.student, beginning, ground.inputs, answers, config.task.labels, config.baselines.lora, advance
        )
    yield System(
        LORA,
        Prompted(config.task, tuned.student, beginning),
        readable="nothing",
        student=tuned.student,
        beginning=beginning,
        training_seconds=tuned.training.seconds,
        calibrated_on=ground.calibrated_on,
    )


def _gepa(ground: Ground) -> Iterator[System]:
    config, settings = ground.config, ground.config.baselines.gepa
    if settings is None:
        return
    calls = ground.distilled.training.teacher_calls
    with progress("evaluate: gepa, Student answers of the search", settings.max_metric_calls) as advance:
        found = gepa_optimizer.optimise(
            config.task, ground.train, ground.validation, ground.student, ground.teacher, settings, calls, advance
        )
    beginning = prompt_messages(found.prompt)
    yield System(
        GEPA,
        Prompted(config.task, ground.student, beginning),
        readable=f"a prompt of {len(found.prompt.split()):,} words",
        student=ground.student,
        beginning=beginning,
        training=found.cost,
        training_seconds=found.seconds,
        calibrated_on=ground.calibrated_on,
    )


def _clustered(ground: Ground) -> Iterator[System]:
    yield _of_the_pipeline(ground, CLUSTERED, ground.clustered)


def _unreviewed(ground: Ground) -> Iterator[System]:
    if ground.unreviewed is not None:
        yield _of_the_pipeline(ground, UNREVIEWED, ground.unreviewed)


def _distilled(ground: Ground) -> Iterator[System]:
    yield _of_the_pipeline(ground, DISTILLED, ground.distilled)


def _of_the_pipeline(ground: Ground, name: str, own: Distilled) -> System:
    beginning = prompt_messages(own.prompt)
    return System(
        name,
        Prompted(ground.config.task, ground.student, beginning),
        readable=own.readable,
        student=ground.student,
        beginning=beginning,
        training=own.training,
        calibration=own.calibration,
    )


def _prompted(ground: Ground, name: str, beginning: tuple[Message, ...], readable: str) -> System:
    return System(
        name,
        Prompted(ground.config.task, ground.student, beginning),
        readable=readable,
        student=ground.student,
        beginning=beginning,
        calibrated_on=ground.calibrated_on,
    )


_MAKERS: tuple[Callable[[Ground], Iterator[System]], ...] = (
    _majority,
    _zero_shot,
    _few_shot,
    _few_shot_nearest,
    _chain_of_thought,
    _tfidf_logreg,
    _embedding_logreg,
    _lora,
    _gepa,
    _clustered,
    _unreviewed,
    _distilled,
)
