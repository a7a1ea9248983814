"""Measure inputs in the tokens of the Student and of the embedder, if their tokenizers are already on this machine;
nothing is downloaded."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pld.adapters.students.engine import weights
from pld.config.assets import ASSET_PREFIX, asset, asset_folder_or_file

SAMPLE = 2000
"""Inputs whose tokens are counted for the median; those that may be too long are all counted."""
_LONGEST = 64
_BATCH = 64


@dataclass(frozen=True)
class Lengths:
    """In `unit`: tokens, or words without the Student's tokenizer. `median` and `high` (95th percentile)
    are of `sampled` inputs; `context`: the Student's, None if unknown; `too_long`: positions of inputs longer than that
    even without a prompt, the longest text first; `window`: the embedder's in tokens, None if unknown; `exceed_window`:
    positions of inputs longer than that."""

    unit: str
    sampled: int
    median: int
    high: int
    longest: int
    context: int | None
    too_long: tuple[int, ...]
    window: int | None
    exceed_window: tuple[int, ...]


def measure(texts: Sequence[str], student: Mapping[str, Any], embedder: Mapping[str, Any]) -> Lengths:
    """Lengths of rendered inputs under the tokenizers of the Student and the embedder of conf/."""
    tokenizer, context = _students(student) or (None, None)
    pieces, window = _embedders(embedder) or (None, None)
    usual = _count(tokenizer, texts[:: max(1, -(-len(texts) // SAMPLE))])
    by_size = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
    # a token has at least one byte
    suspects = [at for at in by_size if context is not None and len(texts[at].encode()) > context]
    counted = max(suspects, by_size[:_LONGEST], key=len)
    counts = dict(zip(counted, _count(tokenizer, [texts[at] for at in counted]), strict=True))
    median, high = np.quantile(usual, (0.5, 0.95), method="inverted_cdf").tolist()
    return Lengths(
        unit="words" if tokenizer is None else "tokens",
        sampled=len(usual),
        median=median,
        high=high,
        longest=max(*usual, *counts.values()),
        context=context,
        too_long=tuple(at for at, count in counts.items() if context is not None and count > context),
        window=window,
        exceed_window=tuple(at for at, count in enumerate(_count(pieces, texts)) if window and count > window),
    )


def _count(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    if tokenizer is None:
        return [len(text.split()) for text in texts]
    batches = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
    return [len(one) for batch in batches for one in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]


def _students(student: Mapping[str, Any]) -> tuple[Any, int] | None:
    """The Student's tokenizer and its context in tokens, if their files are here."""
    if student.get("gguf_file") is not None:
        return None  # the tokenizer is in the GGUF file
    try:
        model = str(student["model"])
        converted = weights.converted_folder(asset(model).sha256) if model.startswith(ASSET_PREFIX) else Path(model)
        folder = _folder(model, converted)
        settings = _json(folder / "config.json")
        return _tokenizer(folder), int(settings.get("text_config", settings)["max_position_embeddings"])
    except Exception:  # tokenizers raises bare Exceptions
        return None


def _embedders(embedder: Mapping[str, Any]) -> tuple[Any, int] | None:
    """The embedder's tokenizer and how many tokens of a text it reads at once, if their files are here."""
    try:
        model = str(embedder["model"])
        folder = asset_folder_or_file(model) if model.startswith(ASSET_PREFIX) else _folder(model, Path(model))
        tokenizer = _tokenizer(folder)
        window = int(_json(folder / "sentence_bert_config.json")["max_seq_length"])
        return tokenizer, window - tokenizer.num_special_tokens_to_add(is_pair=False)
    except Exception:
        return None


def _folder(model: str, folder: Path) -> Path:
    """Where the files of `model` are: `folder`, or the cache of the Hugging Face hub."""
    from huggingface_hub import try_to_load_from_cache

    folder = folder.expanduser()
    if not folder.is_dir() and model.count("/") == 1:
        return Path(str(try_to_load_from_cache(model, "config.json"))).parent
    return folder


def _json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _tokenizer(folder: Path) -> Any:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
