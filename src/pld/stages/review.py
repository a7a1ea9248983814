"""Stage `review`: apply the reviewers' decisions to the loop's list and measure the result → artifacts/review/."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pld.artifacts import SHIPS, atomic_folder, read_jsonl, read_prompt, write_json, write_jsonl, write_prompt
from pld.config.settings import load_config
from pld.errors import ArtifactError, ReviewError
from pld.metrics import predictions
from pld.params import Config
from pld.ports import Student
from pld.progress import progress
from pld.records import DISTILLED, Instruction, Reviewed, prompt_sha256
from pld.resolve.ablation import ablate, ablation_part
from pld.resolve.inputs import load_inputs
from pld.resolve.lineage import with_effects
from pld.resolve.records import Descent
from pld.review.decisions import ReviewEntry, applied_entries, apply_decisions, descents_after, final_prompt
from pld.review.log import log_path, read_log

ARTIFACTS = Path("artifacts")
LEFT = Path("resolve/final")


def run() -> None:
    compute(load_config(), ARTIFACTS)


def compute(config: Config, folder: Path, student: Student | None = None) -> None:
    """Write `folder`/review/. `student`: None for the one that `config` names, loaded only if there are edits."""
    came_in = prompt_sha256(read_prompt(folder / LEFT))
    log = read_log(config.task.name)
    applied = applied_entries(log, came_in)
    if applied:
        _write_edited(config, folder, student, applied)
    else:
        with atomic_folder(folder / SHIPS) as written:
            shutil.copytree(folder / LEFT, written, dirs_exist_ok=True)
        if any(not entry.approves for entry in log):
            print(f"review: no sheet of {log_path(config.task.name)} changes prompt {came_in[:12]}: it ships unchanged")
    ships, sheets = final_prompt(applied, came_in), tuple(entry.number for entry in applied)
    write_json(folder / "review/review.json", Reviewed(came_in=came_in, ships=ships, sheets=sheets))


def _write_edited(config: Config, folder: Path, student: Student | None, applied: Sequence[ReviewEntry]) -> None:
    inputs = load_inputs(config, folder, student)
    config, scorer, validation = inputs.config, inputs.scorer, inputs.validation
    left = folder / LEFT
    instructions = read_jsonl(left / "instructions.jsonl", Instruction)
    descents = read_jsonl(left / "descent.jsonl", Descent)
    if [own.id for own in instructions] != [own.instruction_id for own in descents]:
        raise ArtifactError(
            f"expected one line per line of instructions.jsonl, got others ({left}/descent.jsonl); run `dvc repro`"
        )
    came_in = len(instructions)
    for entry in applied:
        instructions = apply_decisions(instructions, entry.decisions)
        descents = descents_after(descents, entry, instructions)
        prompt = scorer.prompt(instructions)
        if prompt.sha256 != entry.makes:
            raise ReviewError(
                f"expected prompt {entry.makes[:12]} of sheet {entry.number}, got {prompt.sha256[:12]}: rendering "
                f"settings changed since ({log_path(config.task.name)}); import a new sheet "
                "(`pld review export --unreviewed`)"
            )
    part = ablation_part(validation, config.resolution)
    ablated = len(part) * len(instructions) if config.resolution.ablation else 0
    most = len(validation) + ablated + config.calibration.examples
    with progress("review: answers", most) as advance:
        scorer.on_progress = advance
        report = scorer.report(prompt, validation)
        effects = ablate(instructions, scorer, part) if config.resolution.ablation else None
        scores, calibration = scorer.shipped_scores(prompt, validation)
    with atomic_folder(folder / SHIPS) as written:
        write_jsonl(written / "instructions.jsonl", instructions)
        write_prompt(written, prompt.messages)
        write_json(written / "calibration.json", calibration)
        write_jsonl(written / "predictions.jsonl", predictions(validation, DISTILLED, scores, config.task.labels))
        write_jsonl(written / "descent.jsonl", with_effects(descents, effects))
        if effects is not None:
            write_jsonl(written / "ablation.jsonl", effects)
    said = "; ".join(f"sheet {entry.number}: {entry.summary}" for entry in applied)
    found = report.macro_f1
    print(
        f"review: {said}; {came_in} → {len(instructions)} instructions, {report.prompt_tokens} tokens; macro-F1 on "
        f"validation {found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
    )
