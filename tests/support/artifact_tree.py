"""What a run of the pipeline leaves under artifacts/, small and made up, for tests of what reads it."""

import functools
import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import yaml

from pld.artifacts import SHIPS, write_json, write_jsonl, write_text
from pld.config.composition import compose
from pld.distill.trial import groups_of
from pld.evaluate.latency import report_sha256
from pld.evaluate.measure import Answers, evaluation_report
from pld.params import Config, TaskParams
from pld.records import (
    SPLITS,
    TEACHER_STAGES,
    Calibration,
    Cluster,
    CostReport,
    Latency,
    LatencyReport,
    Reviewed,
    RoleSpending,
    Spending,
    SystemCost,
    TrainingCost,
    TrialReport,
    content_id,
    sha256,
)
from support.mails import LABELS, TASK, mails, scores
from support.resolve_tree import ADDED, CLUSTERED, KEPT, PROMPT, write_resolution

PROJECT = Path(__file__).parents[2]
COSTS = {
    "zero_shot": SystemCost(tokens_per_request=35, training=TrainingCost(), readable="the base instruction"),
    "few_shot": SystemCost(tokens_per_request=215, training=TrainingCost(), readable="12 examples"),
    "tfidf_logreg": SystemCost(tokens_per_request=0, training=TrainingCost(), readable="weights of 1,234 terms"),
    "clustered": SystemCost(
        tokens_per_request=70,
        training=TrainingCost(teacher_calls=349, recorded=True, student_answers=2793),
        readable="1 instruction",
    ),
    "distilled": SystemCost(
        tokens_per_request=75,
        training=TrainingCost(teacher_calls=349, recorded=True, student_answers=3100),
        readable="2 instructions",
    ),
}


@functools.cache
def composed() -> Config:
    """The project's own conf/ with the small Student and the made-up task."""
    config = compose(PROJECT / "conf", PROJECT / "params.yaml")
    student = yaml.safe_load((PROJECT / "conf/student/smollm2-135m.yaml").read_text())
    evaluation = config.evaluation.model_copy(update={"resamples": 200})
    return config.model_copy(update={"task": TASK, "student": student, "evaluation": evaluation})


def write_artifacts(
    folder: Path,
    config: Config | None = None,
    prompt: str = PROMPT,
    right: float = 0.9,
    test_size: int = 60,
    p95_ms: float = 20.0,
    groups: bool = False,
    task: TaskParams = TASK,
    clustered: str = CLUSTERED,
    gained: float = 0.1,
    spending: Mapping[str, tuple[RoleSpending, ...]] = MappingProxyType({}),
) -> Config:
    """Write a whole tree: `right` is the share of test examples that `prompt`, which ships, answers well, zero-shot
    answers four in ten. Two trials and a failed one; one round of the loop, of which it is `gained` on test over the
    `clustered` prompt (none with the resolver `none`: `prompt` is then what came in, too). `spending`: of the stages
    that asked the Teacher."""
    config = (config or composed()).model_copy(update={"task": task})
    if config.resolver.kind == "none":
        clustered, gained = prompt, 0.0
    write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    splits = {split: mails(split, test_size if split == "test" else 9, groups) for split in SPLITS}
    for split, examples in splits.items():
        write_jsonl(folder / f"splits/{split}.jsonl", examples)
    write_json(folder / "splits/md5.json", {split: _md5(folder / f"splits/{split}.jsonl") for split in SPLITS})
    calibration = Calibration(labels=LABELS, mean_log_scores=(-1.0, -1.1, -0.9), examples=9)
    test = splits["test"]
    answers = {
        name: Answers(test, scores(test, share), calibration if calibrated else None, tokens, COSTS[name])
        for name, share, tokens, calibrated in (
            ("zero_shot", 0.4, 20, True),
            ("few_shot", 0.6, 200, True),
            ("tfidf_logreg", 0.5, 0, False),
            ("clustered", right - gained, 55, True),
            ("distilled", right, 60, True),
        )
    }
    resolution = write_resolution(folder / "resolve", config, prompt, calibration)
    shutil.copytree(folder / "resolve/final", folder / SHIPS, dirs_exist_ok=True)
    write_json(folder / "review/review.json", Reviewed(came_in=sha256(prompt), ships=sha256(prompt), sheets=()))
    report, rows = evaluation_report(config, sha256(prompt), test, answers, {"engine": "packed token trie"}, resolution)
    evaluation = folder / "evaluation"
    write_json(evaluation / "groups.json", dict(zip((e.id for e in test), groups_of(test) or (), strict=False)))
    write_json(evaluation / "report.json", report)
    write_jsonl(evaluation / "predictions.jsonl", rows)
    write_json(evaluation / "metrics.json", {"distilled": {"macro_f1": report.systems["distilled"].macro_f1.value}})
    write_text(evaluation / "plots/confusion.png", "not really a picture")
    timing = Latency(p50_ms=p95_ms / 2, p95_ms=p95_ms, prefill_ms=90.0, requests=50)
    write_json(
        evaluation / "latency.json",
        LatencyReport(
            machine="a test",
            report_sha256=report_sha256(folder),
            systems=dict.fromkeys(report.systems, timing),
            training_seconds={"tfidf_logreg": 0.42},
        ),
    )
    write_json(evaluation / "costs.json", CostReport(systems={name: COSTS[name] for name in answers}))
    for number in (4, 8):
        settings = {"clusterer.min_cluster_size": number, "rendering.order": "support"}
        trial = TrialReport(
            trial_id=content_id(settings, 12),
            settings=settings,
            report=report.systems["clustered"],
            instructions=1,
            clusters=3,
            noise_share=0.25,
            labels_without_instruction=("delivery", "praise"),
            cut=(),
        )
        _write_trial(folder / "trials" / trial.trial_id, trial, clustered)
    _write_trial(folder / "best", trial, clustered, report_name="trial.json")
    write_json(folder / "best/calibration.json", calibration)
    write_json(
        folder / "trials/00failed0000/error.json",
        {"settings": {"clusterer.min_cluster_size": 99}, "error": "nothing was left to ship"},
    )
    for stage in TEACHER_STAGES:
        write_json(folder / f"spending/{stage}.json", Spending(stage=stage, roles=spending.get(stage, ())))
    write_text(folder / "trials.csv", f"rank,trial_id\n1,{trial.trial_id}\n")
    return config


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def _write_trial(folder: Path, trial: TrialReport, prompt: str, report_name: str = "report.json") -> None:
    clusters = [
        Cluster(id=0, rule_ids=KEPT.rule_ids, labels={"refund": 2}, noise=False),
        Cluster(id=1, rule_ids=ADDED.rule_ids, labels={"delivery": 1}, noise=False),
    ]
    write_jsonl(folder / "clusters.jsonl", clusters)
    write_jsonl(folder / "instructions.jsonl", [KEPT])
    write_text(folder / "system_prompt.md", prompt)
    write_json(folder / report_name, trial)
