"""Rules at scale: `python bench/scale.py` (writes bench/results.md; `--print` does not).

Made-up rules of 40 topics (bench/made_rules.py) go through the stage `embed`, each clusterer of conf/, and the medoid
consolidation with the files of one trial, every step in a process of its own: seconds, CPU seconds, peak memory, where
the time goes, and whether the clusters are the topics. `--folder` keeps what is done: a second run goes on from there.
"""

import argparse
import contextlib
import datetime
import hashlib
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from made_rules import NO_TOPIC, TOPICS, made_rules
from report import grid, put
from worker import BenchError

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "bench/results.md"
SIZES = (1_000, 10_000, 100_000)
CLUSTERERS = ("umap_hdbscan", "dbscan")
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


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/scale.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of rules, with commas between")
    parser.add_argument("--clusterers", default=",".join(CLUSTERERS), help="options of conf/clusterer/, likewise")
    parser.add_argument("--override", action="append", default=[], help="as in params.yaml: clusterer.eps=0.3, ...")
    parser.add_argument("--folder", type=Path, help="keeps rules, vectors and figures (default: a temporary one)")
    parser.add_argument("--again", action="store_true", help="cluster twice, in two processes, and compare")
    parser.add_argument("--print", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    sizes, clusterers = [int(size) for size in options.sizes.split(",")], options.clusterers.split(",")
    if options.step:
        name, _, clusterer = options.step.partition(":")
        print(json.dumps(asdict(STEPS[name](options.folder, clusterer))))
        return 0
    try:
        with contextlib.ExitStack() as stack:
            folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            steps = [
                step for size in sizes for step in _measured(folder, size, clusterers, options.override, options.again)
            ]
        text = _text(steps, options.override)
        if options.print:
            print(text)
        else:
            put(DOCUMENT, "rules", text)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _measured(
    folder: Path, size: int, clusterers: Sequence[str], overrides: Sequence[str], again: bool
) -> Iterator[Step]:
    own = folder / str(size)
    if not (own / "topics.json").exists():
        _make(own, size)
    names = [f"{step}:{clusterer}" for clusterer in clusterers for step in (CLUSTER, CONSOLIDATE)]
    for name in [EMBED, *names]:
        clusterer = name.partition(":")[2]
        _compose(own, clusterer, overrides)
        step = _run(own, name, kept=True)
        if again and name.startswith(CLUSTER):
            other = _run(own, name, kept=False)
            if other.found["numbers"] != step.found["numbers"]:
                raise BenchError(f"expected the same clusters in a second process, got others ({name}, {size} rules)")
            step.found["again"] = "the same"
        yield step


def _run(folder: Path, name: str, kept: bool) -> Step:
    """The step in a process of its own, or what is kept of it."""
    done = folder / f"{name.replace(':', '-')}.json"
    if not (kept and done.exists()):
        print(f"bench: {folder.name} rules: {name}", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, f"--folder={folder}", f"--step={name}"]
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if ran.returncode != 0:
            raise BenchError(f"{name}, {folder.name} rules: its process ended with code {ran.returncode}")
        answer = ran.stdout.splitlines()[-1]
        if not kept:
            return Step(**json.loads(answer))
        done.write_text(answer, encoding="utf-8")
    return Step(**json.loads(done.read_text(encoding="utf-8")))


def _make(folder: Path, size: int) -> None:
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


def _compose(folder: Path, clusterer: str, overrides: Sequence[str]) -> None:
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
        found.update(_quality(numbers, [rule.label for rule in rules]))

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


def _quality(numbers: Any, labels: Sequence[str]) -> dict[str, Any]:
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


def _text(steps: Sequence[Step], overrides: Sequence[str]) -> str:
    from pld.evaluate.latency import machine

    threads = os.environ.get("OMP_NUM_THREADS")
    said = [f"{datetime.date.today().isoformat()}, `python bench/scale.py`: {machine()}"]
    said += [f"OMP_NUM_THREADS={threads}"] if threads else []
    said += [f"with {', '.join(overrides)}"] if overrides else []
    tables = [_times(steps), _growth(steps), _parts(steps), _qualities(steps)]
    return "\n\n".join([f"{', '.join(said)}.", *(table for table in tables if table)])


def _times(steps: Sequence[Step]) -> str:
    rows = [
        [
            f"{step.rules:,}",
            step.name,
            _seconds(step.seconds),
            _seconds(step.cpu_s),
            f"{step.peak_mib:,.0f}",
            f"{step.own_mib:,.0f}",
        ]
        for step in steps
    ]
    columns = ["rules", "step", "seconds", "CPU seconds", "peak memory, MiB", "of that for the rules"]
    return grid(columns, rows)


def _growth(steps: Sequence[Step]) -> str:
    """Each step's time and memory over those of the size before."""
    rows = []
    for name in dict.fromkeys(step.name for step in steps):
        own = [step for step in steps if step.name == name]
        for less, more in itertools.pairwise(own):
            rows.append(
                [
                    name,
                    f"{less.rules:,} → {more.rules:,}",
                    f"{more.rules / less.rules:.0f}",
                    f"{more.cpu_s / less.cpu_s:.1f}" if less.cpu_s >= 1 else "–",
                    f"{more.own_mib / less.own_mib:.1f}" if less.own_mib >= 10 else "–",
                ]
            )
    if not rows:
        return ""
    columns = ["step", "rules", "times as many", "times the CPU seconds", "times the memory for the rules"]
    return grid(columns, rows)


def _parts(steps: Sequence[Step]) -> str:
    rows = []
    for step in steps:
        parts = sorted(step.parts.items(), key=lambda part: -part[1])
        told = ", ".join(f"{name} {_seconds(taken)} s" for name, taken in parts if taken >= 0.005)
        rows.append([f"{step.rules:,}", step.name, told])
    return grid(["rules", "step", "where the time goes (a part may hold others)"], rows)


def _qualities(steps: Sequence[Step]) -> str:
    rows = []
    lists = {(step.rules, step.name.partition(" ")[2]): step.found for step in steps if "instructions" in step.found}
    for step in steps:
        if "clusters" not in step.found:
            continue
        found, which = step.found, step.name.partition(" ")[2]
        made = lists[step.rules, which]
        chosen = ", ".join(f"{name} {value}" for name, value in found["by_size"].items()) or "as configured"
        rows.append(
            [
                f"{step.rules:,}",
                which.strip("()"),
                chosen,
                f"{found['clusters']:,}",
                f"{100 * found['noise']:.1f} %",
                f"{100 * found['largest']:.0f} %",
                f"{found['topics']} of {len(TOPICS)}",
                f"{100 * found['topic_purity']:.1f} %",
                f"{100 * found['label_purity']:.1f} %",
                f"{made['instructions']:,} of {made['words']:,} words",
            ]
        )
    columns = ["rules", "clusterer", "chosen by size", "clusters", "noise", "the largest holds", "topics found"]
    return grid([*columns, "topic purity", "label purity", "instructions"], rows)


def _seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
