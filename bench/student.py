"""Compare the Student's scoring speed with other engines on this machine: `python bench/student.py` (`make bench`).

Writes its tables into bench/results.md; a quick run prints them only.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from engines import ROOT, cores, student_section
from latency import measure_requests
from measure import METHODS, OURS, Agreement, Engines, Settings, check, engines, measure, say
from report import Section, markdown, put
from worker import BenchError
from workload import Builder

DOCUMENT = ROOT / "bench/results.md"


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from pld.errors import PldError

    try:
        _run(options, list(arguments))
    except (BenchError, PldError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    from pld.adapters.students.engine.machine import choose_device, has_bfloat16
    from pld.adapters.students.engine.weights import load_tokenizer, locate

    if (load := os.getloadavg()[0]) > 0.5:
        say(f"WARNING: expected an idle machine, got a load of {load:.1f}; multi-threaded methods suffer most")
    device = choose_device(options.device)
    dtypes = options.dtype or ["bfloat16" if has_bfloat16(device) else "float32"]
    section = student_section(options.student, "auto", device)
    builder = Builder(load_tokenizer(locate(section["model"], section["gguf_file"])))
    methods = tuple(method for method in METHODS if method == OURS or method in options.methods)
    settings = Settings(options.student, device, methods, options.examples, options.rounds, options.seed)
    agreements, sections = _measured(options, settings, builder, dtypes)
    heading = _heading(options, arguments)
    text = markdown(heading, agreements, sections)
    if options.json:
        plain = {
            "heading": heading,
            "check": [dataclasses.asdict(item) for item in agreements],
            "sections": [dataclasses.asdict(item) for item in sections],
        }
        options.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
    if options.document:
        put(options.document, "bench", text)
        say(f"wrote {options.document.name}")
    else:
        print(text)


def _measured(
    options: argparse.Namespace, settings: Settings, builder: Builder, dtypes: Sequence[str]
) -> tuple[list[Agreement], list[Section]]:
    """The check, which needs float32, and the measurements per dtype, in the order of `dtypes`."""
    agreements: list[Agreement] = []
    sections = {}
    for dtype in dict.fromkeys(["float32", *dtypes]):
        if dtype not in dtypes and not options.checked:
            continue
        with engines(settings, dtype) as running:
            if dtype == "float32" and options.checked:
                agreements = check(running, settings, builder, min(options.prompt_tokens), options.checked)
            if dtype in dtypes:
                sections[dtype] = _section(options, running, settings, builder, dtype)
    return agreements, [sections[dtype] for dtype in dtypes]


def _section(
    options: argparse.Namespace, running: Engines, settings: Settings, builder: Builder, dtype: str
) -> Section:
    tables, peak = measure(running, settings, builder, dtype, options.prompt_tokens)
    requests = []
    if options.latency_rounds:
        requests = measure_requests(
            running.ours,
            settings,
            builder,
            dtype,
            options.prompt_tokens,
            rounds=options.latency_rounds,
            per_round=options.requests,
            thoughts=options.thoughts,
        )
    return Section(dtype, peak, running.ours.call("describe"), tables, requests)


def _heading(options: argparse.Namespace, arguments: list[str]) -> str:
    from pld.evaluate.latency import machine

    names = ("torch", "transformers", "llama-cpp-python")
    versions = ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in names)])
    command = " ".join(["python bench/student.py", *arguments])
    return (
        f"{datetime.date.today().isoformat()}, `{command}`: {machine()}, {cores()} threads; Student {options.student}; "
        f"{versions}. Median (least–most) of {options.rounds} rounds in which every method has its turn; a ratio is "
        "taken in each round."
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/student.py", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--student", default="qwen2.5-coder-0.5b", help="a file of conf/student (default: %(default)s)")
    add("--device", default="auto", choices=["auto", "cpu", "cuda"])
    add("--dtype", nargs="+", choices=["bfloat16", "float32"], help="default: bfloat16 where there is hardware for it")
    add("--prompt-tokens", nargs="+", type=int, help="default: 500 2000 4600")
    add(
        "--methods", nargs="+", default=list(METHODS), choices=list(METHODS), metavar="METHOD", help="rivals to measure"
    )
    add("--examples", type=int, help="ours a round; slow methods answer a share of them (default: 64)")
    add("--rounds", type=int, help="default: 3")
    add("--latency-rounds", type=int, help="0 leaves latency out (default: 5)")
    add("--requests", type=int, help="cached requests a system and round of latency (default: 5)")
    add("--thoughts", type=int, default=100, help="tokens of the chain of thought at most (default: %(default)s)")
    add("--checked", type=int, help="inputs compared with plain forwards first; 0 leaves it out (default: 4)")
    add("--seed", type=int, default=0)
    add("--json", type=Path, metavar="FILE", help="every figure of every round")
    add("--document", type=Path, metavar="FILE", help="write into this file instead of bench/results.md")
    add("--quick", action="store_true", help="about two minutes: one prompt of 500 tokens, one round; printed only")
    options = parser.parse_args(arguments)
    usual = {
        "prompt_tokens": [500, 2000, 4600],
        "examples": 64,
        "rounds": 3,
        "latency_rounds": 5,
        "requests": 5,
        "checked": 4,
        "document": DOCUMENT,
    }
    quick = {
        "prompt_tokens": [500],
        "examples": 48,
        "rounds": 1,
        "latency_rounds": 2,
        "requests": 3,
        "checked": 4,
        "document": None,
    }
    for name, value in (quick if options.quick else usual).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
