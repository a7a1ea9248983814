"""All that the stage `report` reads, made up: what `artifact_tree` writes, and rules with embeddings beside it."""

from pathlib import Path

import numpy as np
import yaml

from pld.artifacts import SHIPS, read_record, write_json, write_jsonl, write_text
from pld.config.composition import with_settings
from pld.data.splits import SplitSummary
from pld.distill.extract import ExtractionSummary
from pld.evaluate.latency import report_sha256
from pld.evaluate.measure import Answers, evaluation_report
from pld.params import Config
from pld.records import (
    SPLITS,
    Calibration,
    Cluster,
    CostReport,
    Example,
    Instruction,
    Interval,
    Latency,
    LatencyReport,
    Reviewed,
    Rule,
    TrialReport,
    sha256,
)
from pld.resolve.ablation import FrontPoint, pareto, pareto_csv
from pld.resolve.records import Descent, Effect, Step
from support.artifact_tree import COSTS, composed, write_artifacts
from support.mails import LABELS
from support.resolve_tree import CLUSTERED, PROMPT, resolution_report

TEST_TEXT = "the text of a test example"
HOSTILE = '</script><script>window.broken = 1</script><img src="https://example.org/x.png" onerror="window.broken = 2">'

_REWORDED = Step(
    round=0, edit_id="sheet 2", op="revise", proposer="Ada", reason="reads better", from_id="before", verdict="decided"
)


def write_report_tree(
    folder: Path,
    *,
    labels: tuple[str, ...] = LABELS,
    rules: int = 36,
    instructions: int = 3,
    resolver: str = "search",
    timed: bool = True,
    ablated: bool = True,
    clusterer: str = "umap_hdbscan",
    reviewed: bool = False,
) -> Config:
    """`rules` in clusters by label, all of them hostile; `instructions` rest on them in turn. Two trials, `timed`
    or not; the loop's files have no lists without a `resolver`. `reviewed`: a reviewer reworded the first."""
    config = _config(resolver, clusterer)
    config = write_artifacts(folder, config)
    made = _rules(labels, rules)
    ships = [_instruction(place, labels, made, instructions) for place in range(instructions)]
    write_jsonl(folder / "rules/rules.jsonl", made)
    summary = ExtractionSummary(
        teacher="recorded:mail.jsonl",
        examples=rules + 4,
        answered=rules,
        recorded=True,
        rules=rules,
        rejected=0,
        doubtful=1,
        rules_per_label={label: sum(rule.label == label for rule in made) for label in labels},
        rejected_by_reason={},
        usage={},
        not_asked=7,
    )
    write_json(folder / "rules/summary.json", summary)
    (folder / "embeddings").mkdir(exist_ok=True)
    np.save(folder / "embeddings/vectors.npy", _vectors(labels, made))
    write_json(folder / "embeddings/rule_ids.json", {"rule_ids": [rule.id for rule in made]})
    write_jsonl(folder / "best/clusters.jsonl", _clusters(labels, made))
    counts = {split: dict.fromkeys(labels, 3) for split in SPLITS}
    splits = SplitSummary(
        task="mail",
        rows=90,
        examples=89,
        merged_duplicates=1,
        groups=0,
        counts=counts,
        empty_fields={},
        shortened={"train": 0, "validation": 1, "test": 2},
    )
    write_json(folder / "splits/summary.json", splits)
    winner = read_record(folder / "best/trial.json", TrialReport)
    chosen: dict[str, object] = {"by_size": {"min_cluster_size": 500, "init": "pca"}}
    if clusterer == "dbscan":
        chosen["settings"] = {"rendering.order": "support"}
    write_json(folder / "best/trial.json", winner.model_copy(update=chosen))
    _write_final(folder, ships, ablated, reviewed)
    _write_evaluation(folder, config, labels, timed)
    points = [
        FrontPoint(what=what, prompt_sha256=what, tokens=tokens, macro_f1=value, low=value - 0.1, high=value + 0.1)
        for what, tokens, value in (("what the loop left", 60, 0.8), ("what came in", 55, 0.6), ("without i0", 40, 0.5))
    ]
    write_text(folder / "resolve/pareto.csv", pareto_csv(pareto(points if resolver != "none" else [])))
    return config


def _config(resolver: str, clusterer: str) -> Config:
    base = composed()
    kinds = {"search": {"kind": "search"}, "none": {"kind": "none"}}
    clusterers = {
        "umap_hdbscan": with_settings(base, {"clusterer.min_cluster_size": 4}).clusterer,
        "dbscan": {
            "_target_": "pld.adapters.clusterers.dbscan.DbscanClusterer",
            "eps": 0.4,
            "min_samples": 2,
            "grow_from": None,
        },
    }
    plain = base.model_dump(mode="python") | {"resolver": kinds[resolver], "clusterer": clusterers[clusterer]}
    return Config.model_validate(plain)


def _rules(labels: tuple[str, ...], number: int) -> list[Rule]:
    return [
        Rule(
            id=f"rule-{n}",
            example_id=f"train-{n}",
            label=labels[n % len(labels)],
            rationale="It says so.",
            text=f"As in {n}, answer {labels[n % len(labels)]}. {HOSTILE}",
            teacher="t",
            doubtful=n == 1,
        )
        for n in range(number)
    ]


def _vectors(labels: tuple[str, ...], rules: list[Rule]) -> np.ndarray:
    """Around one axis for each label."""
    noise = np.random.default_rng(0).normal(scale=0.15, size=(len(rules), 16))
    rows = np.eye(16)[[labels.index(rule.label) for rule in rules]] + noise
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _clusters(labels: tuple[str, ...], rules: list[Rule]) -> list[Cluster]:
    held = [[rule.id for rule in rules if rule.label == label] for label in labels]
    return [
        Cluster(id=place, rule_ids=tuple(ids), labels={label: len(ids)}, noise=False)
        for place, (label, ids) in enumerate(zip(labels, held, strict=True))
        if ids
    ]


def _instruction(place: int, labels: tuple[str, ...], rules: list[Rule], of: int) -> Instruction:
    own = rules[place:-1:of] or rules[:1]  # the last one stands behind none
    return Instruction(
        id=f"i{place}",
        text=f"{HOSTILE} as told in {place}" if place == 1 else f"If it is told as in {place}, answer so.",
        label=labels[place % len(labels)],
        rule_ids=tuple(rule.id for rule in own),
        support=len(own),
        origin="medoid",
    )


def _write_final(folder: Path, ships: list[Instruction], ablated: bool, reviewed: bool) -> None:
    left = [ships[0].model_copy(update={"id": "before", "text": "As the loop left it."}), *ships[1:]]
    write_jsonl(folder / "resolve/final/instructions.jsonl", left if reviewed else ships)
    write_jsonl(folder / SHIPS / "instructions.jsonl", ships)
    descents = [
        Descent(
            instruction_id=own.id,
            label=own.label,
            text=own.text,
            origin=own.origin,
            example_ids=tuple(f"train-{rule_id}" for rule_id in own.rule_ids),
            rule_ids=own.rule_ids,
            cluster_ids=(0,),
            edits=(_REWORDED,) if reviewed and place == 0 else (),
            fixed=None,
            broken=None,
        )
        for place, own in enumerate(ships)
    ]
    write_jsonl(folder / SHIPS / "descent.jsonl", descents)
    (folder / SHIPS / "ablation.jsonl").unlink(missing_ok=True)
    if ablated:
        write_jsonl(folder / SHIPS / "ablation.jsonl", [_effect(place, own) for place, own in enumerate(ships)])
    if reviewed:
        write_json(folder / "review/review.json", Reviewed(came_in=sha256("x"), ships=sha256(PROMPT), sheets=(1, 2)))


def _effect(place: int, own: Instruction) -> Effect:
    value = 0.1 - 0.08 * place
    return Effect(
        instruction_id=own.id,
        label=own.label,
        macro_f1=Interval(value=value, low=value - 0.05, high=value + 0.05),
        per_label={own.label: value},
        tokens=8,
        fixed=tuple(f"validation-{n}" for n in range(70)),
        broken=("validation-99",),
    )


def _write_evaluation(folder: Path, config: Config, labels: tuple[str, ...], timed: bool) -> None:
    task = config.task.model_copy(update={"labels": labels})
    test = [
        Example(id=f"test-{n}", inputs={"text": TEST_TEXT}, label=labels[n % len(labels)], split="test")
        for n in range(60)
    ]
    calibration = Calibration(labels=labels, mean_log_scores=(-1.0,) * len(labels), examples=9)
    answers = {
        name: Answers(test, _scores(test, labels, share), calibration, tokens, COSTS[name])
        for name, share, tokens in (
            ("zero_shot", 0.3, 20),
            ("few_shot", 0.7, 200),
            ("tfidf_logreg", 1.0, 0),
            ("clustered", 0.6, 55),
            ("distilled", 0.7, 60),
        )
    }
    resolution = (
        resolution_report(config) if config.resolver.kind != "none" else resolution_report(config, 0, 0, gain=0.0)
    )
    changed = config.model_copy(update={"task": task})
    report, rows = evaluation_report(
        changed, sha256(PROMPT), test, answers, {"engine": "packed token trie"}, resolution
    )
    write_json(folder / "evaluation/report.json", report)
    write_jsonl(folder / "evaluation/predictions.jsonl", rows)
    write_json(folder / "evaluation/costs.json", CostReport(systems={name: COSTS[name] for name in answers}))
    for name in ("resolve/final", str(SHIPS)):
        write_text(folder / name / "system_prompt.md", PROMPT)
    write_text(folder / "best/system_prompt.md", CLUSTERED)
    timing = Latency(p50_ms=10, p95_ms=20, prefill_ms=90, requests=50)
    trials = sorted(path.parent.name for path in (folder / "trials").glob("*/report.json"))
    latency = LatencyReport(
        machine="a test",
        systems=dict.fromkeys(report.systems, timing),
        training_seconds={"tfidf_logreg": 0.42},
        report_sha256=report_sha256(folder),
        trials={trial: timing.model_copy(update={"p50_ms": 10.0 + place}) for place, trial in enumerate(trials)}
        if timed
        else {},
    )
    write_json(folder / "evaluation/latency.json", latency)
    write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def _scores(test: list[Example], labels: tuple[str, ...], share: float) -> np.ndarray:
    """`share` of the answers are right."""
    found = np.full((len(test), len(labels)), -3.0)
    for row, example in enumerate(test):
        gold = labels.index(example.label)
        found[row, gold if (row * 37 % 60) / 60 < share else (gold + 1) % len(labels)] = -0.1
    return found
