"""Ask the Teacher to explain the training examples → rules/{rules,rejected}.jsonl, rules/summary.json."""

import sys
from pathlib import Path

from pld.adapters.teachers.factory import create_teacher, write_spending
from pld.adapters.teachers.recorded import RecordedTeacher
from pld.artifacts import read_jsonl, write_json, write_jsonl
from pld.config.settings import load_config
from pld.distill import cost_estimate
from pld.distill import extract as extraction
from pld.distill.personal_data import personal_data_check
from pld.params import Config
from pld.ports import Teacher
from pld.progress import progress
from pld.records import Example

ARTIFACTS = Path("artifacts")


def run() -> None:
    compute(load_config(), ARTIFACTS)


def compute(config: Config, folder: Path, teacher: Teacher | None = None) -> None:
    """Write `folder`/rules/ from `folder`/splits/train.jsonl. `teacher`: None for the one that `config` names."""
    examples = read_jsonl(folder / "splits/train.jsonl", Example)
    if teacher is None:
        teacher = create_teacher(config)
        ahead = cost_estimate.estimate(config, teacher, folder, ("extract",), count_tokens=False)
        print(f"extract: {cost_estimate.one_line(ahead)}", flush=True)
    personal_data = personal_data_check(config.extraction.personal_data)
    draws = config.extraction.draws
    asked = len(extraction.asked_about(config.task, examples, config.extraction))
    with progress(f"extract: training examples{f' x {draws} draws' * (draws > 1)}", asked * draws) as advance:
        rules, rejections, summary = extraction.extract(
            config.task, examples, config.extraction, teacher, config.asking.attempts, advance, personal_data
        )
    # written before the check: this is where the user looks when it fails
    write_jsonl(folder / "rules/rejected.jsonl", rejections)
    write_spending("extract", teacher, folder)
    print(f"extract: {extraction.coverage(summary)}")
    if isinstance(teacher, RecordedTeacher) and (unknown := teacher.unknown({example.id for example in examples})):
        print(
            f"extract: warning: {len(unknown):,} recorded answers are ignored, because their example_id is no training "
            f"example ({teacher.name}: {unknown[0]!r:.60} first); the ids are in {folder}/splits/train.jsonl",
            file=sys.stderr,
        )
    extraction.check_answers(summary, rejections, config.extraction)
    write_jsonl(folder / "rules/rules.jsonl", rules)
    write_json(folder / "rules/summary.json", summary)
    again = f"; {summary.retries:,} answers were asked for again" if summary.retries else ""
    print(f"extract: {summary.rules:,} rules, {summary.rejected:,} refused, {summary.doubtful:,} doubtful{again}")
    for item in summary.draws:
        print(f"extract: draw {item.draw}: {item.rules:,} rules, {item.rejected:,} refused, {item.doubtful:,} doubtful")
    for label, count in summary.rules_per_label.items():
        if not count:
            print(f"extract: warning: label {label!r} has no rule", file=sys.stderr)
