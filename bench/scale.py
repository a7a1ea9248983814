"""Rules at scale: `python bench/scale.py` (writes bench/results.md; `--print` does not).

Made-up rules of 40 topics (bench/made_rules.py) go through the stage `embed`, each clusterer of conf/, and the medoid
consolidation with the files of one trial, every step in a process of its own: seconds, CPU seconds, peak memory, where
the time goes, and whether the clusters are the topics. `--folder` keeps what is done: a second run goes on from there.
"""

import argparse
import contextlib
import datetime
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from made_rules import TOPICS
from report import grid, put
from scale_steps import CLUSTER, CONSOLIDATE, EMBED, STEPS, Step, write_config, write_made_rules
from worker import BenchError

DOCUMENT = Path(__file__).with_name("results.md")
SIZES = (1_000, 10_000, 100_000)
CLUSTERERS = ("umap_hdbscan", "dbscan")


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
        write_made_rules(own, size)
    names = [f"{step}:{clusterer}" for clusterer in clusterers for step in (CLUSTER, CONSOLIDATE)]
    for name in [EMBED, *names]:
        clusterer = name.partition(":")[2]
        write_config(own, clusterer, overrides)
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
