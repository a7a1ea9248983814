"""artifacts/embeddings/: one unit vector per rule, aligned by rule id."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pld.artifacts import atomic_path, read_json, write_json
from pld.errors import ArtifactError
from pld.ports import Vectors
from pld.records import Rule


def write_vectors(folder: Path, rules: Sequence[Rule], vectors: Vectors) -> None:
    """Write the embeddings [n, d] of `rules` [n] to `folder`/embeddings/."""
    with atomic_path(folder / "embeddings/vectors.npy") as temporary, temporary.open("wb") as file:
        np.save(file, vectors)
    write_json(folder / "embeddings/rule_ids.json", {"rule_ids": [rule.id for rule in rules]})


def read_vectors(folder: Path, rules: Sequence[Rule]) -> Vectors:
    """The embeddings [n, d] of `rules` [n]. Raises ArtifactError when they belong to other rules."""
    if read_json(folder / "embeddings/rule_ids.json")["rule_ids"] != [rule.id for rule in rules]:
        raise ArtifactError(
            f"expected the vectors of {folder}/rules/rules.jsonl, got others ({folder}/embeddings); run `dvc repro`"
        )
    vectors: Vectors = np.load(folder / "embeddings/vectors.npy")
    return vectors
