"""How long inputs are in the Student's tokens, where its tokenizer is on this machine already: nothing is downloaded
or unpacked for it."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pld.adapters.students.engine import weights
from pld.config.assets import ASSET_PREFIX, asset
from pld.data.audit.checks import percentile

SAMPLE = 2000
"""Inputs that are counted to see what is usual; the longest are counted besides."""
COUNTED = 5000
"""So many inputs that are too long are counted; then it is said that there are more."""
_BATCH = 64


@dataclass(frozen=True)
class Lengths:
    """In `unit` (tokens, or words where the Student's tokenizer is not at hand). `sampled`: inputs whose lengths give
    `median` and `high` (the 95th per cent); `context`: the Student's (None: not known), `too_long`: positions of inputs
    that it can't hold even without a prompt, the longest first, at most `COUNTED`."""

    unit: str
    sampled: int
    median: int
    high: int
    longest: int
    context: int | None
    too_long: tuple[int, ...]


def measure(texts: Sequence[str], student: Mapping[str, Any]) -> Lengths:
    """Lengths of rendered inputs under the tokenizer of the Student of conf/."""
    found = _tokenizer(student)
    tokenizer, context = found if found is not None else (None, None)
    usual = sorted(_count(tokenizer, texts[:: max(1, -(-len(texts) // SAMPLE))]))
    too_long: list[int] = []
    longest = 0
    by_size = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
    for start in range(0, COUNTED, _BATCH):
        part = by_size[start : start + _BATCH]
        counts = _count(tokenizer, [texts[at] for at in part])
        longest = max([longest, *counts])
        over = [at for at, count in zip(part, counts, strict=True) if context is not None and count > context]
        too_long += over
        if start and not over:
            break
    return Lengths(
        unit="words" if tokenizer is None else "tokens",
        sampled=len(usual),
        median=percentile(usual, 0.5),
        high=percentile(usual, 0.95),
        longest=max(longest, usual[-1]),
        context=context,
        too_long=tuple(too_long),
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
    """The tokenizer and the context in tokens of the Student of conf/, if their files are here."""
    files = _files(student)
    if files is None:
        return None
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from tokenizers import Tokenizer

    try:
        settings = json.loads(files[1].read_text(encoding="utf-8"))
        context = int(settings.get("text_config", settings)["max_position_embeddings"])
        tokenizer = Tokenizer.from_file(str(files[0]))
    except Exception:  # tokenizers raises bare Exceptions; whether the model loads is not asked here
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
