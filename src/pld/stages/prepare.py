"""Read the task's examples and split them → splits/{train,validation,test}.jsonl, summary.json and md5.json."""

import hashlib
from pathlib import Path

from pld.artifacts import atomic_folder, write_json, write_jsonl
from pld.config.settings import load_config
from pld.data.readers import read
from pld.data.splits import SplitSummary, assemble
from pld.params import Config
from pld.progress import progress
from pld.records import SPLITS

ARTIFACTS = Path("artifacts")


def run() -> None:
    compute(load_config(), ARTIFACTS)


def compute(config: Config, folder: Path) -> None:
    """Write `folder`/splits/ from the file that the task names."""
    task = config.task
    examples, summary = assemble(task, read(task))
    with atomic_folder(folder / "splits") as splits, progress("writing", len(examples)) as advance:
        for split in SPLITS:
            chosen = [example for example in examples if example.split == split]
            write_jsonl(splits / f"{split}.jsonl", chosen)
            advance(len(chosen))
        write_json(splits / "summary.json", summary)
        # as in dvc.lock: identifies the data without reading them
        write_json(splits / "md5.json", {split: _md5(splits / f"{split}.jsonl") for split in SPLITS})
    print(table(summary, task.reader.source))


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def table(summary: SplitSummary, source: str) -> str:
    """Counts per split and label as lines of text, and the summary's notes."""
    labels = list(summary.counts["train"])
    lines = [f"{summary.task}: {summary.examples} examples from {source}"]
    lines.append(" ".join([f"{'':10}", *(f"{label:>10}" for label in labels), f"{'all':>10}"]))
    for split, counts in summary.counts.items():
        cells = [*counts.values(), sum(counts.values())]
        widths = [*(max(10, len(label)) for label in labels), 10]
        numbers = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(" ".join([f"{split:10}", *numbers]))
    return "\n".join([*lines, *summary.notes()])
