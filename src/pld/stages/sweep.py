"""Search over prompts: a trial for every point of conf/sweep/, the leaderboard, and the winner."""

import csv
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pld.adapters.teachers.factory import create_teacher, write_spending
from pld.adapters.teachers.offline import OfflineTeacher
from pld.adapters.teachers.recorded import RecordedTeacher
from pld.artifacts import atomic_folder, read_jsonl, write_json, write_jsonl, write_prompt, write_text
from pld.config.build import build
from pld.config.composition import with_settings
from pld.config.settings import load_config
from pld.distill.consolidation import ask_ahead, asked_space, consolidated
from pld.distill.embeddings import read_vectors
from pld.distill.race import most_answers, part_sizes
from pld.distill.study import OptunaStudy
from pld.distill.sweep import CachedClusterer, Result, Swept, TrialRunner, draw_spread, grid, race_sweep, sweep
from pld.distill.trial import Draft, Material
from pld.params import Config, Scalar, TeacherConsolidator
from pld.ports import Clusterer, Student, Teacher
from pld.progress import progress
from pld.records import Example, Rule, canonical_json, content_id
from pld.reports import TrialReport

ARTIFACTS = Path("artifacts")


def run() -> None:
    compute(load_config(), ARTIFACTS)


def compute(config: Config, folder: Path, teacher: Teacher | None = None, student: Student | None = None) -> None:
    """Write `folder`/trials/, trials.csv and best/. `teacher`, `student`: None for those that `config` names."""
    material = read_material(folder)
    if not isinstance(config.consolidator, TeacherConsolidator):
        teacher = None
    elif teacher is None:
        teacher = create_teacher(config)
    if isinstance(teacher, OfflineTeacher):
        _ask_ahead(config, material, teacher)
    with progress("sweep", _most_answers(config, material)) as advance:
        runner = TrialRunner(
            configured=lambda settings: with_settings(config, settings),
            build_clusterer=lambda changed: build(changed.clusterer, "clusterer"),
            material=material,
            student=student or build(config.student, "student"),
            teacher=teacher,
            on_progress=advance,
        )
        if config.sweep.sampler == "race":
            swept = race_sweep(grid(config.sweep), runner, config.sweep)
        else:
            study = OptunaStudy(params=config.sweep, name=_study_name(config, material))
            swept = sweep(study, runner, config.sweep.finalists)
    _write(folder, swept)
    write_spending("sweep", teacher, folder)
    if isinstance(teacher, RecordedTeacher) and (missing := teacher.warning()):
        print(f"sweep: WARNING: {missing}")


def _ask_ahead(config: Config, material: Material, teacher: Teacher) -> None:
    clusterers: dict[str, Clusterer] = {}

    def consolidate_at(settings: Mapping[str, Scalar]) -> None:
        changed = with_settings(config, settings)
        key = canonical_json(changed.clusterer)
        if key not in clusterers:
            clusterers[key] = CachedClusterer(build(changed.clusterer, "clusterer"))
        consolidated(changed, material.rules, material.vectors, material.train, clusterers[key], teacher)

    asked = config.sweep.model_copy(update={"space": asked_space(config.sweep.space)})
    ask_ahead(grid(asked), consolidate_at)


def _most_answers(config: Config, material: Material) -> int:
    """If no two prompts are equal, no prompt is dropped early, and finalists are scored at two precisions."""
    params, points, whole = config.sweep, len(grid(config.sweep)), len(material.validation)
    if params.race is not None and params.sampler == "race":
        parts = part_sizes(whole, len(config.task.labels), params.race)
        searched = most_answers(points, parts, params.finalists, params.race)
    else:
        searched = (params.trials if params.sampler == "tpe" and params.trials else points) * whole
    return searched + min(params.finalists, points) * whole + config.calibration.examples


def read_material(folder: Path) -> Material:
    rules = read_jsonl(folder / "rules/rules.jsonl", Rule)
    train = read_jsonl(folder / "splits/train.jsonl", Example)
    return Material(
        rules=rules,
        vectors=read_vectors(folder, rules),
        train={example.id: example for example in train},
        validation=read_jsonl(folder / "splits/validation.jsonl", Example),
    )


def _study_name(config: Config, material: Material) -> str:
    """Everything that determines a trial's result, so that workers which share a storage agree."""
    settings = config.model_dump(mode="json", exclude={"budget", "prices", "sweep", "tracking", "promotion"})
    rules = [[rule.id, rule.doubtful] for rule in material.rules]
    examples = [*material.train.values(), *material.validation]
    data = rules, [example.model_dump(mode="json") for example in examples]
    return f"pld/{config.task.name}/{content_id([settings, data, config.sweep.model_dump(mode='json')['space']])}"


def _write(out: Path, swept: Swept) -> None:
    with atomic_folder(out / "trials") as folder:
        for result in swept.results:
            if result.report is None:
                write_json(
                    folder / result.trial_id / "error.json", {"settings": result.settings, "error": result.error}
                )
                continue
            _write_draft(folder / result.trial_id, swept.drafts[result.trial_id])
            write_json(folder / result.trial_id / "report.json", result.report)
            write_jsonl(folder / result.trial_id / "predictions.jsonl", result.predictions)
    write_text(out / "trials.csv", _leaderboard(swept))
    winner = swept.winner
    with atomic_folder(out / "best") as folder:
        _write_draft(folder, winner.draft)
        write_json(folder / "trial.json", winner.report)
        write_jsonl(folder / "predictions.jsonl", winner.predictions)
        write_json(folder / "calibration.json", winner.calibration)
        if spread := draw_spread(swept.results):
            write_json(folder / "draws.json", spread)
    _say(swept)


def _write_draft(folder: Path, draft: Draft) -> None:
    kept = {instruction.id: instruction for instruction in draft.instructions}
    write_jsonl(folder / "clusters.jsonl", draft.clustering.clusters)
    write_jsonl(folder / "instructions.jsonl", [kept[identity] for identity in draft.prompt.instruction_ids])
    write_prompt(folder, draft.prompt.messages)


def _leaderboard(swept: Swept) -> str:
    """CSV in the order of `swept.results`. The figures are those on the `n` validation examples that a trial answered;
    `rung`, `gap` and `se`: see `Standing`; `final_macro_f1` is a finalist's at the reporting precision, `prompt` its
    sha256: of trials that come to the same prompt one is asked, `asked` times."""
    names = sorted({name for result in swept.results for name in result.settings})
    figures = [
        "rung",
        "n",
        "macro_f1",
        "low",
        "high",
        "accuracy",
        "unparsable",
        "prompt_tokens",
        "instructions",
        "clusters",
    ]
    clustering = ["noise_share", "stability", "by_size"]
    outcome = ["gap", "se", "final_macro_f1", "asked", "prompt", "labels_without", "error"]
    columns = ["rank", "trial_id", *names, *figures, *clustering, *outcome]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    for rank, result in enumerate(swept.results, 1):
        row: dict[str, object] = {"rank": rank, "trial_id": result.trial_id, **result.settings}
        row |= {"asked": result.asked, "error": result.error}
        if result.report is not None:
            row |= _figures(result)
            row["prompt"] = swept.drafts[result.trial_id].prompt.sha256[:12]
            row["final_macro_f1"] = f"{swept.final[result.trial_id]:.4f}" if result.trial_id in swept.final else ""
        writer.writerow(row)
    return buffer.getvalue()


def _figures(result: Result) -> dict[str, object]:
    trial = result.report
    if trial is None:
        return {}
    report, standing = trial.report, trial.standing
    reached = {"rung": standing.rung, "gap": f"{standing.gap:.4f}", "se": f"{standing.se:.4f}"} if standing else {}
    return reached | {
        "n": report.n,
        "macro_f1": f"{report.macro_f1.value:.4f}",
        "low": f"{report.macro_f1.low:.4f}",
        "high": f"{report.macro_f1.high:.4f}",
        "accuracy": f"{report.accuracy.value:.4f}",
        "unparsable": report.unparsable,
        "prompt_tokens": report.prompt_tokens,
        "instructions": trial.instructions,
        "clusters": trial.clusters,
        "noise_share": f"{trial.noise_share:.4f}",
        "stability": "" if trial.stability is None else f"{trial.stability:.4f}",
        "by_size": _chosen(trial),
        "labels_without": " ".join(trial.labels_without_instruction),
    }


def _chosen(trial: TrialReport) -> str:
    return ", ".join(f"{name} {value}" for name, value in trial.by_size.items())


def _say(swept: Swept) -> None:
    winner = swept.winner.report
    figure = winner.report.macro_f1
    asked = sum(result.asked for result in swept.results)
    print(
        f"sweep: {len(swept.results)} trials, {asked:,} Student answers; {winner.trial_id} won with "
        f"macro-F1 {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] on validation, "
        f"{winner.instructions} instructions, {winner.report.prompt_tokens} tokens"
    )
    if winner.stability is not None:
        print(
            f"sweep: {winner.clusters} clusters, {winner.noise_share:.0%} noise, stability {winner.stability:.2f} "
            "(mean adjusted Rand index between the clusterer's runs)"
        )
    origins = Counter(item.origin for item in swept.winner.draft.instructions)
    print(
        "sweep: the winner's instructions: "
        + ", ".join(f"{count} {origin}" for origin, count in sorted(origins.items()))
    )
    if winner.by_size:
        print(f"sweep: chosen by the number of rules that {winner.trial_id} clusters: {_chosen(winner)}")
    if spread := draw_spread(swept.results):
        print(f"sweep: {spread}")
    bare = [result for result in swept.results if result.report and result.report.labels_without_instruction]
    for result in bare:
        print(f"sweep: WARNING: trial {result.trial_id} has no instruction for: {_figures(result)['labels_without']}")
    failed = [result for result in swept.results if result.report is None]
    for result in failed:
        print(f"sweep: WARNING: trial {result.trial_id} failed: {result.error}")
