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


CLAUSES = [
    f"Clause {number} obliges the receiving party to return all documents of the other one." for number in range(60)
]
CONTRACT = " ".join(CLAUSES)


def test_a_text_beyond_the_window_of_256_word_pieces_is_embedded_to_its_end(embedder):
    ends = ["The tenant pays the rent in advance.", "Cats sleep for most of the day."]
    assert embedder.exceed_window([CONTRACT, "", *ends]) == [True, False, False, False]
    vectors = embedder.embed([f"{CONTRACT} {end}" for end in ends])
    np.testing.assert_allclose((vectors**2).sum(axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[1] < 0.99999
    assert vectors[0] @ embedder.embed(ends)[0] > vectors[1] @ embedder.embed(ends)[0]


def test_long_texts_leave_the_bits_of_short_ones_and_the_order_as_they_are(embedder):
    finished = []
    mixed = embedder.embed([CONTRACT, *TEXTS, CONTRACT], finished.append)
    assert mixed[1:-1].tobytes() == embedder.embed(TEXTS).tobytes()
    assert mixed[0].tobytes() == mixed[-1].tobytes()
    assert sum(finished) == len(mixed)


def test_the_parts_of_a_long_text_fit_the_window_and_make_it_up(embedder):
    for text in (CONTRACT, "x" * 5000, "ab " * 300 + " " * 4000 + "c" * 700):
        parts = embedder._parts(text)
        assert not any(embedder.exceed_window(parts))
        assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(part.strip().split()[0].isalpha() for part in embedder._parts("one two three " * 300))


def test_a_model_without_a_window_reads_every_text_whole(monkeypatch):
    unlimited = SentenceTransformersEmbedder(model="asset:all-minilm-l6-v2", batch_size=2)
    monkeypatch.setattr(unlimited._model, "max_seq_length", None)
    assert unlimited.exceed_window([CONTRACT]) == [False]
