"""Profile a scoring call by operator: `python bench/breakdown.py`. Single-threaded, so that seconds add up."""

import argparse
import datetime
import itertools
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from engines import ROOT, Ours, student_section
from report import grid, put
from workload import Builder, sentences

DOCUMENT = ROOT / "bench/results.md"
PROMPTS = (500, 2000, 4600)
EXAMPLES = 96
KIND = "4 of one token"
# operator → kind of work; all others are norms, rotary positions, sums and copies
WORK = {
    "mkldnn::_linear_pointwise": "linear layers",
    "aten::addmm": "linear layers",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
    "aten::mm": "vocabulary head",
    "aten::exp_": "vocabulary head",
    "aten::logsumexp": "vocabulary head",
}
REST = "all else"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench/breakdown.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("--student", default="qwen2.5-coder-0.5b", help="a file of conf/student (default: %(default)s)")
    parser.add_argument("--dtype", default="bfloat16", help="default: %(default)s")
    parser.add_argument("--print", action="store_true", help="print the table, write nothing")
    options = parser.parse_args(arguments)
    from pld.evaluate.latency import machine

    columns = ["of the time", *(f"{tokens:,}-token prompt" for tokens in PROMPTS)]
    found = shares(options.student, options.dtype)
    rows = [
        [name, *(f"{100 * share[name]:.0f} %" for share in found)] for name in (*dict.fromkeys(WORK.values()), REST)
    ]
    text = (
        f"{datetime.date.today().isoformat()}, `python bench/breakdown.py`: {machine()}; {options.student}, "
        f"{options.dtype}, {EXAMPLES} inputs, one thread.\n\n{grid(columns, rows)}"
    )
    if options.print:
        print(text)
    else:
        put(DOCUMENT, "breakdown", text)
    return 0


def shares(option: str, dtype: str) -> list[Counter[str]]:
    """Per prompt length, the share of each kind of work in a call of `score` with a cached prefix."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from pld.adapters.students.engine.weights import load_tokenizer, locate

    torch.set_num_threads(1)
    ours = Ours(option, dtype, "cpu")
    section = student_section(option, dtype, "cpu")
    builder = Builder(load_tokenizer(locate(section["model"], section["gguf_file"])))
    found = []
    for tokens in PROMPTS:
        job = builder.job(KIND, tokens, seed=0)
        items = builder.items(job, list(itertools.islice(sentences(seed=tokens), EXAMPLES)))
        ours.run("ours", job, items)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            ours.run("ours", job, items)
        found.append(_by_work(profiled.key_averages()))
    return found


def _by_work(operators: Any) -> Counter[str]:
    seconds: Counter[str] = Counter()
    for operator in operators:
        seconds[WORK.get(operator.key, REST)] += operator.self_cpu_time_total
    return Counter({name: taken / seconds.total() for name, taken in seconds.items()})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
