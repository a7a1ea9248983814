"""The one builder of artifacts/: writes what a small, made-up run of the pipeline leaves, all files of one run."""

import functools
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import yaml

from pld.artifacts import SHIPS, write_json, write_jsonl, write_prompt, write_text
from pld.config.composition import compose, with_settings
from pld.data.splits import SplitSummary
from pld.distill.embeddings import write_vectors
from pld.distill.extract import ExtractionSummary
from pld.distill.render import exemplars_of, frame_system_prompt, prompt_messages
from pld.distill.trial import groups_of
from pld.evaluate.latency import report_sha256
from pld.evaluate.measure import Answers, evaluation_report
from pld.metrics import choose, compare, indices, predictions, system_report
from pld.params import Config
from pld.records import (
    SPLITS,
    Calibration,
    Example,
    Instruction,
    Message,
    Messages,
    Reviewed,
    content_id,
    prompt_sha256,
)
from pld.reports import (
    TEACHER_STAGES,
    CostReport,
    Interval,
    Latency,
    LatencyReport,
    RoleSpending,
    Spending,
    SystemCost,
    SystemReport,
    TrainingCost,
    TrialReport,
)
from pld.resolve.ablation import FrontPoint, pareto, pareto_csv
from pld.resolve.lineage import descents
from pld.resolve.records import Blame, ResolutionReport, RoundReport, ShownExample
from pld.task_params import TaskParams
from support.mails import LABELS, TASK, mails, scores
from support.stories import MAIL, Story

PROJECT = Path(__file__).parents[2]


def _cost(tokens: int, readable: str, answers: int = 0, labels: int = 0, calibrated: int | None = None) -> SystemCost:
    """`answers`: of the Student while the prompt was distilled; `labels` that the system used, and `calibrated`."""
    spent = TrainingCost(teacher_calls=349, recorded=True, student_answers=answers) if answers else TrainingCost()
    return SystemCost(
        tokens_per_request=tokens,
        training=spent,
        readable=readable,
        labels_used=labels,
        labels_used_calibrated=calibrated,
    )


COSTS = {
    "zero_shot": _cost(35, "the base instruction", calibrated=200),
    "few_shot": _cost(215, "12 examples", labels=12, calibrated=209),
    "tfidf_logreg": _cost(0, "weights of 1,234 terms", labels=50),
    "clustered": _cost(70, "1 instruction", 2793, 349, 549),
    "distilled": _cost(75, "2 instructions", 3100, 349, 549),
}


@functools.cache
def composed() -> Config:
    """The project's own conf/ with the small Student and the made-up task, uncalibrated, instructions ablated."""
    config = compose(PROJECT / "conf", PROJECT / "params.yaml")
    student = yaml.safe_load((PROJECT / "conf/student/smollm2-135m.yaml").read_text())
    evaluation = config.evaluation.model_copy(update={"resamples": 200})
    calibration = config.calibration.model_copy(update={"method": "none"})
    resolution = config.resolution.model_copy(update={"ablation": True})
    changed = {"evaluation": evaluation, "calibration": calibration, "resolution": resolution}
    return config.model_copy(update={"task": TASK, "student": student, **changed})


def write_artifacts(
    folder: Path,
    config: Config | None = None,
    story: Story = MAIL,
    *,
    prompt: str | None = None,
    turns: Sequence[Message] = (),
    right: float = 0.9,
    gained: float = 0.1,
    rival: float = 0.5,
    test_size: int = 60,
    groups: bool = False,
    task: TaskParams = TASK,
    engine: str = "packed token trie",
    p95_ms: float = 20.0,
    timed: bool = False,
    ablated: bool = True,
    spending: Mapping[str, tuple[RoleSpending, ...]] = MappingProxyType({}),
) -> Config:
    """Write a whole tree. `prompt` ships instead of the story's, with example `turns`; `right`: share of test
    examples that it answers well, `gained` of them thanks to the loop (none with the resolver `none`: then the prompt
    is what came in, too); zero-shot answers four in ten, logistic regression `rival`. `engine`: the Student's;
    `timed`: so are the trials; without `ablated` as with resolution.ablation false; `spending`: of the stages that
    asked the Teacher."""
    config = (config or composed()).model_copy(update={"task": task.model_copy(update={"labels": story.labels})})
    looped = config.resolver.kind != "none"
    if not looped:
        story, gained = replace(story, rounds=()), 0.0
    splits = _write_data(folder, config, story, test_size, groups)
    rendered = _rendered(config, story, story.came_in), _rendered(config, story, story.final)
    came_in, ships = (prompt_messages(text) for text in story.prompts) if story.prompts else rendered
    ships = (*(prompt_messages(prompt) if prompt else ships), *turns)
    came_in = came_in if looped else ships
    bias = tuple((1.0, 1.1, 0.9)[n % 3] for n in range(len(story.labels)))
    method = config.calibration.method if config.calibration.method != "none" else "affine"
    calibration = Calibration(method=method, labels=story.labels, scale=1.0, bias=bias, examples=9)
    _write_sweep(folder, config, story, came_in, calibration)
    resolution = _write_resolution(folder / "resolve", config, story, ships, calibration, ablated)
    shutil.rmtree(folder / SHIPS, ignore_errors=True)
    shutil.copytree(folder / "resolve/final", folder / SHIPS)
    write_json(
        folder / "review/review.json", Reviewed(came_in=prompt_sha256(ships), ships=prompt_sha256(ships), sheets=())
    )
    if story.evaluated:
        test = splits["test"]
        answers = {
            name: Answers(test, scores(test, share, story.labels), calibration if tokens else None, tokens, COSTS[name])
            for name, share, tokens in (
                ("zero_shot", 0.4, 20),
                ("few_shot", 0.6, 200),
                ("tfidf_logreg", rival, 0),
                ("clustered", right - gained, 55),
                ("distilled", right, 60),
            )
        }
        report, rows = evaluation_report(config, prompt_sha256(ships), test, answers, {"engine": engine}, resolution)
        evaluation = folder / "evaluation"
        write_json(evaluation / "groups.json", dict(zip((e.id for e in test), groups_of(test) or (), strict=False)))
        write_json(evaluation / "report.json", report)
        write_jsonl(evaluation / "predictions.jsonl", rows)
        write_json(evaluation / "metrics.json", {"distilled": {"macro_f1": report.systems["distilled"].macro_f1.value}})
        write_text(evaluation / "plots/confusion.png", "not really a picture")
        prompts = {"clustered": came_in, "distilled": ships}
        asked = {name: [own.model_dump() for own in messages] for name, messages in prompts.items()}
        write_json(evaluation / "prompts.json", asked)
        timing = Latency(p50_ms=p95_ms / 2, p95_ms=p95_ms, prefill_ms=90.0, requests=50)
        trials = [_trial_id(settings) for settings in story.trials] if timed else []
        latency = LatencyReport(
            machine="a test",
            report_sha256=report_sha256(folder),
            systems=dict.fromkeys(report.systems, timing),
            trials={trial: timing.model_copy(update={"p50_ms": 10.0 + n}) for n, trial in enumerate(trials)},
            training_seconds={"tfidf_logreg": 0.42},
        )
        write_json(evaluation / "latency.json", latency)
        write_json(evaluation / "costs.json", CostReport(systems={name: COSTS[name] for name in answers}))
    for stage in TEACHER_STAGES:
        write_json(folder / f"spending/{stage}.json", Spending(stage=stage, roles=spending.get(stage, ())))
    return config


def _write_data(folder: Path, config: Config, story: Story, test_size: int, groups: bool) -> dict[str, list[Example]]:
    """config.yaml, splits/, rules/ and embeddings/; the examples by split."""
    write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    sizes = {"train": story.train, "validation": story.validation, "test": test_size}
    splits = {split: mails(split, sizes[split], groups, story.labels) for split in SPLITS}
    digests = {}
    for split, examples in splits.items():
        path = folder / f"splits/{split}.jsonl"
        write_jsonl(path, examples)
        digests[split] = hashlib.md5(path.read_bytes()).hexdigest()
    write_json(folder / "splits/md5.json", digests)
    summary = SplitSummary(
        task="mail",
        rows=90,
        examples=89,
        merged_duplicates=1,
        groups=0,
        counts={split: dict.fromkeys(story.labels, 3) for split in SPLITS},
        empty_fields={},
        shortened={"train": 0, "validation": 1, "test": 2},
    )
    write_json(folder / "splits/summary.json", summary)
    rules = list(story.rules)
    write_jsonl(folder / "rules/rules.jsonl", rules)
    write_jsonl(folder / "rules/rejected.jsonl", story.rejected)
    extraction = ExtractionSummary(
        teacher="recorded:mail.jsonl",
        examples=len(rules) + 4,
        answered=len(rules),
        recorded=True,
        rules=len(rules),
        rejected=0,
        doubtful=1,
        rules_per_label={label: sum(rule.label == label for rule in rules) for label in story.labels},
        rejected_by_reason={},
        usage={},
        not_asked=7,
    )
    write_json(folder / "rules/summary.json", extraction)
    vectors = np.eye(len(rules), dtype=np.float32) if story.vectors is None else story.vectors
    write_vectors(folder, rules, vectors)
    return splits


def _write_sweep(folder: Path, config: Config, story: Story, prompt: Messages, calibration: Calibration) -> None:
    """trials/, of which one failed, and best/, which is the last trial."""
    for settings in story.trials:
        trial = TrialReport(
            trial_id=_trial_id(settings),
            settings=settings,
            report=_system_report(config, mails("validation", story.validation), 0.6, 55),
            instructions=len(story.came_in),
            clusters=len(story.clusters),
            noise_share=0.25,
            labels_without_instruction=(),
            cut=(),
        )
        for place, name in ((folder / "trials" / trial.trial_id, "report.json"), (folder / "best", "trial.json")):
            write_jsonl(place / "clusters.jsonl", story.clusters)
            write_jsonl(place / "instructions.jsonl", story.came_in)
            write_prompt(place, prompt)
            write_json(place / name, trial)
    write_json(folder / "best/calibration.json", calibration)
    failed = {"settings": {"clusterer.min_cluster_size": 99}, "error": "nothing was left to ship"}
    write_json(folder / "trials/00failed0000/error.json", failed)
    write_text(folder / "trials.csv", f"rank,trial_id\n1,{_trial_id(story.trials[-1])}\n")


def _trial_id(settings: Mapping[str, object]) -> str:
    return content_id(dict(settings), 12)


def _rendered(config: Config, story: Story, instructions: list[Instruction]) -> Messages:
    """By the settings of the trial that won."""
    train = {example.id: example for example in mails("train", story.train)}
    config = with_settings(config, story.trials[-1])
    exemplars = exemplars_of(instructions, {rule.id: rule for rule in story.rules}, train, config)
    return frame_system_prompt(config.task, instructions, exemplars, config.rendering, len).messages


def _write_resolution(
    folder: Path, config: Config, story: Story, prompt: Messages, calibration: Calibration, ablated: bool
) -> ResolutionReport:
    verdicts = [own for edits in story.rounds for own in edits]
    accepted = [own.id for own in verdicts if own.outcome == "accepted"]
    report = resolution_report(config, len(story.rounds), len(accepted), gain=0.1 if story.rounds else 0.0)
    pruned = tuple(f"{own.id}: 9 tokens; without it macro-F1 on validation +0.0000" for own in story.pruned)
    report = report.model_copy(update={"pruned": pruned})
    write_json(folder / "report.json", report)
    points = [
        FrontPoint(what=what, prompt_sha256=what, tokens=tokens, macro_f1=value, low=value - 0.1, high=value + 0.1)
        for what, tokens, value in (("what the loop left", 90, 0.8), ("what came in", 120, 0.75), ("pruned 1", 70, 0.7))
    ]
    write_text(folder / "pareto.csv", pareto_csv(pareto(points if story.rounds else [])))
    train, validation = (mails(split, getattr(story, split), labels=story.labels) for split in ("train", "validation"))
    wrong = ShownExample(
        example_id="train-1", kind="failure", label="delivery", predicted="praise", margin=2.9, cluster=1
    )
    blame = Blame(instruction_id=story.came_in[0].id, rise=0.2, by_cell={"delivery -> praise": 0.2})
    for found, edits, after in zip(report.rounds, story.rounds, story.lists[1:], strict=True):
        place = folder / f"rounds/{found.round:02}"
        pool = scores(train, 0.5, story.labels)
        write_jsonl(place / "pool.jsonl", predictions(train, "pool", pool, story.labels))
        write_jsonl(place / "shown.jsonl", [wrong])
        write_jsonl(place / "blame.jsonl", [blame])
        write_jsonl(place / "edits.jsonl", edits)
        write_jsonl(place / "instructions.jsonl", after)
        write_prompt(place, prompt)
        write_json(place / "report.json", found)
    final = folder / "final"
    write_prompt(final, prompt)
    write_jsonl(final / "instructions.jsonl", story.final)
    write_json(final / "calibration.json", calibration)
    answers = predictions(validation, "distilled", scores(validation, 0.8, story.labels), story.labels)
    write_jsonl(final / "predictions.jsonl", answers)
    (final / "ablation.jsonl").unlink(missing_ok=True)
    if ablated:
        write_jsonl(final / "ablation.jsonl", story.effects[: len(story.final)])
    rules = {rule.id: rule for rule in story.rules}
    clusters = {rule_id: own.id for own in story.clusters if not own.noise for rule_id in own.rule_ids}
    effects = story.effects if ablated else None
    write_jsonl(final / "descent.jsonl", descents(story.final, story.came_in, verdicts, rules, clusters, effects))
    return report


def resolution_report(config: Config, rounds: int = 1, accepted: int = 1, gain: float = 0.1) -> ResolutionReport:
    """Of a loop that tried three lists a round; `gain` is what validation said."""
    validation, train = mails("validation", 9), mails("train", 9)
    before, after = _system_report(config, validation, 0.6, 55), _system_report(config, validation, 0.8, 60)
    gold = indices([example.label for example in validation], LABELS)
    chosen = [choose(scores(validation, share)) for share in (0.8, 0.6)]
    compared = compare("distilled", "clustered", gold, *chosen, len(LABELS), None, 200, 0)
    delta = Interval(value=gain, low=gain - 0.08, high=gain + 0.08)
    return ResolutionReport(
        resolver=config.resolver.kind,
        sampler=config.resolution.sampler,
        ended=f"the limit of {rounds} rounds",
        came_in=before,
        result=after if accepted else before,
        gain=compared.model_copy(update={"macro_f1_delta": delta}),
        candidates=3 * rounds,
        accepted=tuple(f"e{number}" for number in range(1, accepted + 1)),
        alarms=(),
        pruned=(),
        rounds=tuple(
            RoundReport(
                round=number,
                pool=_system_report(config, train, 0.5, 55),
                failures=4,
                shown_failures=4,
                shown_successes=4,
                proposed=4,
                refused=1,
                raced=3,
                together=(),
                accepted=(f"e{number}",) if number <= accepted else (),
                validation=after if accepted else before,
                instructions=2 if accepted else 1,
                trouble=None,
                usage={},
            )
            for number in range(1, rounds + 1)
        ),
        teacher_calls=0,
        teacher_tokens=0,
        student_answers=307,
    )


def _system_report(config: Config, examples: list[Example], share: float, tokens: int) -> SystemReport:
    gold = indices([example.label for example in examples], LABELS)
    settings = config.evaluation
    chosen = choose(scores(examples, share))
    return system_report(gold, chosen, LABELS, None, settings.resamples, settings.seed, tokens)
