import warnings

import numpy as np
import pytest

from pld.adapters.embedders.sentence_transformers import SentenceTransformersEmbedder
from pld.evaluate.baselines.without_llm import train_embedding_classifier, train_word_classifier
from pld.records import Example, Task

TASK = Task(
    name="mail",
    labels=("refund", "delivery", "praise"),
    fields=("text",),
    input_template="{{ text }}",
    base_instruction="What is it?",
)
TEXTS = {
    "refund": ("Please send my money back, order {n}.", "I want the {n} euros returned to me."),
    "delivery": ("My parcel {n} has not arrived.", "Where is the package that you shipped on day {n}?"),
    "praise": ("A wonderful chair, number {n} in our house!", "We love it, best of {n} that we tried."),
}


def examples(start, count, labels=TASK.labels, group=None):
    return [
        Example(
            id=f"{label}-{n}",
            inputs={"text": TEXTS[label][n % 2].format(n=n)},
            label=label,
            split="train",
            group=group(n) if group else None,
        )
        for n in range(start, start + count)
        for label in labels
    ]


@pytest.fixture(scope="module")
def embedder():
    return SentenceTransformersEmbedder(model="asset:all-minilm-l6-v2", batch_size=64)


@pytest.fixture(scope="module")
def trained(embedder):
    train = examples(0, 8)
    vectors = embedder.embed([example.inputs["text"] for example in train])
    return {
        "words": train_word_classifier(TASK, train),
        "embeddings": train_embedding_classifier(TASK, train, vectors, embedder),
    }


def answered(classifier, asked):
    return [TASK.labels[place] for place in classifier(asked).scores.argmax(axis=1)]


@pytest.mark.parametrize("kind", ["words", "embeddings"])
def test_a_classifier_learns_the_labels_in_their_declared_order(trained, kind):
    asked = examples(40, 5)
    assert answered(trained[kind], asked) == [example.label for example in asked]


@pytest.mark.parametrize("kind", ["words", "embeddings"])
def test_scores_are_log_probabilities_that_need_no_llm(trained, kind):
    replies = trained[kind](examples(40, 5))
    np.testing.assert_allclose(np.exp(replies.scores).sum(axis=1), 1)
    assert replies.chats == ()


@pytest.mark.parametrize("kind", ["words", "embeddings"])
def test_scores_do_not_depend_on_the_batch(trained, kind):
    asked = examples(40, 2)
    alone = np.vstack([trained[kind]([example]).scores for example in asked])
    np.testing.assert_allclose(alone, trained[kind](asked).scores, atol=1e-4)


def test_training_again_gives_the_same_scores(trained):
    asked = examples(40, 3)
    again = train_word_classifier(TASK, examples(0, 8))
    assert np.array_equal(again(asked).scores, trained["words"](asked).scores)


def test_a_classifier_reports_its_size_and_training_time(trained):
    assert trained["words"].terms == len(trained["words"].vectorizer.vocabulary_) > 40
    assert trained["embeddings"].dimensions == 384
    assert all(classifier.seconds > 0 for classifier in trained.values())


def test_a_label_without_training_examples_has_a_finite_score():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier = train_word_classifier(TASK, examples(0, 8, labels=("refund", "praise")))
    scores = classifier(examples(40, 2)).scores
    assert np.isfinite(scores).all()
    assert scores[:, 1].max() < -20


def test_with_a_single_training_label_it_is_always_the_answer():
    scores = train_word_classifier(TASK, examples(0, 3, labels=("praise",)))(examples(40, 2)).scores
    assert np.isfinite(scores).all()
    assert scores.argmax(axis=1).tolist() == [2] * 6


def test_a_label_with_one_example_or_group_is_learned_without_cross_validation():
    one = examples(0, 6, labels=("refund", "praise")) + examples(0, 1, labels=("delivery",))
    grouped = examples(0, 6, group=lambda n: "all")
    for train in (one, grouped):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert answered(train_word_classifier(TASK, train), examples(42, 1)) == list(TASK.labels)


def test_cross_validation_never_splits_a_group(monkeypatch):
    from sklearn.model_selection import StratifiedGroupKFold

    seen = []
    split = StratifiedGroupKFold.split

    def watched(self, features, gold, groups):
        for train, test in split(self, features, gold, groups):
            seen.append({groups[at] for at in train} & {groups[at] for at in test})
            yield train, test

    monkeypatch.setattr(StratifiedGroupKFold, "split", watched)
    train_word_classifier(TASK, examples(0, 12, group=lambda n: f"customer {n // 3}"))
    assert seen == [set()] * 4


def test_inputs_without_words_get_an_answer():
    train = [example.model_copy(update={"inputs": {"text": "?!"}}) for example in examples(0, 4)]
    scores = train_word_classifier(TASK, train)(train).scores
    assert np.isfinite(scores).all()
    assert len({tuple(row) for row in scores}) == 1
