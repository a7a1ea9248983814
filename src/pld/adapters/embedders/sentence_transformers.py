"""Embed texts with a sentence-transformers model: an asset, a local folder or a Hugging Face id."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pld.config import hub
from pld.config.assets import ASSET_PREFIX, asset_folder_or_file
from pld.errors import ConfigError
from pld.ports import OnProgress, Vectors


class SentenceTransformersEmbedder:
    """`model` is `asset:<name>`, a local folder or a Hugging Face id; loaded on first use."""

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
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            rows = self._model.encode(
                batch, batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
            ).astype(np.float32)
            for text, row in zip(batch, rows, strict=True):
                vectors[places[text]] = row
            if on_progress is not None:
                on_progress(sum(len(places[text]) for text in batch))
        return vectors

    @functools.cached_property
    def _model(self) -> Any:
        if self._name.startswith(ASSET_PREFIX):
            return _load(str(asset_folder_or_file(self._name)), local=True)
        folder = Path(self._name).expanduser()
        return _load(str(folder) if folder.is_dir() else self._name, local=folder.is_dir())


def _load(location: str, local: bool) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return hub.load(location, local, lambda **options: SentenceTransformer(location, **options))
    except hub.LoadError as error:
        raise ConfigError(
            f"expected a sentence-transformers model that loads, got {error} (embedder.model {location}); name a "
            "folder, a Hugging Face id that the network or the local cache has, or an asset"
        ) from error
