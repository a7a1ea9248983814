"""`pld review`: the instructions as a sheet for people to decide on, and their decisions, kept in a log."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import click

from pld.artifacts import SHIPS, write_text
from pld.distill.personal_data import personal_data_check
from pld.distill.text_checks import one_line
from pld.errors import ReviewError
from pld.params import Config, load_config
from pld.records import Instruction
from pld.review.checks import SheetFault, SheetRules, judged
from pld.review.decisions import Decision, ReviewEntry, edited, ends_with, in_turn
from pld.review.inputs import LEFT_BY_THE_LOOP, ReviewedList
from pld.review.log import log_path, read_log, record
from pld.review.sheet import ENDINGS, Format, Sheet, SheetHead, read_sheet, write_sheet

ARTIFACTS = Path("artifacts")


@click.group()
def review() -> None:
    """People's decisions about the instructions: a sheet to fill in, taken back, checked, and kept for good.

    Decisions stand in reviews/<task>.jsonl, chained by hashes. With promotion.require_review a version becomes
    production only if a sheet approves all instructions of exactly its prompt.
    """


@review.command(short_help="Write the instructions as a sheet to fill in.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: review-TASK-PROMPT.md.")
@click.option("--format", "kind", type=click.Choice(["markdown", "yaml"]), help="Default: by the ending of --out.")
@click.option("--unreviewed", is_flag=True, help="The list that the loop left, before reviewers edited it.")
@click.option("--force", is_flag=True, help="Write over a sheet that was filled in.")
def export(out: Path | None, kind: Format | None, unreviewed: bool, force: bool) -> None:
    """Write the instructions that ship now as a sheet, each with its evidence and the fields to fill in.

    A sheet of the list that the loop left (--unreviewed) takes back what reviewers edited: of all sheets about a
    prompt the latest counts.
    """
    config = load_config()
    ships, left = _lists(config)
    found = left if unreviewed else ships or ReviewedList.read(config, ARTIFACTS, SHIPS)
    task, digest = config.task.name, found.prompt_sha256
    if out is not None and kind not in (None, _kind_of(out)):
        raise click.UsageError(f"wanted an --out that ends as --format {kind} does, found {out}")
    kind = kind or (_kind_of(out) if out else "markdown")
    path = out or Path(f"review-{task}-{digest[:12]}{ENDINGS[kind]}")
    if path.exists() and not force:
        _check_untouched(path, found.instructions)
    log = read_log(task)
    write_text(path, write_sheet(SheetHead(task, digest, tuple(_figures(found))), found.evidence(), log, kind))
    click.echo(f"{len(found.instructions)} instructions of prompt {digest[:12]} written to {path}")
    if wanted := _waits(log, ships, left):
        click.echo(f"note: by the sheets in {log_path(task)} prompt {wanted[:12]} is to ship; `dvc repro` applies them")
    click.echo(f"fill it in, then: pld review import {path}")


@review.command(name="import", short_help="Take a filled-in sheet back: check and record it.")
@click.argument("sheet", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--allow-missing-label", is_flag=True, help="Let a label lose its last instruction.")
@click.option("--repro", is_flag=True, help="Run `dvc repro` right away, which evaluates what the sheet makes.")
def import_(sheet: Path, allow_missing_label: bool, repro: bool) -> None:
    """Check SHEET and record its decisions as one entry of reviews/<task>.jsonl: all of them, or none.

    Edits and rejections make another prompt, which `dvc repro` evaluates like any other.
    """
    config = load_config()
    filled = read_sheet(sheet.read_bytes(), _kind_of(sheet))
    if filled.faults:
        _refuse(sheet, filled.faults)
    ships, left = _lists(config)
    found = _list_of(sheet, filled, config, [own for own in (ships, left) if own])
    extraction = config.extraction
    rules = SheetRules(
        task=config.task,
        sources=[example.inputs for example in found.train],
        max_words=extraction.max_words,
        max_copied_words=extraction.max_copied_words,
        personal_data=personal_data_check(extraction.personal_data),
        allow_missing_label=allow_missing_label,
    )
    decisions, faults = judged(filled.blocks, found.instructions, filled.reviewer, rules)
    if faults:
        _refuse(sheet, faults)
    makes = found.digest_of(edited(found.instructions, decisions))
    entry, new = record(config.task.name, found.prompt_sha256, decisions, makes)
    path = log_path(config.task.name)
    if new:
        click.echo(f"recorded as sheet {entry.number} of {path}: {entry.summary}")
        for line in _decided(entry, found.instructions):
            click.echo(line)
        click.echo(f"commit {path} with the code")
    else:
        click.echo(f"nothing new: {path} holds it as sheet {entry.number} of {entry.at}: {entry.summary}")
    if repro:
        sys.exit(subprocess.run([sys.executable, "-m", "dvc", "repro"], check=False).returncode)
    if wanted := _waits(read_log(config.task.name), ships, left):
        click.echo(f"next: `dvc repro` evaluates prompt {wanted[:12]} like any other, by the same gates")
        if not entry.approves:
            click.echo("then, where a review is asked for: `pld review export` writes the sheet that approves it")
    else:
        click.echo("nothing is to be evaluated again; `pld promote` looks at the gates")


@review.command(short_help="Check the log from its first line to its last.")
def verify() -> None:
    """Check that every line of reviews/<task>.jsonl is as it was written, in its place, and that none is gone.

    That the end was cut off shows only from outside: registered versions remember the log that promoted them.
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
            f"{path}: wanted the sheets that versions of the registry were promoted with, found them gone or exchanged "
            f"for version (its sheets) {', '.join(lost)}; the log has {_count(len(entries), 'sheet')}: pull it, or "
            "take it back as it was"
        )
    if not entries:
        click.echo(f"{path}: no sheet was imported yet; `pld review export` writes one")
        return
    people = sorted({name for entry in entries for name in entry.reviewers})
    click.echo(f"{path}: unbroken, {_count(len(entries), 'sheet')} by {', '.join(people)}, head {hashes[-1]}")
    click.echo(f"versions of the registry that were promoted with it, and find it as it was: {len(anchors)}")


def _lists(config: Config) -> tuple[ReviewedList | None, ReviewedList]:
    """What ships now (None: the stage `review` failed), and what the loop left."""
    left = ReviewedList.read(config, ARTIFACTS, LEFT_BY_THE_LOOP)
    return ReviewedList.read(config, ARTIFACTS, SHIPS) if (ARTIFACTS / SHIPS).exists() else None, left


def _kind_of(path: Path) -> Format:
    return "yaml" if path.suffix.casefold() in (".yaml", ".yml") else "markdown"


def _check_untouched(path: Path, instructions: Sequence[Instruction]) -> None:
    held = read_sheet(path.read_bytes(), _kind_of(path))
    if held.holds_decisions({own.id: one_line(own.text) for own in instructions}):
        raise ReviewError(
            f"{path}: wanted no file, or a sheet of this prompt that nobody filled in, found another; name another "
            "--out, or write over it with --force"
        )


def _figures(found: ReviewedList) -> Iterator[str]:
    """What the prompt reaches, in lines."""
    yield f"prompt {found.prompt_sha256}, {_count(len(found.instructions), 'instruction')}"
    validation, test = found.on_validation(), found.on_test()
    low, high = validation.macro_f1.low, validation.macro_f1.high
    yield f"macro-F1 on validation {validation.macro_f1.value:.3f} [{low:.3f}, {high:.3f}], n {validation.n}"
    if test is None:
        yield "macro-F1 on test: not measured for this prompt; dvc repro measures what ships"
        return
    for words, name in (("", test.shipped), (" of zero-shot", "zero_shot")):
        if name in test.systems:
            own = test.systems[name].macro_f1
            yield f"macro-F1 on test{words} {own.value:.3f} [{own.low:.3f}, {own.high:.3f}], n {test.n}"


def _waits(log: Sequence[ReviewEntry], ships: ReviewedList | None, left: ReviewedList) -> str | None:
    """The hash of the prompt that is to ship by the log, where it is not the one that ships."""
    wanted = ends_with(in_turn(log, left.prompt_sha256), left.prompt_sha256)
    return None if ships and wanted == ships.prompt_sha256 else wanted


def _list_of(sheet: Path, filled: Sheet, config: Config, lists: Sequence[ReviewedList]) -> ReviewedList:
    """The one of `lists` that the sheet is about."""
    own = next((found for found in lists if found.prompt_sha256 == filled.prompt_sha256), None)
    if own is None or filled.task != config.task.name:
        raise ReviewError(
            f"{sheet}: wanted a sheet of task {config.task.name} about the prompt that ships "
            f"({lists[0].prompt_sha256[:12]}), found one of {filled.task!r:.60} about {filled.prompt_sha256!r:.14}; "
            "`pld review export` writes a new one"
        )
    return own


def _decided(entry: ReviewEntry, instructions: Sequence[Instruction]) -> Iterator[str]:
    """What changes, in lines."""
    text_of = {own.id: own.text for own in instructions}

    def why(decision: Decision) -> str:
        return f" ({one_line(decision.note)})" if decision.note else ""

    for decision in entry.decisions:
        if decision.verdict != "approve":
            yield f"  {decision.verdict} {decision.instruction_id}{why(decision)}: {text_of[decision.instruction_id]}"
        if decision.text is not None:
            yield f"    becomes: {decision.text}"


def _refuse(sheet: Path, faults: Sequence[SheetFault]) -> NoReturn:
    """One line for each fault; nothing was written."""
    lines = [
        f"{sheet}{f':{fault.line}' if fault.line else ''}: {fault.where}: {fault.words}"
        for fault in sorted(faults, key=lambda fault: fault.line or sys.maxsize)
    ]
    if len(lines) == 1:
        raise ReviewError(lines[0])
    for line in lines:
        click.echo(f"pld: {ReviewError(line)}", err=True)
    raise ReviewError(f"{sheet}: {len(lines)} faults, nothing was recorded; mend them, then import it again")


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
