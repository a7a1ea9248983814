"""Compare the race with the full grid at the same points: `python bench/race.py TASK GROUP=OPTION ...`.

Reads splits, rules and embeddings from --artifacts. Every point answers all of validation once, into --scores (used
again when it is there), from which the grid and the races with five seeds are replayed. A seed says which examples are
in the parts. Overrides are those of params.yaml (`student=smollm2-135m`, `student.dtype=bfloat16`).
"""

import argparse
import datetime
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from engines import ROOT
from measure import say
from report import grid as table
from report import put
from worker import BenchError

DOCUMENT = ROOT / "bench/results.md"
SEEDS = range(5)
FEWER, WITHIN = 3.0, 0.01
"""Promised: so many times fewer answers, at a winner with the grid's macro-F1 on validation less at most this."""


class Recorded:
    """A Student whose log-scores are kept in a file, by prompt and input; `asked` counts what it had to answer."""

    def __init__(self, student: Any, path: Path, describe: Mapping[str, str]) -> None:
        self._student, self._path = student, path
        self._held: dict[str, list[float]] = {}
        if path.exists():
            held = json.loads(path.read_text(encoding="utf-8"))
            if held["student"] != dict(describe):
                raise BenchError(f"expected scores of {dict(describe)}, got others ({path}); delete it")
            self._held = held["scores"]
        self._describe = describe
        self.asked, self.seconds = 0, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._student, name)

    def for_search(self) -> "Recorded":
        return self

    def score(self, messages: Any, inputs: Any, labels: Any, on_progress: Any = None) -> Any:
        from pld.records import content_id, prompt_sha256

        prompt = prompt_sha256(messages)
        keys = [content_id([prompt, text]) for text in inputs]
        if new := [text for key, text in zip(keys, inputs, strict=True) if key not in self._held]:
            started = time.perf_counter()
            scores = self._student.score(messages, new, labels, on_progress)
            self.seconds += time.perf_counter() - started
            self.asked += len(new)
            missing = [key for key in keys if key not in self._held]
            self._held |= {key: row.tolist() for key, row in zip(missing, scores, strict=True)}
            self._save()  # a run that is stopped continues here
            say(f"{self.asked:,} answers in {self.seconds:,.0f} s")
        return np.array([self._held[key] for key in keys]).reshape(len(inputs), len(labels))

    def _save(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({"student": dict(self._describe), "scores": self._held}), encoding="utf-8")


@dataclass(frozen=True)
class Run:
    """One search. `macro_f1`: the winner's on all of validation, under the calibration that ships."""

    name: str
    asked: int
    winner: str
    prompt: str
    tokens: int
    macro_f1: float


class Points:
    """A study of given points, one after the other."""

    def __init__(self, points: Sequence[Any]) -> None:
        self._points = points
        self._found: list[Any] = []

    def run(self, trial: Any) -> None:
        self._found = [trial(point) for point in self._points]

    def results(self) -> list[Any]:
        return self._found


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/race.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("task", help="an option of conf/task/")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="options and settings, as in params.yaml")
    parser.add_argument("--artifacts", type=Path, default=ROOT / "artifacts", metavar="FOLDER")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="default: FOLDER/../race-scores/TASK.json")
    parser.add_argument("--print", action="store_true", help="print the table, write nothing into bench/results.md")
    options = parser.parse_args(arguments)
    from pld.errors import PldError

    try:
        text = measure(options.task, options.overrides, options.artifacts, options.scores)
        if options.print:
            print(text)
        else:
            put(DOCUMENT, f"race-{options.task}", text)
    except (BenchError, PldError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def measure(task: str, overrides: Sequence[str], artifacts: Path, scores: Path | None) -> str:
    """The runs as Markdown. Raises BenchError."""
    from pld.config.build import build
    from pld.config.composition import compose_groups, with_settings
    from pld.distill.sweep import TrialRunner, grid, race_sweep, sweep
    from pld.stages.sweep import read_material

    if not (artifacts / "embeddings").exists():
        raise BenchError(f"expected the sweep's inputs, got none ({artifacts}/embeddings); run `make repro` first")
    groups = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["groups"] | {"task": task}
    chosen = [override.partition("=") for override in overrides]
    groups |= {key: value for key, _, value in chosen if key in groups} | {"sweep": "race"}
    settings = [override for override in overrides if override.partition("=")[0] not in groups]
    config = compose_groups(ROOT / "conf", groups, settings, "bench/race.py")
    assert config.sweep.race is not None
    material, points = read_material(artifacts), grid(config.sweep)
    student = build(config.student, "student")
    recorded = Recorded(student, scores or artifacts.parent / f"race-scores/{task}.json", student.describe())
    clusterers: dict[str, Any] = {}
    teacher = None
    if groups["consolidator"] != "medoid":
        from pld.adapters.teachers.factory import create_teacher

        teacher = create_teacher(config)

    def runner() -> Any:
        made = TrialRunner(
            configured=lambda settings: with_settings(config, settings),
            build_clusterer=lambda changed: build(changed.clusterer, "clusterer"),
            material=material,
            student=recorded,
            teacher=teacher,
        )
        made._clusterers = clusterers
        return made

    def run(name: str, search: Any) -> tuple[Run, Any]:
        own = runner()
        swept = search(own)
        report = swept.winner.report
        prompt = swept.winner.draft.prompt.sha256
        found = Run(
            name,
            sum(result.asked for result in swept.results),
            report.trial_id,
            prompt,
            report.report.prompt_tokens,
            swept.final[report.trial_id],
        )
        return found, swept

    whole, swept = run("full grid", lambda own: sweep(Points(points), own, config.sweep.finalists))
    races = []
    for seed in SEEDS:
        params = config.sweep.model_copy(update={"seed": seed})
        races.append(run(f"race, seed {seed}", lambda own, params=params: race_sweep(points, own, params))[0])
    prompts = {draft.prompt.sha256 for draft in swept.drafts.values()}
    return _text(task, overrides, len(points), len(prompts), len(material.validation), whole, races)


def _text(
    task: str, overrides: Sequence[str], points: int, prompts: int, examples: int, whole: Run, races: Sequence[Run]
) -> str:
    from pld.evaluate.latency import machine

    rows = [
        [
            run.name,
            f"{run.asked:,}",
            f"{whole.asked / run.asked:.1f}",
            f"`{run.winner}`" + (" (the grid's)" if run is not whole and run.prompt == whole.prompt else ""),
            f"{run.tokens:,}",
            f"{run.macro_f1:.3f}",
            f"{run.macro_f1 - whole.macro_f1:+.3f}",
        ]
        for run in [whole, *races]
    ]
    held = sum(run.prompt == whole.prompt or run.macro_f1 >= whole.macro_f1 - WITHIN for run in races)
    fewest = min(whole.asked / run.asked for run in races)
    columns = ["search", "answers", "times fewer", "winner", "tokens", "macro-F1", "against the grid"]
    command = " ".join(["python bench/race.py", task, *overrides])
    return (
        f"{datetime.date.today().isoformat()}, `{command}`: {machine()}. {points} points, {prompts} prompts, "
        f"{examples} validation examples. At least {fewest:.1f} times fewer answers (target: {FEWER:.0f}); {held} of "
        f"{len(races)} races have the grid's winner or lose at most {WITHIN:.2f} (target: all).\n\n"
        f"{table(columns, rows)}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
