"""extract: the Teacher over the training examples → rules/{rules,rejected}.jsonl, rules/summary.json."""

import sys
from pathlib import Path

from pld import artifacts, params
from pld.adapters.teachers.factory import hire, write_spending
from pld.distill import cost_estimate as estimating
from pld.distill import extract as extraction
from pld.distill.personal_data import personal_data_check
from pld.evaluate.teacher_forecast import forecast
from pld.progress import progress
from pld.records import Example

TRAIN = Path("artifacts/splits/train.jsonl")
OUT = Path("artifacts/rules")


def run() -> None:
    config = params.load_config()
    examples = artifacts.read_jsonl(TRAIN, Example)
    teacher = hire(config)
    ahead = forecast(config, teacher, stages=("extract",), counted=False)
    print(f"extract: {estimating.line(ahead)}", flush=True)
    personal_data = personal_data_check(config.extraction.personal_data)
    draws = config.extraction.draws
    asked = len(extraction.asked_about(config.task, examples, config.extraction))
    with progress(f"extract: training examples{f' x {draws} draws' * (draws > 1)}", asked * draws) as advance:
        rules, rejections, summary = extraction.extract(
            config.task, examples, config.extraction, teacher, config.asking.attempts, advance, personal_data
        )
    # written before the check: this is where the user looks when it fails
    artifacts.write_jsonl(OUT / "rejected.jsonl", rejections)
    write_spending("extract", teacher)
    print(f"extract: {extraction.coverage(summary)}")
    extraction.check_answers(summary, rejections, config.extraction)
    artifacts.write_jsonl(OUT / "rules.jsonl", rules)
    artifacts.write_json(OUT / "summary.json", summary)
    again = f"; {summary.retries:,} answers were asked for again" if summary.retries else ""
    print(f"extract: {summary.rules:,} rules, {summary.rejected:,} refused, {summary.doubtful:,} doubtful{again}")
    for item in summary.draws:
        print(f"extract: draw {item.draw}: {item.rules:,} rules, {item.rejected:,} refused, {item.doubtful:,} doubtful")
    for label, count in summary.rules_per_label.items():
        if not count:
            print(f"extract: warning: label {label!r} has no rule", file=sys.stderr)
