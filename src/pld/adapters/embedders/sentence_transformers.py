"""Sentence vectors from a sentence-transformers model: an asset, a local folder or a Hugging Face id."""

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
        self._model_name = model
        self._batch_size = batch_size
        self._loaded: Any = None

    def embed(self, texts: Sequence[str], on_progress: OnProgress | None = None) -> Vectors:
        """`texts` [n] → [n, d] float32, rows L2-normalised; equal texts are embedded once. Raises AssetError or
        ConfigError."""
        model = self._ready()
        vectors = np.zeros((len(texts), model.get_embedding_dimension()), dtype=np.float32)
        places: dict[str, list[int]] = {}
        for at, text in enumerate(texts):
            places.setdefault(text, []).append(at)
        # texts of like length share a batch; the order depends on the texts alone, so the same list gives the same bits
        order = sorted(places, key=lambda text: (len(text), text))
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            rows = model.encode(
                batch, batch_size=self._batch_size, normalize_embeddings=True, show_progress_bar=False
            ).astype(np.float32)
            for text, row in zip(batch, rows, strict=True):
                vectors[places[text]] = row
            if on_progress is not None:
                on_progress(sum(len(places[text]) for text in batch))
        return vectors

    def _ready(self) -> Any:
        if self._loaded is None:
            if self._model_name.startswith(ASSET_PREFIX):
                self._loaded = _load(str(asset_folder_or_file(self._model_name)), local=True)
            else:
                folder = Path(self._model_name).expanduser()
                self._loaded = _load(str(folder) if folder.is_dir() else self._model_name, local=folder.is_dir())
        return self._loaded


def _load(location: str, local: bool) -> Any:
    from sentence_transformers import SentenceTransformer

    try:
        return hub.load(location, local, lambda **options: SentenceTransformer(location, **options))
    except hub.LoadError as error:
        raise ConfigError(
            f"expected a sentence-transformers model that loads, got {error} (embedder.model {location}); name a "
            "folder, a Hugging Face id that the network or the local cache has, or an asset"
        ) from error
