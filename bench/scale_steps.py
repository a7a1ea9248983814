"""The steps that bench/scale.py measures, each run in a process of its own on a folder with rules."""

import contextlib
import hashlib
import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from made_rules import NO_TOPIC, made_rules

ROOT = Path(__file__).parents[1]
EMBED, CLUSTER, CONSOLIDATE = "embed", "cluster", "consolidate"


@dataclass
class Step:
    """One step on `rules` rules. `base_mib`: of the process before it met the first of them, its libraries and model
    loaded; `parts`: seconds by kind of work; `found`: figures on what came out."""

    name: str
    rules: int
    seconds: float
    cpu_s: float
    base_mib: float
    peak_mib: float
    parts: dict[str, float]
    found: dict[str, Any]

    @property
    def own_mib(self) -> float:
        return max(self.peak_mib - self.base_mib, 0.0)


class Clock:
    """Seconds by kind of work."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - started

    def over(self, holder: Any, attribute: str, name: str) -> None:
        """Time every call of `holder.attribute`."""
        function = getattr(holder, attribute)

        def timed(*arguments: Any, **named: Any) -> Any:
            with self.part(name):
                return function(*arguments, **named)

        setattr(holder, attribute, timed)


def write_made_rules(folder: Path, size: int) -> None:
    from pld.artifacts import write_jsonl
    from pld.records import Rule

    made = list(made_rules(size, seed=0))
    rules = (
        Rule(
            id=hashlib.sha256(one.text.encode()).hexdigest()[:16],
            example_id=hashlib.sha256(f"example {at}".encode()).hexdigest()[:16],
            label=one.label,
            rationale=f"The example turns on what the rule names first, and nothing speaks for another label: {at}.",
            text=one.text,
            teacher="made",
            doubtful=False,
        )
        for at, one in enumerate(made)
    )
    write_jsonl(folder / "artifacts/rules/rules.jsonl", rules)
    (folder / "topics.json").write_text(json.dumps([one.topic for one in made]), encoding="utf-8")


def write_config(folder: Path, clusterer: str, overrides: Sequence[str]) -> None:
    """artifacts/config.yaml as the stage `config` makes it, with the shipped defaults."""
    from pld.config.composition import compose

    chosen = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    chosen["groups"] |= {"clusterer": clusterer} if clusterer else {}
    chosen["overrides"] = [*overrides] if clusterer else []
    (folder / "params.yaml").write_text(yaml.safe_dump(chosen), encoding="utf-8")
    config = compose(ROOT / "conf", folder / "params.yaml")
    (folder / "artifacts/config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")


def _embed(folder: Path, _: str) -> Step:
    from pld.adapters.embedders.sentence_transformers import SentenceTransformersEmbedder
    from pld.config.settings import load_config
    from pld.stages import embed

    os.chdir(folder)
    clock, build = Clock(), embed.build
    embedder = build(load_config().embedder, "embedder")
    assert isinstance(embedder, SentenceTransformersEmbedder)
    with clock.part("model"):
        embedder.embed(["a text"])
    clock.over(embedder, "embed", "vectors")
    clock.over(embed, "read_jsonl", "reading rules")
    embed.build = lambda *_: embedder  # type: ignore[assignment]
    with contextlib.redirect_stdout(sys.stderr):
        return _step(EMBED, clock, embed.run, lambda rules: {"a second": round(rules / clock.parts["vectors"], 1)})


def _cluster(folder: Path, clusterer: str) -> Step:
    from pld.artifacts import read_jsonl
    from pld.config.build import build
    from pld.config.settings import load_config
    from pld.distill.cluster import ChoosesBySize
    from pld.distill.embeddings import read_vectors
    from pld.records import Rule

    os.chdir(folder)
    clock, config = Clock(), load_config()
    built = build(config.clusterer, "clusterer")
    with clock.part("libraries"):
        _load_and_watch(clock, clusterer)
    found: dict[str, Any] = {}

    def run() -> None:
        with clock.part("reading rules and vectors"):
            rules = read_jsonl(Path("artifacts/rules/rules.jsonl"), Rule)
            vectors = read_vectors(Path("artifacts"), rules)
        with clock.part("clustering"):
            numbers = built.cluster(vectors)
        np.save(f"numbers-{clusterer}.npy", numbers)
        found["numbers"] = hashlib.sha256(numbers.tobytes()).hexdigest()[:12]
        found["by_size"] = dict(built.by_size(len(rules))) if isinstance(built, ChoosesBySize) else {}
        found.update(quality(numbers, [rule.label for rule in rules]))

    return _step(f"{CLUSTER} ({clusterer})", clock, run, lambda _: found)


def _load_and_watch(clock: Clock, clusterer: str) -> None:
    """Import what the clusterer imports, and time what it calls."""
    if clusterer == "umap_hdbscan":
        import hdbscan
        import umap.umap_ as inner

        clock.over(inner, "nearest_neighbors", "UMAP's neighbours")
        clock.over(inner, "fuzzy_simplicial_set", "UMAP's graph")
        clock.over(inner, "simplicial_set_embedding", "UMAP's layout")
        clock.over(hdbscan.HDBSCAN, "fit", "HDBSCAN")
    else:
        from pld.adapters.clusterers import dbscan

        clock.over(dbscan, "_neighbours", "counting neighbours")
        clock.over(dbscan, "_grow", "joining clusters")


def _consolidate(folder: Path, clusterer: str) -> Step:
    from pld.artifacts import read_jsonl, write_jsonl
    from pld.config.settings import load_config
    from pld.distill.cluster import chosen_rules, cluster_rules
    from pld.distill.consolidate import medoids, rule_groups, weigher
    from pld.distill.embeddings import read_vectors
    from pld.records import Rule

    os.chdir(folder)
    clock, config, found = Clock(), load_config(), {}

    def run() -> None:
        with clock.part("reading rules and vectors"):
            every = read_jsonl(Path("artifacts/rules/rules.jsonl"), Rule)
            rules, vectors = chosen_rules(every, read_vectors(Path("artifacts"), every), config.clustering)
        with clock.part("clusters, noise to the nearest"):
            answered = _Answered(np.load(f"numbers-{clusterer}.npy"))
            clustering = cluster_rules(rules, vectors, answered, config.clustering.noise)
        with clock.part("medoids"):
            weigh = weigher(rules, config.clustering)
            groups = rule_groups(clustering.clusters, rules, vectors, config.consolidator.min_share, weigh)
            instructions = medoids(groups, weigh)
        with clock.part("a trial's files"):
            write_jsonl(Path("trial/clusters.jsonl"), clustering.clusters)
            write_jsonl(Path("trial/instructions.jsonl"), instructions)
        size = sum(path.stat().st_size for path in Path("trial").iterdir())
        words = sum(len(instruction.text.split()) for instruction in instructions)
        found.update(instructions=len(instructions), words=words, files_mib=round(size / 2**20, 1))

    return _step(f"{CONSOLIDATE} ({clusterer})", clock, run, lambda _: found)


STEPS: dict[str, Callable[[Path, str], Step]] = {EMBED: _embed, CLUSTER: _cluster, CONSOLIDATE: _consolidate}


@dataclass
class _Answered:
    """A clusterer that has answered already."""

    numbers: Any

    def cluster(self, _: Any) -> Any:
        return self.numbers


def _step(name: str, clock: Clock, run: Callable[[], object], found: Callable[[int], dict[str, Any]]) -> Step:
    base = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    before, started = _cpu_s(), time.perf_counter()
    run()
    seconds, cpu_s = time.perf_counter() - started, _cpu_s() - before
    rules = len(json.loads(Path("topics.json").read_text()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Step(name, rules, seconds, cpu_s, base, peak, clock.parts, found(rules))


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def quality(numbers: Any, labels: Sequence[str]) -> dict[str, Any]:
    """`topic_purity`: of the clustered rules that have a topic, those with the most frequent one of their cluster;
    `topics`: that are the most frequent one of some cluster; `label_purity`: likewise with labels."""
    topics = json.loads(Path("topics.json").read_text())
    pairs = [(int(number), topic) for number, topic in zip(numbers, topics, strict=True) if number >= 0]
    of_topic, main = _purity([pair for pair in pairs if pair[1] != NO_TOPIC])
    of_label, _ = _purity([(int(number), label) for number, label in zip(numbers, labels, strict=True) if number >= 0])
    sizes = Counter(number for number, _ in pairs)
    return {
        "clusters": len(sizes),
        "noise": float((numbers < 0).mean()),
        "largest": max(sizes.values(), default=0) / len(topics),
        "topics": len(main),
        "topic_purity": of_topic,
        "label_purity": of_label,
    }


def _purity(pairs: Sequence[tuple[int, Any]]) -> tuple[float, set[Any]]:
    held: dict[int, Counter[Any]] = {}
    for number, name in pairs:
        held.setdefault(number, Counter())[name] += 1
    best = [own.most_common(1)[0] for own in held.values()]
    return sum(count for _, count in best) / max(len(pairs), 1), {name for name, _ in best}
