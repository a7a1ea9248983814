"""Do clusters hang on the last bits of the embeddings? `python bench/stability.py`, after `make repro` (it reads
artifacts/rules and artifacts/embeddings, and writes into bench/results.md).

Clusters the rules with the vectors as they are, with noise of 1e-7 to 1e-5 on each coordinate, and in a process that
compiles for another CPU (NUMBA_CPU_NAME=generic, ATEN_CPU_CAPABILITY=avx2): in single runs, as many as the consensus
has, and by the consensus. Rand: adjusted Rand index against the vectors as they are, noise rules in the nearest
cluster.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from report import grid, put
from sklearn.metrics import adjusted_rand_score

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "bench/results.md"
NOISE = (0.0, 1e-7, 1e-6, 1e-5)
OTHER_CPU = {"NUMBA_CPU_NAME": "generic", "ATEN_CPU_CAPABILITY": "avx2"}
HEADS = ["min_cluster_size", "method", "vectors", "clusters", "noise", "purity", "Rand, mean", "Rand, least"]


@dataclass(frozen=True)
class Case:
    """`noise` on the vectors; `other`: in a process that compiles for another CPU."""

    noise: float
    other: bool

    def __str__(self) -> str:
        return ("noise of " + f"{self.noise:.0e}".replace("e-0", "e-") if self.noise else "as they are") + (
            ", another CPU" if self.other else ""
        )


CASES = [Case(noise, other=False) for noise in NOISE] + [Case(0.0, other=True), Case(1e-6, other=True)]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/stability.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--print", action="store_true", help="print the table, write nothing")
    parser.add_argument("--artifacts", type=Path, default=ROOT / "artifacts", help="default: %(default)s")
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 12], help="min_cluster_size (default: 8 12)")
    parser.add_argument("--seeds", type=int, default=2, help="consensuses of each (default: %(default)s)")
    parser.add_argument("--cases", help=argparse.SUPPRESS)  # of the process that this one starts
    options = parser.parse_args(arguments)
    if options.cases:
        cases = [Case(*case) for case in json.loads(options.cases)]
        print(json.dumps([_found(case, options.artifacts, options.sizes, options.seeds) for case in cases]))
        return 0
    text = _table(options)
    if options.print:
        print(text)
    else:
        put(DOCUMENT, "stability", text)
    return 0


def _table(options: argparse.Namespace) -> str:
    from pld.distill.embeddings import read_vectors

    rules = _rules(options.artifacts)
    vectors, labels = read_vectors(options.artifacts, rules), [rule.label for rule in rules]
    found = dict(zip(CASES, [*_in_process(options, other=False), *_in_process(options, other=True)], strict=True))
    reference, rows = found[CASES[0]], []
    for size in map(str, options.sizes):
        for method in ("single run", "consensus"):
            wanted = [_nearest(run, vectors) for run in reference[size][method]]
            for case, own in found.items():
                runs = [_nearest(run, vectors) for run in own[size][method]]
                same = [adjusted_rand_score(one, run) for one, run in zip(wanted, runs, strict=True)]
                noise = np.mean([np.mean(np.array(run) < 0) for run in own[size][method]])
                purity = np.mean([_purity(run, labels) for run in runs])
                rand = ["–", "–"] if case is CASES[0] else [f"{np.mean(same):.2f}", f"{min(same):.2f}"]
                clusters = _span([len(set(run) - {-1}) for run in own[size][method]])
                rows.append([size, method, str(case), clusters, f"{noise:.0%}", f"{purity:.3f}", *rand])
    said = "; ".join(
        f"{size}: stability {own['stability']:.2f}, {own['seconds']:.0f} CPU s"
        for size, own in ((size, reference[str(size)]) for size in options.sizes)
    )
    return (
        f"{len(rules)} rules, {options.seeds} consensuses and their single runs. By min_cluster_size: {said} (later "
        f"sizes reuse the UMAP runs). Libraries and compilation: {reference['first']:.0f} CPU s before that.\n\n"
        + grid(HEADS, rows)
    )


def _in_process(options: argparse.Namespace, *, other: bool) -> list[dict[str, Any]]:
    cases = json.dumps([[case.noise, case.other] for case in CASES if case.other == other])
    command = [sys.executable, __file__, "--artifacts", str(options.artifacts), "--cases", cases]
    command += ["--seeds", str(options.seeds), "--sizes", *map(str, options.sizes)]
    environment = os.environ | (OTHER_CPU if other else {})
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _found(case: Case, artifacts: Path, sizes: Sequence[int], seeds: int) -> dict[str, Any]:
    """By size: the clusters of all single runs and of the consensus for each seed; its stability and CPU seconds with
    the first seed. `first`: CPU seconds for libraries and compilation."""
    from pld.config.build import build
    from pld.distill.embeddings import read_vectors

    vectors = read_vectors(artifacts, _rules(artifacts))
    option = yaml.safe_load((ROOT / "conf/clusterer/umap_hdbscan.yaml").read_text(encoding="utf-8"))
    begun = time.process_time()
    build(option | {"runs": 1}, "clusterer").cluster(vectors[:100])
    found: dict[str, Any] = {"first": time.process_time() - begun}
    if case.noise:
        vectors = vectors + np.random.default_rng(0).normal(scale=case.noise, size=vectors.shape)
        vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    for size in sizes:
        own: dict[str, Any] = {"consensus": [], "single run": []}
        for seed in range(seeds):
            clusterer = build(option | {"min_cluster_size": size, "seed": seed}, "clusterer")
            begun = time.process_time()
            own["consensus"].append(clusterer.cluster(vectors).tolist())
            own.setdefault("seconds", time.process_time() - begun)
            own.setdefault("stability", clusterer.stability(vectors))
            own["single run"] += clusterer.runs(vectors).tolist()
        found[str(size)] = own
    return found


def _rules(artifacts: Path) -> list[Any]:
    from pld.artifacts import read_jsonl
    from pld.records import Rule

    return read_jsonl(artifacts / "rules/rules.jsonl", Rule)


def _nearest(run: Sequence[int], vectors: Any) -> Any:
    from pld.distill.cluster import to_nearest

    return to_nearest(np.array(run), vectors)


def _purity(numbers: Any, labels: Sequence[str]) -> float:
    held: dict[int, Counter[str]] = {}
    for number, label in zip(numbers.tolist(), labels, strict=True):
        held.setdefault(number, Counter())[label] += 1
    return sum(own.most_common(1)[0][1] for own in held.values()) / len(labels)


def _span(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)}–{max(counts)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
