"""Embed texts with a sentence-transformers model: an asset, a local folder or a Hugging Face id."""

import functools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pld.config import hub
from pld.config.assets import ASSET_PREFIX, asset_folder_or_file
from pld.errors import ConfigError
from pld.ports import OnProgress, Vectors


class SentenceTransformersEmbedder:
    """`model` is `asset:<name>`, a local folder or a Hugging Face id; loaded on first use.

    sentence-transformers silently leaves out what is beyond the model's window (MiniLM: 256 word pieces). Here a longer
    text is halved between words until its parts fit, and its vector is the normalised mean of theirs, weighted by their
    tokens. A text that fits is encoded as it is.
    """

    def __init__(self, *, model: str, batch_size: int) -> None:
        self._name = model
        self._batch_size = batch_size

    def embed(self, texts: Sequence[str], on_progress: OnProgress | None = None) -> Vectors:
        """`texts` [n] → [n, d] float32, rows L2-normalised; equal texts are embedded once. Raises AssetError or
        ConfigError."""
        vectors = np.zeros((len(texts), self._model.get_embedding_dimension()), dtype=np.float32)
        places: dict[str, list[int]] = {}
        for at, text in enumerate(texts):
            places.setdefault(text, []).append(at)
        # texts of similar length share a batch; the order depends on the texts only, so that the bits repeat
        order = sorted(places, key=lambda text: (len(text), text))
        long = dict(zip(order, self.exceed_window(order), strict=True))
        fitting = [text for text in order if not long[text]]
        batches = [fitting[start : start + self._batch_size] for start in range(0, len(fitting), self._batch_size)]
        for batch in [*batches, *([text] for text in order if long[text])]:
            rows = self._pooled(batch[0]) if long[batch[0]] else self._encode(batch)
            for text, row in zip(batch, rows, strict=True):
                vectors[places[text]] = row
            if on_progress is not None:
                on_progress(sum(len(places[text]) for text in batch))
        return vectors

    def exceed_window(self, texts: Sequence[str]) -> list[bool]:
        """For each of `texts` [n] whether it has more tokens than the model reads at once."""
        return [length > self._room for length in self._lengths(texts)]

    def _pooled(self, text: str) -> Vectors:
        """The vector [1, d] of a text that exceeds the window."""
        parts = self._parts(text)
        pooled: Vectors = np.average(self._encode(parts), axis=0, weights=self._lengths(parts), keepdims=True)
        return pooled / np.linalg.norm(pooled)

    def _parts(self, text: str) -> list[str]:
        """Parts of `text` that fit the window, without blank ones."""
        if len(text) < 2 or not self.exceed_window([text])[0]:
            return [text] if text.strip() else []
        cut = _middle(text)
        return [*self._parts(text[:cut]), *self._parts(text[cut:])]

    def _lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without those that the model adds."""
        if not texts or math.isinf(self._room):
            return [1] * len(texts)
        options = {"add_special_tokens": False, "truncation": False, "verbose": False}
        return [len(ids) for ids in self._model.tokenizer(list(texts), **options)["input_ids"]]

    @functools.cached_property
    def _room(self) -> float:
        """Tokens of a text that the model reads, beside those that it adds and its default prompt."""
        model = self._model
        if model.max_seq_length is None or math.isinf(model.max_seq_length):
            return math.inf
        prompt = model.prompts.get(model.default_prompt_name) or ""
        added = len(model.tokenizer(prompt)["input_ids"])
        return max(1.0, float(model.max_seq_length - added))

    def _encode(self, texts: Sequence[str]) -> Vectors:
        rows: Vectors = self._model.encode(
            list(texts), batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
        ).astype(np.float32)
        return rows

    @functools.cached_property
    def _model(self) -> Any:
        if self._name.startswith(ASSET_PREFIX):
            return _load(str(asset_folder_or_file(self._name)), local=True)
        folder = Path(self._name).expanduser()
        return _load(str(folder) if folder.is_dir() else self._name, local=folder.is_dir())


def _middle(text: str) -> int:
    """Where to halve `text`: at the blank nearest to its middle, or in the middle if that is nearer to an end."""
    middle = len(text) // 2
    blanks = (found.start() for found in re.finditer(r"\s", text))
    nearest = min(blanks, key=lambda at: abs(at - middle), default=0)
    return nearest if abs(nearest - middle) < middle // 2 else middle


def _load(location: str, local: bool) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return hub.load(location, local, lambda **options: SentenceTransformer(location, **options))
    except hub.LoadError as error:
        raise ConfigError(
            f"expected a sentence-transformers model that loads, got {error} (embedder.model {location}); name a "
            "folder, a Hugging Face id that the network or the local cache has, or an asset"
        ) from error
