"""A project with a list to review, and people who fill in its sheets."""

import re
import shutil
from pathlib import Path

from pld.artifacts import SHIPS, write_json, write_jsonl
from pld.metrics import predictions
from pld.records import Calibration, Instruction, Reviewed, content_id, sha256
from pld.review.decisions import Decision, ReviewEntry, entry_after
from support.mails import LABELS, mails, scores
from support.two_rounds import FINAL, write_two_rounds

REFUND, DELIVERY, PRAISE = FINAL
NEW_TEXT = "If somebody wants money back, answer refund."
NEW_ID = content_id({"label": "refund", "text": NEW_TEXT}, 12)


def write_review_tree(folder: Path, size: int = 30) -> str:
    """What a run up to the stage `review` leaves under `folder`, nothing edited, with `size` validation examples; the
    hash of the prompt."""
    write_two_rounds(folder)
    validation = mails("validation", size)
    write_jsonl(folder / "splits/validation.jsonl", validation)
    final = folder / "resolve/final"
    write_jsonl(final / "predictions.jsonl", predictions(validation, "distilled", scores(validation, 0.8), LABELS))
    write_json(final / "calibration.json", Calibration(labels=LABELS, mean_log_scores=(-1.0, -1.1, -0.9), examples=9))
    shutil.copytree(final, folder / SHIPS, dirs_exist_ok=True)
    digest = sha256((final / "system_prompt.md").read_text())
    write_json(folder / "review/review.json", Reviewed(came_in=digest, ships=digest, sheets=()))
    return digest


def fill(path: Path, *rest: dict[str, str], reviewer: str = "", **everywhere: str) -> Path:
    """Fill in a sheet as a person does: `everywhere` in each entry, `rest` in the entries in order. A `text` replaces
    the old one."""
    head, *entries = path.read_text().split("- instruction: ")
    filled = [head.replace("reviewer:\n", f"reviewer: {reviewer}\n")]
    for place, entry in enumerate(entries):
        values = everywhere | (rest[place] if place < len(rest) else {})
        for name, value in values.items():
            ends = "(?=\n\n|\\Z)" if name == "text" else "$"
            pattern = rf"^    {name}:.*?{ends}"
            flags = re.MULTILINE | re.DOTALL
            entry = re.sub(pattern, lambda _, line=f"    {name}: {value}": line, entry, count=1, flags=flags)
        filled.append(entry)
    path.write_text("- instruction: ".join(filled))
    return path


def decision(own: Instruction, verdict: str = "approve", text: str | None = None, reviewer: str = "Ann") -> Decision:
    return Decision(
        instruction_id=own.id, text_sha256=sha256(own.text), verdict=verdict, text=text, note="", reviewer=reviewer
    )  # type: ignore[arg-type]


def entries(*steps: tuple[str, str]) -> list[ReviewEntry]:
    """A log in which each sheet is about a prompt and makes another (or the same) one, each named by a letter."""
    log: list[ReviewEntry] = []
    for prompt, makes in steps:
        verdict = decision(REFUND) if prompt == makes else decision(REFUND, "reject")
        last = log[-1] if log else None
        log.append(entry_after(last, "2026-01-02T03:04:05Z", "mail", sha256(prompt), [verdict], sha256(makes)))
    return log
