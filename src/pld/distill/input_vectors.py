"""Embed the inputs of examples so that every part of them counts, however long they are."""

from collections.abc import Sequence

import numpy as np

from pld.distill.render import render_input
from pld.ports import Embedder, OnProgress, Vectors
from pld.records import Example, Task


def embed_inputs(
    embedder: Embedder, task: Task, examples: Sequence[Example], on_progress: OnProgress | None = None
) -> Vectors:
    """The inputs of `examples` [n] as float32 [n, d], rows L2-normalised.

    An input that fits the embedder's window is embedded as rendered. Of a longer one with text in several fields, each
    field is embedded, and the vector is their normalised mean: a question about a contract counts as much as the
    contract, not as its hundredth part.
    """
    rendered = [render_input(task, example.inputs) for example in examples]
    texts = []
    for text, example, exceeds in zip(rendered, examples, embedder.exceed_window(rendered), strict=True):
        fields = [field for field in example.inputs.values() if field.strip()]
        texts.append(fields if exceeds and len(fields) > 1 else [text])
    vectors = embedder.embed([first for first, *_ in texts], on_progress)
    others = [(at, text) for at, (_, *own) in enumerate(texts) for text in own]
    if others:
        places = [at for at, _ in others]
        np.add.at(vectors, places, embedder.embed([text for _, text in others]))
        vectors[places] /= np.linalg.norm(vectors[places], axis=1, keepdims=True)
    return vectors
