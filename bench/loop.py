"""Can the conflict loop be trusted? `python bench/loop.py`, after `make repro` (it reads artifacts/, train and
validation alone, and writes into bench/results.md).

1. The default settings, round by round, and the same with failures drawn at random, for three seeds.
2. A control: the labels of validation permuted, ten times. What is accepted there is chance.
3. A planted instruction that sends a whole label astray: is it blamed first, and how soon is it gone?
"""

import argparse
import datetime
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from report import grid, put

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "bench/results.md"
RANDOM_SEEDS = 3
PERMUTATIONS = 10


@dataclass(frozen=True)
class Run:
    done: Any
    rounds: list[Any]
    seconds: float
    blame_seconds: float


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/loop.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--print", action="store_true", help="print the tables, write nothing")
    parser.add_argument("--only", choices=("rounds", "control", "planted"), help="one of the three")
    options = parser.parse_args(arguments)
    from pld.errors import PldError

    try:
        for name, make in (("rounds", _rounds), ("control", _control), ("planted", _planted)):
            if options.only in (None, name):
                text = make(_inputs())
                if options.print:
                    print(text, flush=True)
                else:
                    put(DOCUMENT, name, text)
    except PldError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _inputs() -> Any:
    """The stage's own inputs from the present artifacts, with a Student that has answered nothing yet."""
    from pld.config.settings import load_config
    from pld.resolve.inputs import load_inputs

    return load_inputs(load_config(), ROOT / "artifacts")


def _play(inputs: Any, **changes: Any) -> Run:
    from pld.config.build import build
    from pld.resolve import loop
    from pld.resolve.resolution import resolve
    from pld.resolve.search_proposer import SearchProposer

    seconds, blame = [0.0], loop.blame

    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        found = blame(*arguments)
        seconds[0] += time.perf_counter() - began
        return found

    rounds: list[Any] = []
    params = inputs.config.resolution.model_copy(update={"ablation": False, "pruning": "none", **changes})
    config = inputs.config.model_copy(update={"resolution": params})
    started, loop.blame = time.perf_counter(), timed
    try:
        embed = build(config.embedder, "embedder").embed
        done = resolve(replace(inputs, config=config), SearchProposer(), embed, rounds.append)
    finally:
        loop.blame = blame
    return Run(done, rounds, time.perf_counter() - started, seconds[0])


def _rounds(inputs: Any) -> str:
    covering = _play(inputs)
    blamed = covering.blame_seconds
    a_round = blamed / len(covering.rounds)
    rows = [["covering", *row] for row in _of_rounds(covering)]
    ends = [["covering", *_end(covering)]]
    for seed in range(RANDOM_SEEDS):
        drawn = _play(inputs, sampler="random", seed=seed)
        rows += [[f"random, seed {seed}", *row] for row in _of_rounds(drawn)]
        ends.append([f"random, seed {seed}", *_end(drawn)])
    round_head = [
        *("failures", "round", "pool macro-F1", "wrong", "lists raced", "best one: gain", "probability (required)"),
        *("accepted", "validation macro-F1", "tokens"),
    ]
    end_head = ["failures", "rounds", "lists tried", "Edits accepted", "validation before", "after", "gain [95 %]"]
    return "\n\n".join(
        [
            f"{_stamp('rounds')} The covering run took {covering.seconds:,.0f} s without the ablation. Blame by "
            f"leave-one-out is {blamed / covering.seconds:.0%} of it: {a_round:.1f} s per round.",
            grid(round_head, rows),
            grid(end_head, ends),
        ]
    )


def _of_rounds(run: Run) -> list[list[str]]:
    rows = []
    for played in run.rounds:
        report, gate = played.report, next((edit.gate for edit in played.edits if edit.gate), None)
        rows.append(
            [
                str(report.round),
                f"{report.pool.macro_f1.value:.3f}",
                f"{report.failures} of {report.pool.n}",
                str(report.raced),
                f"{gate.gain.value:+.3f}" if gate else "–",
                f"{gate.probability:.3f} ({gate.wanted_probability:.3f})" if gate else "–",
                ", ".join(edit.edit.op for edit in played.edits if edit.outcome == "accepted") or "none",
                f"{report.validation.macro_f1.value:.3f}",
                str(report.validation.prompt_tokens),
            ]
        )
    return rows


def _end(run: Run) -> list[str]:
    report = run.done.report
    gain = report.gain.macro_f1_delta
    return [
        str(len(report.rounds)),
        str(report.candidates),
        str(len(report.accepted)),
        f"{report.came_in.macro_f1.value:.3f}",
        f"{report.result.macro_f1.value:.3f}",
        gain.signed,
    ]


def _control(inputs: Any) -> str:
    rows, accepted, gates = [], 0, 0
    for seed in range(PERMUTATIONS):
        labels = np.random.default_rng(seed).permutation([example.label for example in inputs.validation])
        permuted = [
            example.model_copy(update={"label": str(label)})
            for example, label in zip(inputs.validation, labels, strict=True)
        ]
        run = _play(replace(inputs, validation=permuted))
        report = run.done.report
        met = [edit.gate for played in run.rounds for edit in played.edits if edit.gate]
        best = {gate.probability for gate in met}
        accepted += bool(report.accepted)
        gates += len(run.rounds)
        rows.append([str(seed), *_end(run), ", ".join(f"{found:.3f}" for found in sorted(best))])
    head = ["seed", "rounds", "lists tried", "Edits accepted", "before", "after", "gain [95 %]", "probabilities seen"]
    asked = inputs.config.resolution.gate.min_confidence
    return (
        f"{_stamp('control')} The labels of validation permuted with {PERMUTATIONS} seeds: in {accepted} of them an "
        f"Edit was accepted, over {gates} rounds; min_confidence {asked:g} allows {1 - asked:.0%} of the rounds, "
        f"{gates * (1 - asked):.1f} of these.\n\n{grid(head, rows)}"
    )


def _planted(inputs: Any) -> str:
    from pld.distill.consolidate import RuleGroup, make_instruction
    from pld.resolve.selection import apply_gate

    came_in, params, task = inputs.instructions, inputs.config.resolution, inputs.config.task
    rows = []
    for label, wrong, place, position in (
        (*task.labels[:2], "first", 0),
        (*task.labels[1::-1], "last", len(came_in)),
        (*task.labels[:-3:-1], "last", len(came_in)),
    ):
        text = f"If the sentence has anything to do with {label}, answer {wrong}, not {label}."
        planted = make_instruction(text, RuleGroup(-1, wrong, ()), "planted")
        listed = [*came_in[:position], planted, *came_in[position:]]
        run = _play(replace(inputs, instructions=listed), rounds=2, patience=1)
        before, after = (inputs.scorer.prompt(found) for found in (listed, came_in))
        removed = apply_gate(after, before, 1, inputs.scorer, inputs.validation, params.gate, params.seed)
        first = max(run.rounds[0].blames, key=lambda blame: blame.rise)
        rise = next(blame.rise for blame in run.rounds[0].blames if blame.instruction_id == planted.id)
        left = [played.report.round for played in run.rounds
                if planted.id not in {item.id for item in played.instructions}]  # fmt: skip
        report = run.done.report
        rows.append(
            [
                f"{label} to {wrong}, {place}",
                f"{report.came_in.macro_f1.value:.3f}",
                f"{removed.gain.signed}, {removed.probability:.3f}",
                f"{min(removed.recall_change, key=lambda own: removed.recall_change[own])} "
                f"{min(removed.recall_change.values()):+.3f}",
                "yes" if first.instruction_id == planted.id else "no",
                f"{rise:+.2f}",
                f"round {left[0]}" if left else "no",
                f"{report.result.macro_f1.value:.3f}",
            ]
        )
    clean = inputs.scorer.report(inputs.scorer.prompt(came_in), inputs.validation).macro_f1.value
    head = [
        "planted",
        "macro-F1 with it",
        "gain without it, probability",
        "recall that it costs",
        "blamed first",
        "nats gained without it",
        "gone or reworded",
        "at the end",
    ]
    return (
        f"{_stamp('planted')} Without a planted instruction the list has macro-F1 {clean:.3f} on validation.\n\n"
        f"{grid(head, rows)}"
    )


def _stamp(only: str) -> str:
    from pld.evaluate.latency import machine

    return f"{datetime.date.today().isoformat()}, `python bench/loop.py --only {only}`: {machine()}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
