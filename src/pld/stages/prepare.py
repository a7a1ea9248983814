"""prepare: the task's file → artifacts/splits/{train,validation,test}.jsonl, summary.json and md5.json."""

import hashlib
from pathlib import Path

from pld.artifacts import atomic_folder, write_json, write_jsonl
from pld.data.readers import read
from pld.data.splits import SplitSummary, assemble
from pld.params import load_config
from pld.progress import progress
from pld.records import SPLITS

FOLDER = Path("artifacts/splits")


def run() -> None:
    task = load_config().task
    examples, summary = assemble(task, read(task))
    with atomic_folder(FOLDER) as folder, progress("writing", len(examples)) as advance:
        for split in SPLITS:
            chosen = [example for example in examples if example.split == split]
            write_jsonl(folder / f"{split}.jsonl", chosen)
            advance(len(chosen))
        write_json(folder / "summary.json", summary)
        # as DVC records them, for whoever names the data without reading them
        write_json(folder / "md5.json", {split: _md5(folder / f"{split}.jsonl") for split in SPLITS})
    print(table(summary, task.reader.source))


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def table(summary: SplitSummary, source: str) -> str:
    """Counts per split and label as lines of text, and what a user should know of them."""
    labels = list(summary.counts["train"])
    lines = [f"{summary.task}: {summary.examples} examples from {source}"]
    lines.append(" ".join([f"{'':10}", *(f"{label:>10}" for label in labels), f"{'all':>10}"]))
    for split, counts in summary.counts.items():
        cells = [*counts.values(), sum(counts.values())]
        widths = [*(max(10, len(label)) for label in labels), 10]
        numbers = (f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append(" ".join([f"{split:10}", *numbers]))
    if summary.groups:
        lines.append(f"{summary.groups} groups, each in one split")
    if summary.merged_duplicates:
        lines.append(f"{summary.merged_duplicates} rows that repeat another's input and label: merged into the first")
    for field, count in summary.empty_fields.items():
        if count:
            lines.append(f"{count} examples have nothing in {field!r}")
    if cut := ", ".join(f"{count:,} {split}" for split, count in summary.shortened.items() if count):
        lines.append(f"examples of which a part of the text is left out, as the reader says: {cut}")
    for split in ("validation", "test"):
        for label, count in summary.counts[split].items():
            if not count:
                lines.append(f"no {split} example of {label!r}: its F1 there is 0, whatever the prompt")
    return "\n".join(lines)
