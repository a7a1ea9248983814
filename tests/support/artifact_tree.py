"""What a run of the pipeline leaves under artifacts/, small and made up, for tests of what reads it."""

import functools
import hashlib
from pathlib import Path

import numpy as np
import yaml

from pld.adapters.composition import compose
from pld.artifacts import write_json, write_jsonl, write_text
from pld.method.evaluation import indices
from pld.method.measurement import Answers, evaluation_report
from pld.method.trial import groups_of
from pld.params import Config, RecordsReader, TaskParams
from pld.records import (
    SPLITS,
    Calibration,
    Cluster,
    CostReport,
    Example,
    Instruction,
    Latency,
    LatencyReport,
    Split,
    SystemCost,
    TrainingCost,
    TrialReport,
    content_id,
    sha256,
)

PROJECT = Path(__file__).parents[2]
LABELS = ("refund", "delivery", "praise")
TASK = TaskParams(
    name="mail",
    labels=LABELS,
    fields=("text",),
    input_template="{{ text }}",
    base_instruction="What is the mail about? Answer with one word: refund, delivery or praise.",
    reader=RecordsReader(
        format="records", path="mail.csv", fields={"text": "text"}, label="label", id=None, group=None, split=None
    ),
)
_TEXTS = {
    "refund": "Please send my money for order {n} back.",
    "delivery": "My parcel number {n} has not arrived yet.",
    "praise": "I have bought {n} of these and love every one.",
}
COSTS = {
    "zero_shot": SystemCost(tokens_per_request=35, training=TrainingCost(), readable="the base instruction"),
    "few_shot": SystemCost(tokens_per_request=215, training=TrainingCost(), readable="12 examples"),
    "tfidf_logreg": SystemCost(tokens_per_request=0, training=TrainingCost(), readable="weights of 1,234 terms"),
    "distilled": SystemCost(
        tokens_per_request=75,
        training=TrainingCost(teacher_calls=349, recorded=True, student_answers=2793),
        readable="2 instructions",
    ),
}
PROMPT = "Answer with one word.\n\n- money back, {{ curly }} and all: refund\n- a parcel that is late: delivery\n"


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
) -> Config:
    """Write a whole tree: `right` is the share of test examples that the distilled prompt answers well, zero-shot
    answers four in ten. Two trials and a failed one."""
    config = (config or composed()).model_copy(update={"task": task})
    write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    splits = {split: mails(split, test_size if split == "test" else 9, groups) for split in SPLITS}
    for split, examples in splits.items():
        write_jsonl(folder / f"splits/{split}.jsonl", examples)
    write_json(folder / "splits/md5.json", {split: _md5(folder / f"splits/{split}.jsonl") for split in SPLITS})
    calibration = Calibration(labels=LABELS, mean_log_scores=(-1.0, -1.1, -0.9), examples=9)
    test = splits["test"]
    answers = {
        name: Answers(test, _scores(test, share), calibration if calibrated else None, tokens, COSTS[name])
        for name, share, tokens, calibrated in (
            ("zero_shot", 0.4, 20, True),
            ("few_shot", 0.6, 200, True),
            ("tfidf_logreg", 0.5, 0, False),
            ("distilled", right, 60, True),
        )
    }
    report, predictions = evaluation_report(config, sha256(prompt), test, answers, {"engine": "packed token trie"})
    evaluation = folder / "evaluation"
    write_json(evaluation / "groups.json", dict(zip((e.id for e in test), groups_of(test) or (), strict=False)))
    write_json(evaluation / "report.json", report)
    write_jsonl(evaluation / "predictions.jsonl", predictions)
    write_json(evaluation / "metrics.json", {"distilled": {"macro_f1": report.systems["distilled"].macro_f1.value}})
    write_text(evaluation / "plots/confusion.png", "not really a picture")
    timing = Latency(p50_ms=p95_ms / 2, p95_ms=p95_ms, prefill_ms=90.0, requests=50)
    write_json(
        evaluation / "latency.json",
        LatencyReport(
            machine="a test", systems=dict.fromkeys(report.systems, timing), training_seconds={"tfidf_logreg": 0.42}
        ),
    )
    write_json(evaluation / "costs.json", CostReport(systems={name: COSTS[name] for name in answers}))
    for number in (4, 8):
        settings = {"clusterer.min_cluster_size": number, "rendering.order": "support"}
        trial = TrialReport(
            trial_id=content_id(settings, 12),
            settings=settings,
            report=report.systems["distilled"],
            instructions=2,
            clusters=3,
            noise_share=0.25,
            labels_without_instruction=("praise",),
            cut=(),
        )
        _write_trial(folder / "trials" / trial.trial_id, trial, prompt)
    _write_trial(folder / "best", trial, prompt, report_name="trial.json")
    write_json(folder / "best/calibration.json", calibration)
    write_json(
        folder / "trials/00failed0000/error.json",
        {"settings": {"clusterer.min_cluster_size": 99}, "error": "nothing was left to ship"},
    )
    write_text(folder / "trials.csv", f"rank,trial_id\n1,{trial.trial_id}\n")
    return config


def _md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def _write_trial(folder: Path, trial: TrialReport, prompt: str, report_name: str = "report.json") -> None:
    rules = ("r1", "r2")
    instruction = Instruction(id="i1", text="money back", label="refund", rule_ids=rules, support=2, origin="medoid")
    write_jsonl(folder / "clusters.jsonl", [Cluster(id=0, rule_ids=rules, labels={"refund": 2}, noise=False)])
    write_jsonl(folder / "instructions.jsonl", [instruction])
    write_text(folder / "system_prompt.md", prompt)
    write_json(folder / report_name, trial)


def mails(split: Split, size: int, groups: bool = False) -> list[Example]:
    """Made-up mails, the labels in turn."""
    found = []
    for n in range(size):
        label = LABELS[n % len(LABELS)]
        text = _TEXTS[label].format(n=f"{split} {n}")
        group = f"customer {n // 3}" if groups else None
        found.append(Example(id=f"{split}-{n}", inputs={"text": text}, label=label, split=split, group=group))
    return found


def _scores(examples: list[Example], share: float) -> np.ndarray:
    """[n, k] scores that answer `share` of the examples well, the same ones in every call."""
    gold = indices([example.label for example in examples], LABELS)
    scores = np.full((len(examples), len(LABELS)), -3.0)
    for row, (example, label) in enumerate(zip(examples, gold, strict=True)):
        draw = int(hashlib.sha256(example.id.encode()).hexdigest()[:8], 16) / 2**32
        scores[row, label if draw < share else (label + 1) % len(LABELS)] = -0.1
    return scores
