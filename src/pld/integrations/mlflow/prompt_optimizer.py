"""Prompt-Level Distillation of a prompt in MLflow's registry: an optimizer for `mlflow.genai.optimize_prompts`.

The user's predict_fn is the Student, and the user's scorers judge its answers. The Teacher explains one half of
train_data; its rules are clustered into lists of instructions, and each list is put before or after the prompt's own
text, which stays as it is, template variables included. The other half of train_data chooses among these prompts.
MLflow gives an optimizer no third part, so the final score is optimistically biased by selection: measure the new
version on examples that are not in train_data.

Settings are the project's defaults (pld.config.defaults); no project is needed.
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
from mlflow.genai.optimize import BasePromptOptimizer
from mlflow.genai.optimize.types import EvaluationResultRecord, PromptOptimizerOutput

from pld.adapters.teachers.factory import create_teacher
from pld.config.build import build
from pld.config.composition import with_settings
from pld.config.defaults import Choice, default_config, records_task
from pld.distill.extract import extract
from pld.distill.sweep import Settings, TrialRunner
from pld.distill.trial import Material, sample
from pld.errors import ConfigError, DataError, DistillError, ExtractionError
from pld.integrations.mlflow.prompt_template import Template, has_markup
from pld.integrations.mlflow.train_data import Labelled, read_records
from pld.params import Config
from pld.ports import Clusterer, Embedder, Teacher
from pld.progress import progress
from pld.records import Example, Instruction, Messages, Rejection, Rule, Task

EvalFn = Callable[[dict[str, str], list[dict[str, Any]]], list[EvaluationResultRecord]]

SPACE: Mapping[str, Sequence[str | int | float]] = {
    "clusterer.min_cluster_size": (4, 8),
    "consolidator.min_share": (0.2, 0.4),
    "rendering.frame": ("list", "rules_first"),
    "rendering.order": ("support", "support_last"),
}
"""The settings that are tried; `clusterer.*` only with the default clusterer."""

_FAILED = "Failed to invoke the predict_fn"  # what MLflow 3.17 makes of an exception of the predict_fn
_log = logging.getLogger("mlflow.pld")  # MLflow shows what its own loggers say


class PldPromptOptimizer(BasePromptOptimizer):  # type: ignore[misc]
    """`mlflow.genai.optimize_prompts(..., optimizer=PldPromptOptimizer(teacher="anthropic:/MODEL"), scorers=[...])`.

    For prompts that classify: each record of train_data has `inputs` and, as `expectations[label_key]` or as `outputs`,
    the label that predict_fn should answer.

    Args:
        teacher: `anthropic:/MODEL` (key from ANTHROPIC_API_KEY), an option of conf/teacher/, a YAML file or a mapping
            like one, or an object with the interface of `pld.ports.Teacher`. It sees the prompt and up to
            `max_examples` records.
        embedder: an option, a file, a mapping or an object likewise; None: MiniLM from the installed package.
        clusterer: likewise; None: UMAP and HDBSCAN, of which two cluster sizes are tried.
        merge: the Teacher merges the rules of each cluster and label into one instruction, one call each (as
            published); False: the rule nearest to the cluster's centre is taken.
        labels: all labels in order; None: those of train_data, sorted.
        label_key: the key of the label in `expectations`.
        prompt: which prompt to optimize if `prompt_uris` names several; the others are left alone.
        max_trials: different prompts scored at most, beside the user's own.
        max_examples: records that the Teacher explains at most, one call each (up to three if answers are refused).
        max_validation: records that each prompt is scored on at most, one call of predict_fn each.
        seed: of the order in which settings are tried, and of the default clusterer.

    Errors are `pld.errors.PldError`s of one line.
    """

    def __init__(
        self,
        teacher: Teacher | Choice,
        *,
        embedder: Embedder | Choice | None = None,
        clusterer: Clusterer | Choice | None = None,
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
                raise ConfigError(f"expected 1 or more, got {value} (PldPromptOptimizer: {name})")
        if labels is not None and (len(labels) < 2 or len(set(labels)) < len(labels)):
            raise ConfigError(f"expected two or more different labels, got {list(labels)} (PldPromptOptimizer: labels)")
        self._given = {"teacher": teacher, "embedder": embedder, "clusterer": clusterer}
        self._space = {key: values for key, values in SPACE.items() if clusterer is None or "clusterer" not in key}
        self._merge = merge
        self._labels = None if labels is None else tuple(labels)
        self._label_key = label_key
        self._prompt = prompt
        self._max_trials = max_trials
        self._max_examples = max_examples
        self._max_validation = max_validation
        self._seed = seed
        self._configured("prompt", self._labels or ("yes", "no"), ("text",))  # a wrong argument is refused at once

    def optimize(
        self,
        eval_fn: EvalFn | None,
        train_data: list[dict[str, Any]],
        target_prompts: dict[str, str],
        enable_tracking: bool = True,
    ) -> PromptOptimizerOutput:
        """See BasePromptOptimizer. Returns the user's own prompt if no list of instructions scores higher."""
        name = self._name(target_prompts)
        template = Template.of(target_prompts[name])
        if eval_fn is None or not train_data:
            raise DataError("expected labelled records, got none (train_data); PldPromptOptimizer learns from examples")
        records, labels = read_records(train_data, self._label_key, self._labels)
        fields = sorted({field for record in records for field in record.example.inputs})
        config = self._configured(name, labels, fields)
        task = config.task.model_copy(update={"base_instruction": template.text})
        config = config.model_copy(update={"task": task})
        explained, validation = self._parts(records)
        judge = _Judge(eval_fn, name, [record.record for record in validation], enable_tracking)
        own = judge.score(target_prompts[name], {})  # before the Teacher is paid: a predict_fn that fails fails here
        found = self._extract(config, [record.example for record in explained])
        candidates = self._candidates(config, template, found)
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

    def _configured(self, name: str, labels: Sequence[str], fields: Sequence[str]) -> Config:
        # the user's predict_fn renders the inputs
        task = records_task(
            name, labels, {field: field for field in fields}, "", "", path="train_data", label=self._label_key
        )
        choices = {role: given for role, given in self._given.items() if isinstance(given, str | Path | Mapping)}
        choices["consolidator"] = "teacher_clusters" if self._merge else "medoid"
        # predict_fn renders the inputs, so there are no turns
        fixed = ["rendering.exemplars_as=inline"]
        fixed += [f"clusterer.seed={self._seed}"] if self._given["clusterer"] is None else []
        return default_config(task, choices, fixed, "PldPromptOptimizer")

    def _name(self, target_prompts: Mapping[str, str]) -> str:
        names = ", ".join(target_prompts)
        if self._prompt is None and len(target_prompts) != 1:
            raise ConfigError(
                f"expected one prompt to work on, got {len(target_prompts)} ({names}) (PldPromptOptimizer); name "
                "one: PldPromptOptimizer(prompt=...)"
            )
        if self._prompt is not None and self._prompt not in target_prompts:
            raise ConfigError(
                f"expected the prompt {self._prompt!r} among prompt_uris, got {names} (PldPromptOptimizer)"
            )
        return self._prompt or next(iter(target_prompts))

    def _parts(self, records: Sequence[Labelled]) -> tuple[list[Labelled], list[Labelled]]:
        """The records that the Teacher explains, and those that prompts are scored on: by the hash of the inputs, so
        that records added later move no others."""
        parts = []
        for split, most in (("train", self._max_examples), ("validation", self._max_validation)):
            own = [record for record in records if record.example.split == split]
            drawn = {example.id for example in sample([record.example for record in own], most, split)}
            parts.append([record for record in own if record.example.id in drawn])
        if not all(parts):
            raise DataError(
                f"expected records for rules and others to choose by (half and half, by hash), got {len(parts[0])} "
                f"and {len(parts[1])} (train_data); add records"
            )
        return parts[0], parts[1]

    def _extract(self, config: Config, examples: Sequence[Example]) -> "_Found":
        task = config.task
        teacher: Teacher = self._object("teacher") or create_teacher(config)
        with progress("teacher: records", len(examples)) as advance:
            rules, rejections, _ = extract(task, examples, config.extraction, teacher, config.asking.attempts, advance)
        kept = [rule for rule in rules if not has_markup(rule.text)]
        rejections += [
            Rejection(example_id=rule.example_id, reason="template_markup", detail="holds braces of a prompt template")
            for rule in rules
            if has_markup(rule.text)
        ]
        if not kept:
            reasons = Counter(item.reason for item in rejections)
            counts = ", ".join(f"{reason} {count}" for reason, count in reasons.items()) or "no answers"
            raise ExtractionError(f"expected rules for {len(examples)} records, got none ({counts}) ({teacher.name})")
        bare = [label for label in task.labels if not any(rule.label == label for rule in kept)]
        if bare:
            _log.warning("no rule leads to %s: give more records of it", ", ".join(bare))
        embedder: Embedder = self._object("embedder") or build(config.embedder, "embedder")
        vectors = embedder.embed([rule.text for rule in kept])
        train = {example.id: example for example in examples}
        return _Found(teacher, Material(kept, vectors, train, validation=()), rejections)

    def _object(self, role: str) -> Any:
        """The adapter that was given ready-made, else None."""
        given = self._given[role]
        return None if isinstance(given, str | Path | Mapping) else given

    def _candidates(self, config: Config, template: Template, found: "_Found") -> list["_Candidate"]:
        """Different prompts in the seeded order of their settings, `max_trials` of them. Raises DistillError if no
        settings leave one."""
        runner = TrialRunner(
            configured=lambda settings: with_settings(config, settings),
            build_clusterer=lambda changed: self._object("clusterer") or build(changed.clusterer, "clusterer"),
            material=found.material,
            student=cast(Any, _Characters()),  # drafting only asks a Student for lengths
            teacher=found.teacher if self._merge else None,
        )
        points = [dict(zip(self._space, values, strict=True)) for values in product(*self._space.values())]
        random.Random(self._seed).shuffle(points)
        candidates: dict[str, _Candidate] = {}
        failed = DistillError("expected instructions, got only ones that hold template markup (PldPromptOptimizer)")
        for settings in points:
            try:
                draft = runner.draft(settings)
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
    """The user's eval_fn on the validation part. The user's own prompt is scored first."""

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
                f"expected an answer to {len(results)} records, got an error on each: {reason:.200} (predict_fn)"
            )
        scores = [result.score for result in results if result.score is not None]
        if len(scores) < len(results):
            raise ConfigError(
                "expected a score of each answer, got none (PldPromptOptimizer); give optimize_prompts scorers=[...]"
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
    """Counts characters: the user's model may have any tokenizer."""

    def count_tokens(self, messages: Messages) -> int:
        return sum(len(message.content) for message in messages)

    def for_search(self) -> "_Characters":
        return self


def _tell(name: str, own: _Scored, best: _Scored, chosen: _Candidate | None, tried: int, validation: int) -> None:
    if chosen is None:
        _log.warning(
            "prompt %s stays as it is: none of %d prompts with rules scored above its %.4f on %d records",
            name, tried, own.score, validation,
        )  # fmt: skip
        return
    _log.info(
        "prompt %s: %d instructions, %.4f instead of %.4f on %d records; the best of %d, so optimistically "
        "biased by selection: measure it on records that are not in train_data",
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
