"""Typed, closed settings: the sections of artifacts/config.yaml. Defaults stand in conf/, none here.

The four swappable roles (teacher, embedder, clusterer, student) are checked against the constructor that their
`_target_` names, in `pld.config.build`; here they are plain mappings with that one required key.
"""

import difflib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Discriminator, Field, ValidationError, field_validator, model_validator

from pld.errors import ConfigError
from pld.records import SPLITS, Split, Task

CONFIG_PATH = Path("artifacts/config.yaml")
Target = dict[str, Any]
Scalar = str | int | float | bool | None
SearchedSection = Literal["clusterer", "clustering", "consolidator", "rendering"]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """One section; frozen, unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BenchmarkReader(Section):
    """A public benchmark as an installed package ships it, in its authors' or that package's shape."""

    format: Literal["stereoset_bias", "stereoset_stance", "logiqa", "privacy_policy"]
    path: str

    @property
    def source(self) -> str:
        """What is read, for messages."""
        return self.path


class ContractNliReader(Section):
    """Contract-NLI in its authors' JSON: one file (`path`), which is split by contract, or their three (`splits`: split
    → file). `context`: what of a contract the Student is shown: all of it, the annotated passages (filled up to
    `passages` with the nearest to the hypothesis) or the nearest alone; at most `max_words` of it (null: no limit)."""

    format: Literal["contract_nli"]
    path: str | None
    splits: dict[Split, str] | None
    context: Literal["whole", "evidence", "nearest"]
    passages: Annotated[int, Field(gt=0)]
    max_words: Annotated[int, Field(gt=0)] | None

    @property
    def files(self) -> dict[Split | None, str]:
        """Split → file; None: the file brings no split."""
        return {None: self.path} if self.path is not None else {split: (self.splits or {})[split] for split in SPLITS}

    @property
    def source(self) -> str:
        """What is read, for messages."""
        return ", ".join(self.files.values())

    @model_validator(mode="after")
    def _one_source(self) -> "ContractNliReader":
        if (self.path is None) == (self.splits is None):
            raise ValueError("reader: wanted either path (one file) or splits (a file for each split), the other null")
        if self.splits is not None and set(self.splits) != set(SPLITS):
            raise ValueError(f"reader.splits: wanted a file for each of {list(SPLITS)}, found {list(self.splits)}")
        return self


class RecordsReader(Section):
    """The user's own CSV, JSONL or Parquet (by the file's ending), one example a row.

    `fields` maps the task's input fields to columns; `id`, `group` and `split` name columns or are null. With `options`
    (columns; null: none) the label column holds the text of one of them, and the label is its place: the first option
    is the first declared label.
    """

    format: Literal["records"]
    path: str
    fields: dict[str, str]
    label: str
    options: tuple[str, ...] | None
    id: str | None
    group: str | None
    split: str | None

    @property
    def source(self) -> str:
        """What is read, for messages."""
        return self.path


class TaskParams(Task):
    """A Task and where its examples are read from. `path`s are relative to the project, or `package:name/file`."""

    reader: Annotated[BenchmarkReader | ContractNliReader | RecordsReader, Discriminator("format")]

    @property
    def bare(self) -> Task:
        """The Task alone: what travels with a prompt."""
        return Task(**{name: getattr(self, name) for name in Task.model_fields})

    @model_validator(mode="after")
    def _consistent(self) -> "TaskParams":
        if len(self.labels) < 2 or len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels: wanted two or more different labels, found {list(self.labels)}")
        if not self.fields or len(set(self.fields)) < len(self.fields):
            raise ValueError(f"fields: wanted one or more different input fields, found {list(self.fields)}")
        if isinstance(self.reader, RecordsReader) and set(self.reader.fields) != set(self.fields):
            raise ValueError(
                f"reader.fields: wanted a column for each of the task's fields {list(self.fields)}, "
                f"found {list(self.reader.fields)}"
            )
        return self


class BudgetParams(Section):
    """What the task's Teacher calls may cost in all: over all stages, runs and processes that share the answer store.
    Null: no limit."""

    usd: Annotated[float, Field(gt=0)] | None
    calls: Annotated[int, Field(gt=0)] | None


class ModelPrice(Section):
    """US dollars per million tokens. `batch`: what a batch pays of it; `cacheable_tokens`: the shortest beginning that
    is cached; a request of more than `up_to` input tokens (null: no bound) has no known price."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    cache_write_5m: Annotated[float, Field(ge=0)]
    cache_write_1h: Annotated[float, Field(ge=0)]
    cache_read: Annotated[float, Field(ge=0)]
    batch: Share
    cacheable_tokens: Annotated[int, Field(ge=0)]
    up_to: Annotated[int, Field(gt=0)] | None


class PricesParams(Section):
    """Prices by model, as they were read at `source` on `as_of`."""

    as_of: date
    source: str
    models: dict[str, ModelPrice]


class AskingParams(Section):
    """`attempts` at a question whose answer is refused, each told what was wrong with the one before."""

    attempts: Annotated[int, Field(gt=0)]


class ExtractionParams(Section):
    """`examples`: the Teacher is asked about so many training examples, as many of each label as can be (null: about
    all), `draws` times about each. Which rules are refused, and how many may be; `personal_data: refuse` needs the
    extra `privacy`."""

    examples: Annotated[int, Field(gt=0)] | None
    draws: Annotated[int, Field(gt=0)]
    personal_data: Literal["allow", "refuse"]
    max_words: Annotated[int, Field(gt=0)]
    max_copied_words: Annotated[int, Field(gt=0)]
    max_rejected_fraction: Share


class ClusteringParams(Section):
    """What becomes of rules that the clusterer calls noise, and of those whose gold label the Teacher found doubtful:
    `downweight` counts one as `doubtful_weight` rules in medoids, support and order. `draw`: the rules of this draw
    alone; null: those of all."""

    noise: Literal["drop", "nearest", "singletons"]
    doubtful: Literal["keep", "drop", "downweight"]
    doubtful_weight: Annotated[float, Field(gt=0, le=1)]
    draw: Annotated[int, Field(ge=0)] | None


class MedoidConsolidator(Section):
    """Per cluster and label the rule nearest to the centroid; a label needs `min_share` of its cluster."""

    kind: Literal["medoid"]
    min_share: Share


class TeacherConsolidator(Section):
    """One structured Teacher call per cluster and label, `max_rules` rules shown; `max_calls` a trial at most."""

    kind: Literal["teacher"]
    min_share: Share
    max_rules: Annotated[int, Field(gt=0)]
    max_words: Annotated[int, Field(gt=0)]
    max_calls: Annotated[int, Field(gt=0)]


class RenderingParams(Section):
    """How instructions become the system prompt. `frame` names a template of pld.prompts; `exemplars` training
    sentences stand with each instruction or each label; `token_budget` (null: none) counts Student tokens."""

    frame: str
    order: Literal["support", "support_last", "label"]
    exemplars: Annotated[int, Field(ge=0)]
    exemplars_per: Literal["instruction", "label"]
    token_budget: Annotated[int, Field(gt=0)] | None


class SweepParams(Section):
    """The search. `space` maps section → setting → the values that are tried; `trials` bounds the tpe sampler;
    `storage` (null: in memory) is an Optuna storage URL that several workers share; the best `finalists` of
    the search are scored again at the reporting precision, and the winner is chosen among them."""

    sampler: Literal["grid", "tpe"]
    seed: int
    trials: Annotated[int, Field(gt=0)] | None
    storage: str | None
    finalists: Annotated[int, Field(gt=0)]
    space: dict[SearchedSection, dict[str, Annotated[tuple[Scalar, ...], Field(min_length=1)]]]

    @model_validator(mode="after")
    def _tpe_is_bounded(self) -> "SweepParams":
        if self.sampler == "tpe" and self.trials is None:
            raise ValueError("trials: wanted a number with sampler tpe, found null")
        return self

    @model_validator(mode="after")
    def _values_differ(self) -> "SweepParams":
        for section, settings in self.space.items():
            for key, values in settings.items():
                if len(set(map(repr, values))) < len(values):
                    raise ValueError(f"space.{section}.{key}: wanted different values, found {list(values)}")
        return self


class CalibrationParams(Section):
    """`none | batch` is what ships; both are always reported. `examples`: training examples that are scored."""

    method: Literal["none", "batch"]
    examples: Annotated[int, Field(gt=0)]


class NoResolver(Section):
    """The winner of the sweep ships as it is."""

    kind: Literal["none"]


class SearchResolver(Section):
    """Edits without an LLM: rules that are there already are added, exchanged, removed and moved."""

    kind: Literal["search"]


class TeacherResolver(Section):
    """One structured Teacher call a round, which sees the instructions, failures and successes; of its answer the
    first `max_edits` are tried, none of more than `max_words`. No further call once `max_tokens` are used (null: no
    limit)."""

    kind: Literal["teacher"]
    max_edits: Annotated[int, Field(gt=0)]
    max_words: Annotated[int, Field(gt=0)]
    max_tokens: Annotated[int, Field(gt=0)] | None


class GateParams(Section):
    """An Edit is accepted when macro-F1 on validation gains at least `min_gain`, the gain's probability of being
    positive is at least `min_confidence` (raised for the number of lists that all of validation chose from), and no
    declared label's recall falls by more than `max_label_loss` while its F1 falls too."""

    min_gain: Annotated[float, Field(ge=0, le=1)]
    min_confidence: Annotated[float, Field(ge=0.5, lt=1)]
    max_label_loss: Share
    resamples: Annotated[int, Field(ge=100)]


class ResolutionParams(Section):
    """The loop. `pool`: training examples predicted a round; `failures`: shown of them, with as many successes;
    `proposals`: lists that are measured on the pool a round, of which the best `candidates` race on validation. It ends
    after `rounds`, or `patience` rounds without an accepted Edit, or when nothing fits into `token_budget` (of the
    prompt; null: rendering.token_budget). `ablation`: measure what every instruction of the result does; `pruning:
    ablation` drops those that do nothing."""

    rounds: Annotated[int, Field(gt=0)]
    patience: Annotated[int, Field(gt=0)]
    pool: Annotated[int, Field(gt=0)]
    failures: Annotated[int, Field(gt=0)]
    sampler: Literal["covering", "random"]
    proposals: Annotated[int, Field(gt=0)]
    candidates: Annotated[int, Field(gt=0)]
    seed: int
    token_budget: Annotated[int, Field(gt=0)] | None
    gate: GateParams
    ablation: bool
    pruning: Literal["none", "ablation"]


class EvaluationParams(Section):
    """`seed` and `resamples` of the bootstrap."""

    seed: int
    resamples: Annotated[int, Field(ge=100)]


class LatencyParams(Section):
    """Timed requests of each system; a chain of thought has its own number. `trial_requests`: of each different prompt
    of the sweep (0: none is timed)."""

    requests: Annotated[int, Field(ge=50)]
    trial_requests: Annotated[int, Field(ge=0)]


class ChainOfThoughtParams(Section):
    """Greedy thinking of at most `max_tokens`, on `examples` of the test set (null: all of them)."""

    max_tokens: Annotated[int, Field(gt=0)]
    examples: Annotated[int, Field(gt=0)] | None
    latency_requests: Annotated[int, Field(gt=0)]


class LoraParams(Section):
    """LoRA fine-tuning of the Student on the training examples; an example above `max_tokens` is left out."""

    rank: Annotated[int, Field(gt=0)]
    alpha: Annotated[int, Field(gt=0)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    epochs: Annotated[int, Field(gt=0)]
    batch_size: Annotated[int, Field(gt=0)]
    max_tokens: Annotated[int, Field(gt=0)]
    seed: int


class GepaParams(Section):
    """GEPA's search for a system prompt: scored Student answers, and calls of the Teacher (null: as many as the
    distillation made)."""

    max_metric_calls: Annotated[int, Field(gt=0)]
    max_teacher_calls: Annotated[int, Field(gt=0)] | None
    seed: int


class BaselinesParams(Section):
    """What the distilled prompt is compared with. `few_shot`, `few_shot_nearest`: training examples shown.
    `lora` and `gepa` (null: not run) train for minutes; `gepa` needs a Teacher that can be asked."""

    seed: int
    few_shot: Annotated[int, Field(gt=0)]
    few_shot_nearest: Annotated[int, Field(gt=0)]
    chain_of_thought: ChainOfThoughtParams
    lora: LoraParams | None
    gepa: GepaParams | None


class TrackingParams(Section):
    """`uri` null: sqlite beside the project, or MLFLOW_TRACKING_URI where it is set."""

    uri: str | None


class PromotionParams(Section):
    """Gates. Null: not asked for."""

    better_than_zero_shot: bool
    not_worse_than_production: bool
    max_p95_ms: Annotated[float, Field(gt=0)] | None
    max_prompt_tokens: Annotated[int, Field(gt=0)] | None
    max_unparsable_rate: Annotated[float, Field(ge=0, le=1)] | None
    min_label_recall: Annotated[float, Field(ge=0, le=1)] | None
    require_review: bool


class Config(Section):
    """artifacts/config.yaml."""

    task: TaskParams
    teacher: Target
    asking: AskingParams
    budget: BudgetParams
    prices: PricesParams
    extraction: ExtractionParams
    embedder: Target
    clusterer: Target
    clustering: ClusteringParams
    consolidator: Annotated[MedoidConsolidator | TeacherConsolidator, Discriminator("kind")]
    rendering: RenderingParams
    student: Target
    calibration: CalibrationParams
    sweep: SweepParams
    resolver: Annotated[NoResolver | SearchResolver | TeacherResolver, Discriminator("kind")]
    resolution: ResolutionParams
    evaluation: EvaluationParams
    baselines: BaselinesParams
    latency: LatencyParams
    tracking: TrackingParams
    promotion: PromotionParams

    @field_validator("teacher", "embedder", "clusterer", "student")
    @classmethod
    def _has_target(cls, value: Target) -> Target:
        if not isinstance(value.get("_target_"), str):
            raise ValueError("wanted a _target_, found none")
        return value

    @model_validator(mode="after")
    def _draw_is_made(self) -> "Config":
        draw, draws = self.clustering.draw, self.extraction.draws
        if draw is not None and draw >= draws:
            raise ValueError(f"clustering.draw: wanted one of the extraction.draws {draws}, from 0, found {draw}")
        return self


S = TypeVar("S", bound=BaseModel)


def check(kind: type[S], value: Mapping[str, Any], where: str) -> S:
    """Validate `value` as `kind`; a ConfigError names the wrong key, what stands beside it, and `where`."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(item, value, where) for item in error.errors()[:3])) from None


def load_config(path: Path = CONFIG_PATH) -> Config:
    """Read and check the composed settings."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: wanted the composed settings, found no such file; run `make params`") from None
    return check(Config, value, str(path))


def unknown_key(key: str, known: list[str], where: str) -> str:
    """The one line for a key that does not exist: itself, its neighbours, its file."""
    near = difflib.get_close_matches(key.rpartition(".")[2], known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{where}: unknown key {key!r}{hint} Known here: {', '.join(known)}"


def _explain(item: Any, value: Mapping[str, Any], where: str) -> str:
    # pydantic puts the tag of a discriminated union into the location; it is no key of the file
    path: list[str] = []
    node: Any = value
    for part in item["loc"]:
        if isinstance(node, Mapping) and part in node:
            node = node[part]
            path.append(str(part))
        elif isinstance(node, list | tuple) and isinstance(part, int):
            node = node[part] if part < len(node) else None
            path.append(str(part))
        elif item["type"] in ("missing", "extra_forbidden") and part == item["loc"][-1]:
            path.append(str(part))
    dotted = ".".join(path)
    if path and where.endswith("config.yaml"):
        where = f"{where} (conf/{path[0]}/ or conf/config.yaml)"
    if item["type"] == "missing":
        return f"{where}: {dotted}: wanted a value, found none"
    if item["type"] == "extra_forbidden":
        parent: Any = value
        for part in path[:-1]:
            parent = parent[part]
        beside = sorted(str(key) for key in parent if key != path[-1])
        return unknown_key(dotted, beside, where)
    return f"{where}: {dotted or 'settings'}: {item['msg']}, found {item['input']!r:.80}"
