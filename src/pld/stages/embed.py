"""Rules → unit vectors, aligned by rule id."""

from pathlib import Path

import numpy as np

from pld.artifacts import atomic_path, read_jsonl, write_json
from pld.config.build import build
from pld.params import load_config
from pld.ports import Embedder
from pld.progress import progress
from pld.records import Rule

FOLDER = Path("artifacts/embeddings")


def run() -> None:
    config = load_config()
    rules = read_jsonl(Path("artifacts/rules/rules.jsonl"), Rule)
    embedder: Embedder = build(config.embedder, "embedder")
    with progress("embed", len(rules)) as advance:
        vectors = embedder.embed([rule.text for rule in rules], advance)  # (n, d)
    with atomic_path(FOLDER / "vectors.npy") as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    write_json(FOLDER / "rule_ids.json", {"rule_ids": [rule.id for rule in rules]})
    print(f"embed: {len(rules)} rules as vectors of {vectors.shape[1]} dimensions")
