"""The closed loop on the list that won the sweep: rounds of Edits, proven on validation → resolve/{rounds,final}/."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pld.adapters.teachers.factory import hire, write_spending
from pld.adapters.teachers.recorded import check_can_be_asked
from pld.artifacts import atomic_folder, write_json, write_jsonl, write_text
from pld.config.build import build
from pld.distill.personal_data import personal_data_check
from pld.evaluate.latency import machine
from pld.evaluate.plots import draw_pareto
from pld.params import Config, TeacherResolver, load_config
from pld.ports import Embedder, Teacher
from pld.progress import progress
from pld.resolve.ablation import pareto_csv
from pld.resolve.candidates import TOGETHER
from pld.resolve.inputs import ListGround, load_answering
from pld.resolve.loop import Round
from pld.resolve.loop_report import loop_page
from pld.resolve.proposer import Proposer
from pld.resolve.resolution import Resolution, resolve
from pld.resolve.search_proposer import SearchProposer
from pld.resolve.teacher_proposer import ROLE, TeacherProposer
from pld.resolve.view import Ground

ARTIFACTS = Path("artifacts")
FOLDER = ARTIFACTS / "resolve"


def run() -> None:
    config = load_config()
    teacher = hire(config) if isinstance(config.resolver, TeacherResolver) else None
    proposer = _proposer(config, teacher)
    timing, played_rounds = Timing(), list[Round]()
    lists = load_answering(config, ARTIFACTS)
    with progress("resolve: answers, at most", _most(lists)) as advance:
        lists.answering.on_progress = advance

        def keep(played: Round) -> None:
            played_rounds.append(played)
            timing.end_round()
            _say_round(played)

        done = resolve(ground_of(lists, proposer, timing), lists.instructions, config.resolver.kind, keep)
    with atomic_folder(FOLDER / "rounds") as folder:
        for played in played_rounds:
            _write_round(folder / f"{played.report.round:02}", played)
    _write(done, config)
    write_text(FOLDER / "report.md", loop_page(done, played_rounds))
    write_json(FOLDER / "timing.json", timing.summary())
    write_spending("resolve", teacher)
    _say(done, timing)


@dataclass
class Timing:
    """Seconds that were measured, by part, of each round and of what comes after them."""

    started: float = field(default_factory=time.perf_counter)
    rounds: list[dict[str, float]] = field(default_factory=list)
    parts: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.parts[name] = round(self.parts.get(name, 0.0) + time.perf_counter() - began, 2)

    def end_round(self) -> None:
        self.rounds.append(self.parts)
        self.parts = {}

    @property
    def total(self) -> float:
        return round(time.perf_counter() - self.started, 1)

    def summary(self) -> dict[str, object]:
        return {"machine": machine(), "seconds": self.total, "rounds": self.rounds, "after": self.parts}


def _proposer(config: Config, teacher: Teacher | None) -> Proposer:
    if teacher is None or not isinstance(config.resolver, TeacherResolver):
        return SearchProposer()
    check_can_be_asked(teacher, "groups.resolver=teacher", "groups.resolver=search", ROLE)
    personal_data = personal_data_check(config.extraction.personal_data)
    return TeacherProposer(teacher, config.resolver, config.asking.attempts, personal_data)


def ground_of(lists: ListGround, proposer: Proposer, timing: Timing) -> Ground:
    config = lists.config
    embedder: Embedder = build(config.embedder, "embedder")
    return Ground(
        answering=lists.answering,
        train=lists.train,
        validation=lists.validation,
        rules=lists.rules,
        vectors=lists.vectors,
        clusters=lists.clusters,
        noise=frozenset(lists.noise),
        proposer=proposer,
        embed=embedder.embed,
        params=config.resolution,
        max_words=config.resolver.max_words
        if isinstance(config.resolver, TeacherResolver)
        else config.extraction.max_words,
        max_copied_words=config.extraction.max_copied_words,
        personal_data=personal_data_check(config.extraction.personal_data),
        phase=timing.phase,
    )


def _most(lists: ListGround) -> int:
    """Student answers if every round is played with all candidates, and no list shares answers with another."""
    params, validation = lists.config.resolution, len(lists.validation)
    lists_a_round = 1 + len(lists.instructions)
    in_race = validation * (params.candidates + TOGETHER) / 2
    a_round = params.pool * (2 + params.proposals) + params.failures * lists_a_round + in_race + 3 * validation
    rounds = 0 if lists.config.resolver.kind == "none" else params.rounds
    return round(rounds * a_round + validation * lists_a_round)


def _write_round(folder: Path, played: Round) -> None:
    write_jsonl(folder / "pool.jsonl", played.pool)
    write_jsonl(folder / "shown.jsonl", played.shown)
    write_jsonl(folder / "blame.jsonl", played.blames)
    write_jsonl(folder / "edits.jsonl", played.edits)
    write_jsonl(folder / "instructions.jsonl", played.instructions)
    write_text(folder / "system_prompt.md", played.prompt.text)
    write_json(folder / "report.json", played.report)


def _write(done: Resolution, config: Config) -> None:
    with atomic_folder(FOLDER / "final") as folder:
        write_jsonl(folder / "instructions.jsonl", done.instructions)
        write_text(folder / "system_prompt.md", done.prompt.text)
        write_json(folder / "calibration.json", done.calibration)
        write_jsonl(folder / "predictions.jsonl", done.predictions)
        write_jsonl(folder / "descent.jsonl", done.descents)
        if done.effects is not None:
            write_jsonl(folder / "ablation.jsonl", done.effects)
    write_json(FOLDER / "report.json", done.report)
    write_text(FOLDER / "pareto.csv", pareto_csv(done.points))
    draw_pareto(FOLDER / "plots/pareto.png", done.points, f"{config.task.name}: lists of the loop, on validation")


def _say_round(played: Round) -> None:
    found = played.report
    print(
        f"resolve: round {found.round}: pool macro-F1 {found.pool.macro_f1.value:.3f} ({found.failures} of "
        f"{found.pool.n} wrong), {found.proposed} Edits, {found.refused} refused, {found.raced} raced; "
        f"{_outcome(played)}; validation macro-F1 {found.validation.macro_f1.value:.3f}, "
        f"{found.instructions} instructions, {found.validation.prompt_tokens} tokens",
        flush=True,
    )


def _outcome(played: Round) -> str:
    if played.report.trouble:
        return f"WARNING: {played.report.trouble}"
    tested = next((edit for edit in played.edits if edit.gate is not None), None)
    if tested is None:
        return "nothing met the gate"
    return f"{tested.edit.op} {tested.id} {tested.outcome}: {tested.why}"


def _say(done: Resolution, timing: Timing) -> None:
    report, gain = done.report, done.report.gain.macro_f1_delta
    for alarm in report.alarms:
        print(f"resolve: WARNING: {alarm}")
    for words in report.pruned:
        print(f"resolve: pruned {words}")
    print(
        f"resolve: ended by: {report.ended}; {report.candidates} lists tried, {len(report.accepted)} Edits accepted; "
        f"macro-F1 on validation {report.came_in.macro_f1.value:.3f} → {report.result.macro_f1.value:.3f} "
        f"({gain.signed}, chosen there); {timing.total:.0f} s"
    )
