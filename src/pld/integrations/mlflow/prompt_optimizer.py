"""Prompt-Level Distillation of an MLflow user's own prompt, as an optimiser for `mlflow.genai.optimize_prompts`.

The user's predict_fn is the Student and the user's scorers are the judge. The Teacher explains one part of train_data,
its rules are clustered and become instruction lists, and each list is put before or after the text of the prompt, which
stays as it is, template variables and all. The other part of train_data chooses. There is no third part: MLflow gives
an optimiser nothing else, so the final score is that of the best of several and too good by the choosing; measure the
new version on examples that are not in train_data.

Nothing of a pld project is needed: what conf/ holds there are arguments here, with the same defaults (tested).
"""

import json
import logging
import random
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, cast

import mlflow
import yaml
from mlflow.genai.optimize import BasePromptOptimizer
from mlflow.genai.optimize.types import EvaluationResultRecord, PromptOptimizerOutput

from pld.adapters.teachers.factory import hire
from pld.config.build import build, check_target
from pld.distill.extract import extract
from pld.distill.sweep import Bench, Settings
from pld.distill.trial import Material, sample
from pld.errors import ConfigError, DataError, DistillError, ExtractionError
from pld.integrations.mlflow.prompt_template import Template, has_markup
from pld.integrations.mlflow.train_data import Labelled, read_records
from pld.params import (
    AskingParams,
    BudgetParams,
    ClusteringParams,
    Config,
    ExtractionParams,
    MedoidConsolidator,
    RenderingParams,
    TeacherConsolidator,
)
from pld.ports import Clusterer, Embedder, Teacher
from pld.progress import progress
from pld.records import Example, Instruction, Rejection, Rule, Task

EvalFn = Callable[[dict[str, str], list[dict[str, Any]]], list[EvaluationResultRecord]]

ANTHROPIC: dict[str, Any] = {
    "_target_": "pld.adapters.teachers.anthropic.AnthropicTeacher",
    "way": "messages",
    "max_tokens": 8192,
    "effort": "medium",
    "temperature": None,
    "roles": {},
    "max_concurrency": 50,
    "max_retries": 10,
    "timeout_s": 120,
    "poll_s": 30,
}
"""The Teacher behind `anthropic:/MODEL`; conf/teacher/anthropic.yaml."""
EMBEDDER: dict[str, Any] = {
    "_target_": "pld.adapters.embedders.sentence_transformers.SentenceTransformersEmbedder",
    "model": "asset:all-minilm-l6-v2",
    "batch_size": 64,
}
CLUSTERER: dict[str, Any] = {
    "_target_": "pld.adapters.clusterers.umap_hdbscan.UmapHdbscanClusterer",
    "n_neighbors": 10,
    "n_components": 5,
    "min_cluster_size": 8,
    "min_samples": 3,
    "grow_from": 1600,
    "seed": 0,
}
ASKING = AskingParams(attempts=3)
EXTRACTION = ExtractionParams(
    examples=None, draws=1, personal_data="allow", max_words=80, max_copied_words=7, max_rejected_fraction=0.2
)
CLUSTERING = ClusteringParams(noise="nearest", doubtful="keep", doubtful_weight=0.25, draw=None)
RENDERING = RenderingParams(frame="list", order="support", exemplars=0, exemplars_per="label", token_budget=None)
MEDOID = MedoidConsolidator(kind="medoid", min_share=0.2)
MERGING = TeacherConsolidator(kind="teacher", min_share=0.2, max_rules=40, max_words=80, max_calls=200)
SPACE: Mapping[str, Sequence[str | int | float]] = {
    "clusterer.min_cluster_size": (4, 8),
    "consolidator.min_share": (0.2, 0.4),
    "rendering.frame": ("list", "rules_first"),
    "rendering.order": ("support", "support_last"),
}
"""What is tried; the first row only of the default clusterer."""

_FAILED = "Failed to invoke the predict_fn"  # what MLflow 3.17 makes of an exception of the predict_fn
_log = logging.getLogger("mlflow.pld")  # MLflow shows what its own loggers say


class PldPromptOptimizer(BasePromptOptimizer):  # type: ignore[misc]
    """`mlflow.genai.optimize_prompts(..., optimizer=PldPromptOptimizer(teacher="anthropic:/MODEL"), scorers=[...])`.

    For prompts that classify: each record of train_data has `inputs` and, as `expectations[label_key]` or as `outputs`,
    the label that predict_fn should answer.

    Args:
        teacher: `anthropic:/MODEL` (key from ANTHROPIC_API_KEY), a YAML file or a mapping like those of conf/teacher/,
            or any object with `pld.ports.Teacher`'s interface. It is shown the prompt and up to `max_examples` records.
        embedder: a file, a mapping or an object likewise; None: MiniLM from the installed package.
        clusterer: likewise; None: UMAP and HDBSCAN, of which two cluster sizes are tried.
        merge: the Teacher merges the rules of each cluster and label into one instruction, a call each (as published);
            False: the rule nearest to the centre stands for them.
        labels: all labels in order; None: those of train_data, sorted.
        label_key: under which `expectations` has the label.
        prompt: the name of the prompt to work on, where `prompt_uris` names several; the others stay as they are.
        max_trials: different prompts that are scored at most, beside the user's own.
        max_examples: records that the Teacher explains at most, one call each (up to three where answers are refused).
        max_validation: records that each prompt is scored on at most, one call of predict_fn each.
        seed: of the order in which settings are tried, and of the clusterer.

    Errors are `pld.errors.PldError`s of one line.
    """

    def __init__(
        self,
        teacher: Teacher | Mapping[str, Any] | str,
        *,
        embedder: Embedder | Mapping[str, Any] | str | None = None,
        clusterer: Clusterer | Mapping[str, Any] | str | None = None,
        merge: bool = False,
        labels: Sequence[str] | None = None,
        label_key: str = "expected_response",
        prompt: str | None = None,
        max_trials: int = 8,
        max_examples: int = 500,
        max_validation: int = 200,
        seed: int = 0,
    ) -> None:
        for name, value in (
            ("max_trials", max_trials),
            ("max_examples", max_examples),
            ("max_validation", max_validation),
        ):
            if value < 1:
                raise ConfigError(f"PldPromptOptimizer: {name}: wanted 1 or more, found {value}")
        if labels is not None and (len(labels) < 2 or len(set(labels)) < len(labels)):
            raise ConfigError(f"PldPromptOptimizer: labels: wanted two or more different labels, found {list(labels)}")
        self._teacher = _section(teacher, "teacher")
        self._embedder = _section(EMBEDDER if embedder is None else embedder, "embedder")
        self._clusterer = _section(CLUSTERER | {"seed": seed} if clusterer is None else clusterer, "clusterer")
        self._space = {key: values for key, values in SPACE.items() if clusterer is None or "clusterer" not in key}
        self._merge = merge
        self._labels = None if labels is None else tuple(labels)
        self._label_key = label_key
        self._prompt = prompt
        self._max_trials = max_trials
        self._max_examples = max_examples
        self._max_validation = max_validation
        self._seed = seed

    def optimize(
        self,
        eval_fn: EvalFn | None,
        train_data: list[dict[str, Any]],
        target_prompts: dict[str, str],
        enable_tracking: bool = True,
    ) -> PromptOptimizerOutput:
        """See BasePromptOptimizer. The user's own prompt is what comes back where no list scores better."""
        name = self._name(target_prompts)
        template = Template.of(target_prompts[name])
        if eval_fn is None or not train_data:
            raise DataError("train_data: wanted labelled records, found none; PldPromptOptimizer learns from examples")
        records, labels = read_records(train_data, self._label_key, self._labels)
        task = Task(
            name=name,
            labels=labels,
            fields=tuple(sorted({field for record in records for field in record.example.inputs})),
            input_template="",  # the user's predict_fn renders
            base_instruction=template.text,
        )
        explained, validation = self._parts(records)
        judge = _Judge(eval_fn, name, [record.record for record in validation], enable_tracking)
        own = judge.score(target_prompts[name], {})  # before the Teacher is paid: a predict_fn that fails fails here
        found = self._distil(task, [record.example for record in explained])
        candidates = self._candidates(task, template, found)
        with progress("optimise: prompts", len(candidates)) as advance:
            for candidate in candidates:
                judge.score(candidate.prompt, candidate.settings)
                advance(1)
        best = judge.best()
        chosen = next((candidate for candidate in candidates if candidate.prompt == best.prompt), None)
        _tell(name, own, best, chosen, len(candidates), len(validation))
        if enable_tracking and mlflow.active_run() is not None:
            _track(task, own, best, chosen, found, judge.scored, len(explained), len(validation))
        return PromptOptimizerOutput(
            optimized_prompts={name: best.prompt},
            initial_eval_score=own.score,
            final_eval_score=best.score,
            initial_eval_score_per_scorer=own.per_scorer,
            final_eval_score_per_scorer=best.per_scorer,
        )

    def _name(self, target_prompts: Mapping[str, str]) -> str:
        names = ", ".join(target_prompts)
        if self._prompt is None and len(target_prompts) != 1:
            raise ConfigError(
                f"PldPromptOptimizer: wanted one prompt to work on, found {len(target_prompts)} ({names}); name one: "
                "PldPromptOptimizer(prompt=...)"
            )
        if self._prompt is not None and self._prompt not in target_prompts:
            raise ConfigError(
                f"PldPromptOptimizer: wanted the prompt {self._prompt!r} among prompt_uris, found {names}"
            )
        return self._prompt or next(iter(target_prompts))

    def _parts(self, records: Sequence[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
        """What the Teacher explains, and what prompts are scored on: by the hash of the inputs, so that records that
        are added later move no other one."""
        parts = []
        for split, most in (("train", self._max_examples), ("validation", self._max_validation)):
            own = [record for record in records if record.example.split == split]
            drawn = {example.id for example in sample([record.example for record in own], most, split)}
            parts.append([record for record in own if record.example.id in drawn])
        if not all(parts):
            raise DataError(
                f"train_data: wanted records for rules and others to choose by (half and half, by hash), found "
                f"{len(parts[0])} and {len(parts[1])}; add records"
            )
        return parts[0], parts[1]

    def _distil(self, task: Task, examples: Sequence[Example]) -> "_Found":
        teacher = self._hired(task)
        with progress("teacher: records", len(examples)) as advance:
            rules, rejections, _ = extract(task, examples, EXTRACTION, teacher, ASKING.attempts, advance)
        kept = [rule for rule in rules if not has_markup(rule.text)]
        rejections += [
            Rejection(example_id=rule.example_id, reason="template_markup", detail="holds braces of a prompt template")
            for rule in rules
            if has_markup(rule.text)
        ]
        if not kept:
            reasons = Counter(item.reason for item in rejections)
            counts = ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "no answers"
            raise ExtractionError(f"{teacher.name}: wanted rules for {len(examples)} records, found none ({counts})")
        bare = [label for label in task.labels if not any(rule.label == label for rule in kept)]
        if bare:
            _log.warning("no rule leads to %s: give more records of it", ", ".join(bare))
        own = self._embedder
        embedder: Embedder = build(own, "embedder") if isinstance(own, Mapping) else own
        vectors = embedder.embed([rule.text for rule in kept])
        train = {example.id: example for example in examples}
        return _Found(teacher, Material(kept, vectors, train, validation=(), calibration=()), rejections)

    def _hired(self, task: Task) -> Teacher:
        if not isinstance(self._teacher, Mapping):
            return cast(Teacher, self._teacher)
        budget = BudgetParams(usd=None, calls=None)
        return hire(_partial(task=task, teacher=self._teacher, budget=budget, prices=None))

    def _candidates(self, task: Task, template: Template, found: "_Found") -> list["_Candidate"]:
        """Different prompts in the seeded order of their settings, `max_trials` of them. Raises DistillError where no
        settings leave one."""
        own = self._clusterer
        base = _partial(
            task=task,
            asking=ASKING,
            clusterer=own if isinstance(own, Mapping) else {},
            clustering=CLUSTERING,
            consolidator=MERGING if self._merge else MEDOID,
            rendering=RENDERING,
        )
        bench = Bench(
            configured=lambda settings: _with(base, settings),
            build_clusterer=lambda config: build(config.clusterer, "clusterer") if isinstance(own, Mapping) else own,
            material=found.material,
            student=cast(Any, _Characters()),  # drafting only asks a Student for lengths
            teacher=found.teacher if self._merge else None,
        )
        points = [dict(zip(self._space, values, strict=True)) for values in product(*self._space.values())]
        random.Random(self._seed).shuffle(points)
        candidates: dict[str, _Candidate] = {}
        failed = DistillError("PldPromptOptimizer: wanted instructions, found only ones that hold template markup")
        for settings in points:
            try:
                draft = bench.draft(settings)
            except DistillError as error:
                failed = error
                continue
            if any(has_markup(instruction.text) for instruction in draft.instructions):  # a merged one
                continue
            by_id = {instruction.id: instruction for instruction in draft.instructions}
            shown = tuple(by_id[identity] for identity in draft.prompt.instruction_ids)
            prompt = template.with_text(draft.prompt.text)
            candidates.setdefault(prompt, _Candidate(prompt, settings, shown))
            if len(candidates) == self._max_trials:
                break
        if not candidates:
            raise failed
        return list(candidates.values())


@dataclass(frozen=True)
class _Found:
    teacher: Teacher
    material: Material
    rejections: Sequence[Rejection]


@dataclass(frozen=True)
class _Candidate:
    prompt: str
    settings: Settings
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True)
class _Scored:
    prompt: str
    settings: Settings
    score: float
    per_scorer: dict[str, float]


class _Judge:
    """The user's eval_fn on the validation part. The first prompt that is scored is the user's own."""

    def __init__(self, eval_fn: EvalFn, name: str, records: list[dict[str, Any]], enable_tracking: bool) -> None:
        self._eval_fn = eval_fn
        self._name = name
        self._records = records
        self._tracking = enable_tracking
        self.scored: list[_Scored] = []

    def score(self, prompt: str, settings: Settings) -> _Scored:
        results = self._eval_fn({self._name: prompt}, self._records)
        if all(str(result.outputs).startswith(_FAILED) for result in results):
            reason = " ".join(str(results[0].outputs).rpartition("}: ")[2].split())
            raise DataError(
                f"predict_fn: wanted an answer to {len(results)} records, found an error on each: {reason:.200}"
            )
        scores = [result.score for result in results if result.score is not None]
        if len(scores) < len(results):
            raise ConfigError(
                "PldPromptOptimizer: wanted a score of each answer, found none; give optimize_prompts scorers=[...]"
            )
        names = dict.fromkeys(name for result in results for name in result.individual_scores)
        per_scorer = {
            name: statistics.fmean(
                result.individual_scores[name] for result in results if name in result.individual_scores
            )
            for name in names
        }
        scored = _Scored(prompt, settings, statistics.fmean(scores), per_scorer)
        if self._tracking and mlflow.active_run() is not None:
            figures = {"eval_score": scored.score} | {f"eval_score.{key}": value for key, value in per_scorer.items()}
            mlflow.log_metrics(figures, step=len(self.scored))
        self.scored.append(scored)
        return scored

    def best(self) -> _Scored:
        """By score, then the shorter prompt; the user's own unless another scores higher."""
        own, *others = self.scored
        best = min(others, key=lambda scored: (-scored.score, len(scored.prompt)), default=own)
        return best if best.score > own.score else own


class _Characters:
    """Lengths in characters: the user's model may have any tokenizer."""

    def count_text_tokens(self, text: str) -> int:
        return len(text)


def _section(given: Any, role: str) -> Any:
    """A mapping for `build`, checked, or the object itself."""
    if isinstance(given, str):
        given = _named(given, role)
    if not isinstance(given, Mapping):
        return given
    check_target(given, role)
    return dict(given)


def _named(given: str, role: str) -> Mapping[str, Any]:
    if role == "teacher" and given.startswith("anthropic:/"):
        return ANTHROPIC | {"model": given.removeprefix("anthropic:/").lstrip("/")}
    wanted = "anthropic:/MODEL or a YAML file" if role == "teacher" else "a YAML file"
    try:
        value = yaml.safe_load(Path(given).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        value = None
    if not isinstance(value, Mapping):
        raise ConfigError(f"PldPromptOptimizer: {role}: wanted {wanted} like those of conf/{role}/, found {given!r}")
    return value


def _partial(**sections: Any) -> Config:
    """The sections that are read, which were checked where they were made; the rest belongs to a pld project."""
    return Config.model_construct(**sections)


def _with(config: Config, settings: Settings) -> Config:
    for dotted, value in settings.items():
        name, _, key = dotted.partition(".")
        section = getattr(config, name)
        changed = {**section, key: value} if isinstance(section, Mapping) else section.model_copy(update={key: value})
        config = config.model_copy(update={name: changed})
    return config


def _tell(name: str, own: _Scored, best: _Scored, chosen: _Candidate | None, tried: int, validation: int) -> None:
    if chosen is None:
        _log.warning(
            "prompt %s stays as it is: none of %d prompts with rules scored above its %.4f on %d records",
            name, tried, own.score, validation,
        )  # fmt: skip
        return
    _log.info(
        "prompt %s: %d instructions, %.4f instead of %.4f on %d records; the best of %d, so too good by the choosing: "
        "measure it on records that are not in train_data",
        name, len(chosen.instructions), best.score, own.score, validation, tried,
    )  # fmt: skip


def _track(
    task: Task,
    own: _Scored,
    best: _Scored,
    chosen: _Candidate | None,
    found: _Found,
    scored: Sequence[_Scored],
    explained: int,
    validation: int,
) -> None:
    """Where each line comes from, under `pld/` of the active run."""
    mlflow.log_params(
        {
            "pld.prompt": task.name,
            "pld.teacher": found.teacher.name,
            "pld.explained": explained,
            "pld.validation": validation,
            "pld.labels": ", ".join(task.labels)[:500],
        }
    )
    mlflow.set_tag("pld.outcome", "improved" if chosen else "unchanged")
    table = [
        {
            "settings": dict(item.settings),
            "score": item.score,
            "per_scorer": item.per_scorer,
            "characters": len(item.prompt),
            "own": item is own,
            "chosen": item is best,
        }
        for item in scored
    ]
    mlflow.log_text(json.dumps(table, ensure_ascii=False, indent=2), "pld/candidates.json")
    mlflow.log_text(_lines(found.material.rules), "pld/rules.jsonl")
    mlflow.log_text(_lines(found.rejections), "pld/rejected.jsonl")
    mlflow.log_text(_lines(chosen.instructions if chosen else ()), "pld/instructions.jsonl")


def _lines(records: Sequence[Rule] | Sequence[Rejection] | Sequence[Instruction]) -> str:
    return "".join(json.dumps(record.model_dump(mode="json"), ensure_ascii=False) + "\n" for record in records)
