"""Baselines without an LLM: the majority label, and logistic regression on words or sentence embeddings."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pld.distill.input_vectors import embed_inputs
from pld.distill.render import render_input
from pld.distill.trial import groups_of
from pld.evaluate.systems import Replies
from pld.ports import Embedder, OnProgress, Scores, Vectors
from pld.records import Example, Task

_STRENGTHS = (0.1, 1.0, 10.0, 100.0, 1000.0)  # C: inverse strengths of regularisation, the best by cross-validation
_FOLDS = 5
_SEED = 0
_ITERATIONS = 2000
_LEAST = 1e-12  # probability of a label that training never showed


@dataclass(frozen=True)
class Majority:
    """The most frequent label of `train`, whatever the input."""

    task: Task
    train: Sequence[Example]

    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        scores = np.tile(majority_scores(self.train, self.task.labels), (len(examples), 1))
        return Replies(_reported(scores, on_progress))


@dataclass(frozen=True)
class WordClassifier:
    """TF-IDF of words and pairs of words, then logistic regression; `terms` in its vocabulary."""

    task: Task
    vectorizer: Any
    model: Any
    terms: int
    seconds: float

    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        features = self.vectorizer.transform(_inputs(self.task, examples))
        return Replies(_reported(_log_probabilities(self.model, features, self.task.labels), on_progress))


@dataclass(frozen=True)
class EmbeddingClassifier:
    """Sentence embeddings of `dimensions`, then logistic regression."""

    task: Task
    embedder: Embedder
    model: Any
    dimensions: int
    seconds: float

    def __call__(self, examples: Sequence[Example], on_progress: OnProgress | None = None) -> Replies:
        vectors = embed_inputs(self.embedder, self.task, examples)
        return Replies(_reported(_log_probabilities(self.model, vectors, self.task.labels), on_progress))


@dataclass(frozen=True)
class _OneLabel:
    """What is learned from examples of a single label, or from none: how frequent it is."""

    scores: npt.NDArray[np.float64]


def majority_scores(train: Sequence[Example], labels: Sequence[str]) -> npt.NDArray[np.float64]:
    """Log of each label's share of `train` [k], by add-one smoothing."""
    counts = Counter(example.label for example in train)
    return np.array([math.log((counts[label] + 1) / (len(train) + len(labels))) for label in labels])


def train_word_classifier(task: Task, train: Sequence[Example]) -> WordClassifier:
    """Train on the rendered inputs of `train`, which the Student reads too. Deterministic."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    started = time.perf_counter()
    inputs = _inputs(task, train)
    # sklearn's own pattern leaves out words of one character
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    words = vectorizer.build_analyzer()
    if not any(words(text) for text in inputs):
        vectorizer.set_params(vocabulary=[""])  # no words at all: the same probabilities for every input
    features = vectorizer.fit_transform(inputs)
    model = _fitted(features, task, train)
    return WordClassifier(task, vectorizer, model, len(vectorizer.vocabulary_), time.perf_counter() - started)


def train_embedding_classifier(
    task: Task, train: Sequence[Example], vectors: Vectors, embedder: Embedder
) -> EmbeddingClassifier:
    """Train on `vectors` [n, d] of the rendered inputs of `train` [n]; `seconds` leaves out the embedding."""
    started = time.perf_counter()
    model = _fitted(vectors, task, train)
    return EmbeddingClassifier(task, embedder, model, int(vectors.shape[1]), time.perf_counter() - started)


def _fitted(features: Any, task: Task, train: Sequence[Example]) -> Any:
    """Logistic regression with balanced class weights, C by cross-validated macro-F1."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    # threads do not speed up so small a fit; on a busy machine they made it thirty times slower
    with threadpool_limits(1):
        return _search(features, task, train)


def _search(features: Any, task: Task, train: Sequence[Example]) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import f1_score
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold

    gold = [example.label for example in train]
    if len(set(gold)) < 2:
        return _OneLabel(majority_scores(train, task.labels))
    groups = groups_of(train) or [example.id for example in train]
    folds = min(_FOLDS, _fewest_groups(gold, groups))
    model = LogisticRegression(class_weight="balanced", max_iter=_ITERATIONS)
    if folds < 2:  # a label of a single example or group can't be in both the training and the held-out fold
        return model.fit(features, gold)
    search = GridSearchCV(
        model,
        {"C": _STRENGTHS},
        scoring=lambda model, held, right: f1_score(
            right, model.predict(held), labels=list(task.labels), average="macro", zero_division=0
        ),
        cv=StratifiedGroupKFold(folds, shuffle=True, random_state=_SEED),
    )
    return search.fit(features, gold, groups=groups).best_estimator_


def _fewest_groups(gold: Sequence[str], groups: Sequence[str]) -> int:
    """Number of groups that hold the label that the fewest groups hold."""
    return min(Counter(label for label, _ in set(zip(gold, groups, strict=True))).values())


def _log_probabilities(model: Any, features: Any, labels: Sequence[str]) -> Scores:
    """[n, k] in the order of the declared `labels`."""
    scores: Scores = np.full((features.shape[0], len(labels)), np.log(_LEAST))
    if isinstance(model, _OneLabel):
        scores[:] = model.scores
    elif len(scores):
        places = [labels.index(label) for label in model.classes_]
        scores[:, places] = np.log(np.maximum(model.predict_proba(features), _LEAST))
    return scores


def _inputs(task: Task, examples: Sequence[Example]) -> list[str]:
    return [render_input(task, example.inputs) for example in examples]


def _reported(scores: Scores, on_progress: OnProgress | None) -> Scores:
    if on_progress is not None:
        on_progress(len(scores))
    return scores
