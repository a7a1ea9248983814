"""Embed the rules: unit vectors, aligned by rule id."""

from pathlib import Path

from pld.artifacts import read_jsonl
from pld.config.build import build
from pld.config.settings import load_config
from pld.distill.embeddings import write_vectors
from pld.params import Config
from pld.ports import Embedder
from pld.progress import progress
from pld.records import Rule

ARTIFACTS = Path("artifacts")


def run() -> None:
    compute(load_config(), ARTIFACTS)


def compute(config: Config, folder: Path) -> None:
    """Write `folder`/embeddings/ from `folder`/rules/rules.jsonl."""
    rules = read_jsonl(folder / "rules/rules.jsonl", Rule)
    embedder: Embedder = build(config.embedder, "embedder")
    with progress("embed", len(rules)) as advance:
        vectors = embedder.embed([rule.text for rule in rules], advance)  # (n, d)
    write_vectors(folder, rules, vectors)
    print(f"embed: {len(rules)} rules as vectors of {vectors.shape[1]} dimensions")
