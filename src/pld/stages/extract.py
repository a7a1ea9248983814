"""extract: the Teacher over the training examples → rules/{rules,rejected}.jsonl, rules/summary.json."""

import sys
from pathlib import Path

from pld import artifacts, params
from pld.adapters.build import build
from pld.method import extraction
from pld.ports import Teacher
from pld.progress import progress
from pld.records import Example

TRAIN = Path("artifacts/splits/train.jsonl")
OUT = Path("artifacts/rules")


def run() -> None:
    config = params.load_config()
    examples = artifacts.read_jsonl(TRAIN, Example)
    teacher: Teacher = build(config.teacher, "teacher")
    with progress("extract: training examples", len(examples)) as advance:
        rules, rejections, summary = extraction.extract(config.task, examples, config.extraction, teacher, advance)
    # written before the check: this is where the user looks when it fails
    artifacts.write_jsonl(OUT / "rejected.jsonl", rejections)
    print(f"extract: {extraction.coverage(summary)}")
    extraction.check_rejections(summary, rejections, config.extraction)
    artifacts.write_jsonl(OUT / "rules.jsonl", rules)
    artifacts.write_json(OUT / "summary.json", summary)
    print(f"extract: {summary.rules:,} rules, {summary.rejected:,} refused, {summary.doubtful:,} doubtful")
    for label, count in summary.rules_per_label.items():
        if not count:
            print(f"extract: warning: label {label!r} has no rule", file=sys.stderr)
