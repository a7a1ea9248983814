"""Stage `resolve`: run the conflict loop on the list that won the sweep → artifacts/resolve/."""

import time
from functools import partial
from pathlib import Path

from pld.adapters.teachers.factory import create_teacher, write_spending
from pld.adapters.teachers.recorded import check_can_be_asked
from pld.artifacts import atomic_folder, write_json, write_jsonl, write_prompt, write_text
from pld.config.build import build
from pld.config.settings import load_config
from pld.distill.input_vectors import embed_inputs
from pld.distill.personal_data import personal_data_check
from pld.params import Config, TeacherResolver
from pld.ports import Embedder, Student, Teacher
from pld.progress import progress
from pld.resolve.ablation import pareto_csv
from pld.resolve.candidates import TOGETHER
from pld.resolve.inputs import ResolveInputs, load_inputs
from pld.resolve.loop import Round
from pld.resolve.loop_report import loop_report
from pld.resolve.proposer import Proposer
from pld.resolve.resolution import Resolution, resolve
from pld.resolve.search_proposer import SearchProposer
from pld.resolve.teacher_proposer import ROLE, TeacherProposer

ARTIFACTS = Path("artifacts")


def run() -> None:
    compute(load_config(), ARTIFACTS)


def compute(config: Config, folder: Path, teacher: Teacher | None = None, student: Student | None = None) -> None:
    """Write `folder`/resolve/. `teacher`, `student`: None for those that `config` names."""
    if not isinstance(config.resolver, TeacherResolver):
        teacher = None
    elif teacher is None:
        teacher = create_teacher(config)
    proposer = _proposer(config, teacher)
    started, rounds = time.perf_counter(), list[Round]()
    inputs = load_inputs(config, folder, student)
    embedder: Embedder = build(config.embedder, "embedder")
    with progress("resolve: answers, at most", _most_answers(inputs)) as advance:
        inputs.scorer.on_progress = advance

        def keep(played: Round) -> None:
            rounds.append(played)
            _print_round(played)

        done = resolve(inputs, proposer, partial(embed_inputs, embedder, config.task), keep)
    out = folder / "resolve"
    with atomic_folder(out / "rounds") as written:
        for played in rounds:
            _write_round(written / f"{played.report.round:02}", played)
    _write(out, done)
    write_text(out / "report.md", loop_report(done, rounds))
    write_spending("resolve", teacher, folder)
    _print_result(done, time.perf_counter() - started)


def _proposer(config: Config, teacher: Teacher | None) -> Proposer | None:
    if config.resolver.kind == "none":
        return None
    if teacher is None or not isinstance(config.resolver, TeacherResolver):
        return SearchProposer()
    check_can_be_asked(teacher, "groups.resolver=teacher", "groups.resolver=search", ROLE)
    personal_data = personal_data_check(config.extraction.personal_data)
    return TeacherProposer(teacher, config.resolver, config.asking.attempts, personal_data)


def _most_answers(inputs: ResolveInputs) -> int:
    """The Student's answers if every round tries all candidates and no two lists share an answer."""
    params, validation = inputs.config.resolution, len(inputs.validation)
    lists_a_round = 1 + len(inputs.instructions)
    in_race = validation * (params.candidates + TOGETHER) / 2
    a_round = params.pool * (2 + params.proposals) + params.failures * lists_a_round + in_race + 3 * validation
    rounds = 0 if inputs.config.resolver.kind == "none" else params.rounds
    return round(rounds * a_round + validation * lists_a_round)


def _write_round(folder: Path, played: Round) -> None:
    write_jsonl(folder / "pool.jsonl", played.pool)
    write_jsonl(folder / "shown.jsonl", played.shown)
    write_jsonl(folder / "blame.jsonl", played.blames)
    write_jsonl(folder / "edits.jsonl", played.edits)
    write_jsonl(folder / "instructions.jsonl", played.instructions)
    write_prompt(folder, played.prompt.messages)
    write_json(folder / "report.json", played.report)


def _write(out: Path, done: Resolution) -> None:
    with atomic_folder(out / "final") as folder:
        write_jsonl(folder / "instructions.jsonl", done.instructions)
        write_prompt(folder, done.prompt.messages)
        write_json(folder / "calibration.json", done.calibration)
        write_jsonl(folder / "predictions.jsonl", done.predictions)
        write_jsonl(folder / "descent.jsonl", done.descents)
        if done.effects is not None:
            write_jsonl(folder / "ablation.jsonl", done.effects)
    write_json(out / "report.json", done.report)
    write_text(out / "pareto.csv", pareto_csv(done.points))


def _print_round(played: Round) -> None:
    found = played.report
    tested = next((edit for edit in played.edits if edit.gate is not None), None)
    if found.trouble:
        outcome = f"WARNING: {found.trouble}"
    else:
        outcome = f"{tested.edit.op} {tested.id} {tested.outcome}: {tested.why}" if tested else "nothing met the gate"
    print(
        f"resolve: round {found.round}: pool macro-F1 {found.pool.macro_f1.value:.3f} ({found.failures} of "
        f"{found.pool.n} wrong), {found.proposed} Edits, {found.refused} refused, {found.raced} raced; "
        f"{outcome}; validation macro-F1 {found.validation.macro_f1.value:.3f}, "
        f"{found.instructions} instructions, {found.validation.prompt_tokens} tokens",
        flush=True,
    )


def _print_result(done: Resolution, seconds: float) -> None:
    report, gain = done.report, done.report.gain.macro_f1_delta
    for alarm in report.alarms:
        print(f"resolve: WARNING: {alarm}")
    for words in report.pruned:
        print(f"resolve: pruned {words}")
    print(
        f"resolve: ended by: {report.ended}; {report.candidates} lists tried, {len(report.accepted)} Edits accepted; "
        f"macro-F1 on validation {report.came_in.macro_f1.value:.3f} → {report.result.macro_f1.value:.3f} "
        f"({gain.signed}, chosen there); {seconds:.0f} s"
    )
