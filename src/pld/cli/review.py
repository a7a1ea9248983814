"""`pld review`: export the instructions as a sheet for reviewers, import their decisions into a log, verify the log."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import click

from pld.artifacts import SHIPS, write_text
from pld.config.settings import load_config
from pld.distill.personal_data import personal_data_check
from pld.distill.text_checks import one_line
from pld.errors import ReviewError
from pld.params import Config
from pld.records import Instruction
from pld.review.checks import SheetRules, check_sheet
from pld.review.decisions import ReviewEntry, applied_entries, apply_decisions, final_prompt
from pld.review.inputs import LEFT_BY_THE_LOOP, ReviewedList
from pld.review.log import log_path, read_log, record
from pld.review.sheet import SheetContent, SheetFault, read_sheet, write_sheet

ARTIFACTS = Path("artifacts")


@click.group()
def review() -> None:
    """Let people review the instructions: export a sheet, fill it in, import it; decisions are kept for good.

    Decisions go to reviews/<task>.jsonl, chained by hashes. With promotion.require_review a version becomes production
    only if a sheet approves every instruction of exactly its prompt.
    """


@review.command(short_help="Write the instructions as a sheet to fill in.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: review-TASK-PROMPT.yaml.")
@click.option("--unreviewed", is_flag=True, help="Export the result of the loop, before review.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def export(out: Path | None, unreviewed: bool, force: bool) -> None:
    """Write the shipped instructions as a YAML sheet: evidence in comments, and fields to fill in.

    A sheet of the list that the loop left (--unreviewed) can undo what reviewers edited: the latest sheet on a prompt
    counts.
    """
    config = load_config()
    ships, left = _lists(config)
    found = left if unreviewed else ships or ReviewedList.read(config, ARTIFACTS, SHIPS)
    task, digest = config.task.name, found.prompt_sha256
    path = out or Path(f"review-{task}-{digest[:12]}.yaml")
    log = read_log(task)
    text = write_sheet(task, digest, tuple(_figures(found)), found.items(), log, found.turns)
    if path.exists() and not force and path.read_bytes() != text.encode():
        raise ReviewError(
            f"expected no file, or this very sheet not filled in, got another file ({path}); choose another --out, or "
            "overwrite it with --force"
        )
    write_text(path, text)
    click.echo(f"{len(found.instructions)} instructions of prompt {digest[:12]} written to {path}")
    if waiting := _waiting(log, ships, left):
        click.echo(f"note: by {log_path(task)} prompt {waiting[:12]} should ship; `dvc repro` applies them")
    click.echo(f"fill it in, then: pld review import {path}")


@review.command(name="import", short_help="Check and record a filled-in sheet.")
@click.argument("sheet", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--allow-missing-label", is_flag=True, help="Allow a label to lose its last instruction.")
@click.option("--repro", is_flag=True, help="Then run `dvc repro`, which evaluates the edited prompt.")
def import_(sheet: Path, allow_missing_label: bool, repro: bool) -> None:
    """Check SHEET and record all its decisions as one entry of reviews/<task>.jsonl, or none of them.

    Edits and rejections make another prompt, which `dvc repro` evaluates like any other.
    """
    config = load_config()
    filled = read_sheet(sheet.read_bytes())
    if isinstance(filled, list):
        _refuse(sheet, filled)
    ships, left = _lists(config)
    found = _list_of(sheet, filled.content, config, [own for own in (ships, left) if own])
    extraction = config.extraction
    rules = SheetRules(
        task=config.task,
        sources=[example.inputs for example in found.train],
        max_words=extraction.max_words,
        max_copied_words=extraction.max_copied_words,
        personal_data=personal_data_check(extraction.personal_data),
        allow_missing_label=allow_missing_label,
    )
    decisions, faults = check_sheet(filled, found.instructions, rules)
    if faults:
        _refuse(sheet, faults)
    makes = found.digest_of(apply_decisions(found.instructions, decisions))
    entry, new = record(config.task.name, found.prompt_sha256, decisions, makes)
    path = log_path(config.task.name)
    if new:
        click.echo(f"recorded as sheet {entry.number} of {path}: {entry.summary}")
        for line in _changes(entry, found.instructions):
            click.echo(line)
        click.echo(f"commit {path} with the code")
    else:
        click.echo(f"nothing new: {path} holds it as sheet {entry.number} of {entry.at}: {entry.summary}")
    if repro:
        sys.exit(subprocess.run([sys.executable, "-m", "dvc", "repro"], check=False).returncode)
    if waiting := _waiting(read_log(config.task.name), ships, left):
        click.echo(f"next: `dvc repro` evaluates prompt {waiting[:12]} like any other, by the same gates")
        if not entry.approves:
            click.echo("then, if a review is required: `pld review export` writes the sheet that approves it")
    else:
        click.echo("no evaluation needed; `pld promote` checks the gates")


@review.command(short_help="Check the log from its first line to its last.")
def verify() -> None:
    """Check that no line of reviews/<task>.jsonl was changed, moved or removed.

    Lines missing at the end are found through registered versions, which record the log's last hash at promotion.
    """
    from pld.registry.registry import review_anchors

    config = load_config()
    path, entries = log_path(config.task.name), read_log(config.task.name)
    for entry in entries:
        made = "" if entry.approves else f", makes {entry.makes[:12]}"
        click.echo(f"sheet {entry.number}, {entry.at}, prompt {entry.prompt_sha256[:12]}: {entry.summary}{made}")
    hashes = [entry.hash for entry in entries]
    anchors = review_anchors(config)
    lost = [f"{version} ({count})" for version, count, head in anchors if head not in hashes]
    if lost:
        raise ReviewError(
            "expected the sheets that registered versions were promoted with, got missing or other ones for version "
            f"(number of sheets) {', '.join(lost)} in a log of {_count(len(entries), 'sheet')} ({path}); pull or "
            "restore it"
        )
    if not entries:
        click.echo(f"{path}: no sheet imported yet; `pld review export` writes one")
        return
    people = sorted({name for entry in entries for name in entry.reviewers})
    click.echo(f"{path}: unbroken, {_count(len(entries), 'sheet')} by {', '.join(people)}, head {hashes[-1]}")
    click.echo(f"registered versions promoted with this log: {len(anchors)}")


def _lists(config: Config) -> tuple[ReviewedList | None, ReviewedList]:
    """The shipped list (None: the stage `review` failed), and the list that the loop left."""
    left = ReviewedList.read(config, ARTIFACTS, LEFT_BY_THE_LOOP)
    return ReviewedList.read(config, ARTIFACTS, SHIPS) if (ARTIFACTS / SHIPS).exists() else None, left


def _figures(found: ReviewedList) -> Iterator[str]:
    """Lines on the prompt's quality."""
    turns = f", {_count(len(found.turns), 'example turn')}" if found.turns else ""
    yield f"prompt {found.prompt_sha256}, {_count(len(found.instructions), 'instruction')}{turns}"
    validation, test = found.on_validation(), found.on_test()
    low, high = validation.macro_f1.low, validation.macro_f1.high
    yield f"macro-F1 on validation {validation.macro_f1.value:.3f} [{low:.3f}, {high:.3f}], n {validation.n}"
    if test is None:
        yield "macro-F1 on test: not measured for this prompt; `dvc repro` measures the shipped one"
        return
    for words, name in (("", test.shipped), (" of zero-shot", "zero_shot")):
        if name in test.systems:
            own = test.systems[name].macro_f1
            yield f"macro-F1 on test{words} {own.value:.3f} [{own.low:.3f}, {own.high:.3f}], n {test.n}"


def _waiting(log: Sequence[ReviewEntry], ships: ReviewedList | None, left: ReviewedList) -> str | None:
    """The hash of the prompt that should ship by the log, if another one ships."""
    due = final_prompt(applied_entries(log, left.prompt_sha256), left.prompt_sha256)
    return None if ships and due == ships.prompt_sha256 else due


def _list_of(sheet: Path, filled: SheetContent, config: Config, lists: Sequence[ReviewedList]) -> ReviewedList:
    own = next((found for found in lists if found.prompt_sha256 == filled.prompt), None)
    if own is None or filled.task != config.task.name:
        raise ReviewError(
            f"expected a sheet of task {config.task.name} about the shipped prompt "
            f"{lists[0].prompt_sha256[:12]}, got one of {filled.task!r:.60} about {filled.prompt!r:.14} "
            f"({sheet}); `pld review export` writes a new one"
        )
    return own


def _changes(entry: ReviewEntry, instructions: Sequence[Instruction]) -> Iterator[str]:
    text_of = {own.id: own.text for own in instructions}
    for decision in entry.decisions:
        if decision.verdict != "approve":
            why = f" ({one_line(decision.note)})" if decision.note else ""
            yield f"  {decision.verdict} {decision.instruction_id}{why}: {text_of[decision.instruction_id]}"
        if decision.text is not None:
            yield f"    becomes: {decision.text}"


def _refuse(sheet: Path, faults: Sequence[SheetFault]) -> NoReturn:
    lines = [fault.message(str(sheet)) for fault in sorted(faults, key=lambda fault: fault.line or sys.maxsize)]
    if len(lines) == 1:
        raise ReviewError(lines[0])
    for line in lines:
        click.echo(f"pld: {ReviewError(line)}", err=True)
    raise ReviewError(f"expected a sheet without faults, got {len(lines)} ({sheet}); fix them and import it again")


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
