"""Measure inputs in the Student's tokens, if its tokenizer is already on this machine; nothing is downloaded."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pld.adapters.students.engine import weights
from pld.config.assets import ASSET_PREFIX, asset

SAMPLE = 2000
"""Inputs whose tokens are counted for the median; those that may be too long are all counted."""
_LONGEST = 64
_BATCH = 64


@dataclass(frozen=True)
class Lengths:
    """In `unit`: tokens, or words where the Student's tokenizer is not at hand. `median` and `high` (95th percentile)
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
    usual = sorted(_count(tokenizer, texts[:: max(1, -(-len(texts) // SAMPLE))]))
    by_size = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
    # a token has at least one byte
    suspects = [at for at in by_size if context is not None and len(texts[at].encode()) > context]
    counted = max(suspects, by_size[:_LONGEST], key=len)
    counts = dict(zip(counted, _count(tokenizer, [texts[at] for at in counted]), strict=True))
    median, high = (usual[max(0, math.ceil(share * len(usual)) - 1)] for share in (0.5, 0.95))
    return Lengths(
        unit="words" if tokenizer is None else "tokens",
        sampled=len(usual),
        median=median,
        high=high,
        longest=max(usual[-1], *counts.values()),
        context=context,
        too_long=tuple(at for at, count in counts.items() if context is not None and count > context),
    )


def _count(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    if tokenizer is None:
        return [len(text.split()) for text in texts]
    return [
        len(encoding)
        for start in range(0, len(texts), _BATCH)
        for encoding in tokenizer.encode_batch_fast(texts[start : start + _BATCH], add_special_tokens=False)
    ]


def _tokenizer(student: Mapping[str, Any]) -> tuple[Any, int] | None:
    """The Student's tokenizer and its context in tokens, if their files are here."""
    files = _files(student)
    if files is None:
        return None
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    try:
        settings = json.loads(files[1].read_text(encoding="utf-8"))
        context = int(settings.get("text_config", settings)["max_position_embeddings"])
        tokenizer = Tokenizer.from_file(str(files[0]))
    except Exception:  # tokenizers raises bare Exceptions
        return None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer, context


def _files(student: Mapping[str, Any]) -> tuple[Path, Path] | None:
    model, gguf_file = str(student.get("model", "")), student.get("gguf_file")
    if gguf_file is not None:
        return None
    if model.startswith(ASSET_PREFIX):
        folder = weights.converted_folder(asset(model).sha256)
    else:
        folder = Path(model).expanduser()
    files = (folder / "tokenizer.json", folder / "config.json")
    if all(file.is_file() for file in files):
        return files
    if model.startswith(ASSET_PREFIX) or model.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = [try_to_load_from_cache(model, file.name) for file in files]
    found = [Path(path) for path in cached if isinstance(path, str)]
    return (found[0], found[1]) if len(found) == 2 else None
