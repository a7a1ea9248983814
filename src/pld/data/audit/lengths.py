"""Measure inputs in the Student's tokens, if its tokenizer is already on this machine; nothing is downloaded."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pld.adapters.students.engine import weights
from pld.config.assets import ASSET_PREFIX, asset

SAMPLE = 2000
"""Inputs whose tokens are counted for the median; those that may be too long are all counted."""
_LONGEST = 64
_BATCH = 64


@dataclass(frozen=True)
class Lengths:
    """In `unit`: tokens, or words without the Student's tokenizer. `median` and `high` (95th percentile)
    are of `sampled` inputs; `context`: the Student's, None if unknown; `too_long`: positions of inputs longer than that
    even without a prompt, the longest text first."""

    unit: str
    sampled: int
    median: int
    high: int
    longest: int
    context: int | None
    too_long: tuple[int, ...]


def measure(texts: Sequence[str], student: Mapping[str, Any]) -> Lengths:
    """Lengths of rendered inputs under the tokenizer of the Student of conf/."""
    tokenizer, context = _tokenizer(student) or (None, None)
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
    )


def _count(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    if tokenizer is None:
        return [len(text.split()) for text in texts]
    batches = (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))
    return [len(one) for batch in batches for one in tokenizer.encode_batch_fast(batch, add_special_tokens=False)]


def _tokenizer(student: Mapping[str, Any]) -> tuple[Any, int] | None:
    """The Student's tokenizer and its context in tokens, if their files are here."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    try:
        tokenizer_file, config_file = _files(str(student["model"]), student.get("gguf_file"))
        settings = json.loads(config_file.read_text(encoding="utf-8"))
        context = int(settings.get("text_config", settings)["max_position_embeddings"])
        tokenizer = Tokenizer.from_file(str(tokenizer_file))
    except Exception:  # tokenizers raises bare Exceptions
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, context


def _files(model: str, gguf_file: str | None) -> tuple[Path, Path]:
    """Where the tokenizer's and the model's settings are. Raises if they can't be here."""
    from huggingface_hub import try_to_load_from_cache

    if gguf_file is not None:
        raise FileNotFoundError("the tokenizer is in the GGUF file")
    folder = (
        weights.converted_folder(asset(model).sha256) if model.startswith(ASSET_PREFIX) else Path(model).expanduser()
    )
    if not folder.is_dir() and model.count("/") == 1:
        folder = Path(str(try_to_load_from_cache(model, "config.json"))).parent
    return folder / "tokenizer.json", folder / "config.json"
