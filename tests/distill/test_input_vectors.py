import numpy as np
import pytest

from pld.adapters.embedders.sentence_transformers import SentenceTransformersEmbedder
from pld.distill.input_vectors import embed_inputs
from pld.distill.render import render_input
from pld.records import Example, Task

TASK = Task(
    name="nli",
    labels=("yes", "no"),
    fields=("contract", "hypothesis"),
    input_template="Contract:\n{{ contract }}\n\nHypothesis: {{ hypothesis }}",
    base_instruction="Decide.",
)
HYPOTHESES = ["The parties share a kitchen.", "All documents shall be returned.", "The agreement ends in May."]


@pytest.fixture(scope="module")
def embedder():
    return SentenceTransformersEmbedder(model="asset:all-minilm-l6-v2", batch_size=8)


def asked(contract, hypotheses=HYPOTHESES):
    return [
        Example(id=f"e{at}", inputs={"contract": contract, "hypothesis": text}, label="no", split="train")
        for at, text in enumerate(hypotheses)
    ]


def long_text(word):
    return " ".join(f"Clause {number} obliges the receiving {word} to return all of it." for number in range(70))


def test_questions_about_one_long_contract_are_told_apart_and_found_again_with_another(embedder):
    vectors = embed_inputs(embedder, TASK, asked(long_text("party")))  # (3, d)
    np.testing.assert_allclose((vectors**2).sum(axis=1), 1, atol=1e-5)
    cosines = (vectors @ vectors.T)[np.triu_indices(3, 1)]
    assert cosines.max() < 0.95
    others = embed_inputs(embedder, TASK, asked(long_text("tenant")))
    assert (others @ vectors.T).argmax(axis=1).tolist() == [0, 1, 2]


def test_inputs_that_fit_keep_the_bits_of_their_rendered_text(embedder):
    examples = asked("The parties agree on nothing else.")
    rendered = [render_input(TASK, example.inputs) for example in examples]
    assert embed_inputs(embedder, TASK, examples).tobytes() == embedder.embed(rendered).tobytes()
    with_long = embed_inputs(embedder, TASK, [*examples, *asked(long_text("party"))])
    np.testing.assert_allclose(with_long[:3], embedder.embed(rendered), atol=1e-5)


def test_a_long_input_with_text_in_one_field_is_embedded_as_rendered(embedder):
    examples = asked(long_text("party"), [" "])
    rendered = [render_input(TASK, example.inputs) for example in examples]
    assert embed_inputs(embedder, TASK, examples).tobytes() == embedder.embed(rendered).tobytes()


def test_progress_counts_each_example_once(embedder):
    finished = []
    embed_inputs(embedder, TASK, asked(long_text("party")), finished.append)
    assert sum(finished) == 3
