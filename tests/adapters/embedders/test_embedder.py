import numpy as np
import pytest

from pld.adapters.embedders.sentence_transformers import SentenceTransformersEmbedder
from pld.errors import AssetError, ConfigError

TEXTS = [
    "A sentence about a nurse.",
    "Which trains leave before nine?",
    "",
    "A sentence that is about a nurse, or a doctor; and longer.",
    "A sentence about a nurse.",
]


@pytest.fixture(scope="module")
def embedder():
    return SentenceTransformersEmbedder(model="asset:all-minilm-l6-v2", batch_size=2)


def test_rows_are_normalised_float32_vectors_in_the_order_of_the_texts(embedder):
    vectors = embedder.embed(TEXTS)
    assert vectors.shape == (5, 384)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose((vectors**2).sum(axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[3] > 0.6 > vectors[0] @ vectors[1]
    for at, text in enumerate(TEXTS):
        np.testing.assert_allclose(vectors[at], embedder.embed([text])[0], atol=1e-5)


def test_the_same_texts_give_the_same_bits(embedder):
    again = SentenceTransformersEmbedder(model="asset:all-minilm-l6-v2", batch_size=2)
    assert embedder.embed(TEXTS).tobytes() == again.embed(TEXTS).tobytes()


def test_no_texts_give_no_rows(embedder):
    assert embedder.embed([]).shape == (0, 384)


def test_progress_counts_every_text(embedder):
    finished = []
    embedder.embed(TEXTS, finished.append)
    assert finished == [3, 2]


def test_equal_texts_are_embedded_once(embedder, monkeypatch):
    encoded = []
    model = embedder._model
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda texts, **options: encoded.extend(texts) or encode(texts, **options))
    vectors = embedder.embed(TEXTS)
    assert sorted(encoded) == sorted(set(TEXTS))
    assert vectors[0].tobytes() == vectors[4].tobytes()


@pytest.mark.parametrize(
    ("model", "error"),
    [("./no/such", ConfigError), ("somebody/no-such-model", ConfigError), ("asset:no-such", AssetError)],
)
def test_a_missing_model_is_a_one_line_error(model, error):
    with pytest.raises(error) as raised:
        SentenceTransformersEmbedder(model=model, batch_size=2).embed(["a"])
    assert model in str(raised.value)
    assert "\n" not in str(raised.value)
