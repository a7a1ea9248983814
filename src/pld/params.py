"""Typed settings: the sections of artifacts/config.yaml. Unknown keys are refused; all defaults are in conf/.

The four swappable roles (teacher, embedder, clusterer, student) are mappings here. `pld.config.build` checks them
against the constructor that their `_target_` names.
"""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, field_validator, model_validator

from pld.records import (
    CHAIN_OF_THOUGHT,
    CLUSTERED,
    FEW_SHOT,
    FEW_SHOT_NEAREST,
    GEPA,
    LOGREGS,
    LORA,
    MAJORITY,
)
from pld.task_params import Section, TaskParams

Target = dict[str, Any]
Scalar = str | int | float | bool | None
SearchedSection = Literal["clusterer", "clustering", "consolidator", "rendering"]
Share = Annotated[float, Field(ge=0, le=1)]


class BudgetParams(Section):
    """Limits on the task's Teacher calls, over all runs and processes that share the answer store; null: none."""

    usd: Annotated[float, Field(gt=0)] | None
    calls: Annotated[int, Field(gt=0)] | None


class ModelPrice(Section):
    """US dollars per million tokens. `batch`: the share of the price that a batch pays; `cacheable_tokens`: the
    shortest prefix that is cached; a request of more than `up_to` input tokens (null: no bound) has no known price."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]
    cache_write_5m: Annotated[float, Field(ge=0)]
    cache_write_1h: Annotated[float, Field(ge=0)]
    cache_read: Annotated[float, Field(ge=0)]
    batch: Share
    cacheable_tokens: Annotated[int, Field(ge=0)]
    up_to: Annotated[int, Field(gt=0)] | None


class PricesParams(Section):
    """Prices by model, read at `source` on `as_of`."""

    as_of: date
    source: str
    models: dict[str, ModelPrice]


class AskingParams(Section):
    """`attempts`: how often a question is asked when its answers are refused; each repeat names the fault."""

    attempts: Annotated[int, Field(gt=0)]


class ExtractionParams(Section):
    """`examples`: number of training examples to explain, balanced by label (null: all); `draws`: how often each one is
    explained. The rest says which rules are refused and how many may be; `personal_data: refuse` needs the extra
    `privacy`."""

    examples: Annotated[int, Field(gt=0)] | None
    draws: Annotated[int, Field(gt=0)]
    personal_data: Literal["allow", "refuse"]
    max_words: Annotated[int, Field(gt=0)]
    max_copied_words: Annotated[int, Field(gt=0)]
    max_rejected_fraction: Share


class ClusteringParams(Section):
    """What happens to rules that the clusterer calls noise, and to those whose gold label the Teacher doubts:
    `downweight` counts one as `doubtful_weight` rules in medoids, support and order. `draw`: use the rules of this draw
    only (null: all draws)."""

    noise: Literal["drop", "nearest", "singletons"]
    doubtful: Literal["keep", "drop", "downweight"]
    doubtful_weight: Annotated[float, Field(gt=0, le=1)]
    draw: Annotated[int, Field(ge=0)] | None


class MedoidConsolidator(Section):
    """The rule nearest to the centroid, per cluster and label; a label needs `min_share` of its cluster."""

    kind: Literal["medoid"]
    min_share: Share


class TeacherConsolidator(Section):
    """Instructions by the Teacher. `scope`: `label` asks for up to `instructions` per label with all of its rules in
    view, and for a checklist of at most `max_steps` where rendering.frame is one; `cluster` merges each label's rules
    in a cluster (`min_share` of it at least), in up to `max_calls` calls per trial. A question shows up to `max_rules`
    rules in about `max_characters`."""

    kind: Literal["teacher"]
    scope: Literal["label", "cluster"]
    instructions: Annotated[int, Field(gt=0)]
    max_steps: Annotated[int, Field(gt=0)]
    min_share: Share
    max_rules: Annotated[int, Field(gt=0)]
    max_characters: Annotated[int, Field(gt=0)]
    max_words: Annotated[int, Field(gt=0)]
    max_calls: Annotated[int, Field(gt=0)]


class RenderingParams(Section):
    """How instructions become the prompt. `frame` names a template of pld.prompts; `exemplars`: training examples shown
    with each instruction or label, or in the whole prompt, in the system message or as turns of the chat after it;
    `token_budget` (null: none) counts Student tokens of all messages."""

    frame: str
    order: Literal["support", "support_last", "label", "given"]
    exemplars: Annotated[int, Field(ge=0)]
    exemplars_per: Literal["instruction", "label", "prompt"]
    exemplars_as: Literal["inline", "turns"]
    token_budget: Annotated[int, Field(gt=0)] | None


class RaceParams(Section):
    """The sampler `race`. The first part of validation has `first` examples a label, each further one is `factor` times
    larger; at most the share `keep` of the prompts (and never fewer than `finalists`) goes on to the next part, and
    none that is behind the leader with probability 1 - `alpha`."""

    first: Annotated[int, Field(gt=0)]
    factor: Annotated[int, Field(gt=1)]
    keep: Annotated[float, Field(gt=0, le=1)]
    alpha: Annotated[float, Field(gt=0, le=1)]


class SweepParams(Section):
    """The search. `space` maps section → setting → the values to try; `trials` bounds the tpe sampler, `race` belongs
    to the sampler of that name; `storage` (null: in memory) is an Optuna storage URL that several workers share (grid
    and tpe); the winner is chosen among the best `finalists`, at the reporting precision."""

    sampler: Literal["race", "grid", "tpe"]
    seed: int
    trials: Annotated[int, Field(gt=0)] | None
    race: RaceParams | None
    storage: str | None
    finalists: Annotated[int, Field(gt=0)]
    space: dict[SearchedSection, dict[str, Annotated[tuple[Scalar, ...], Field(min_length=1)]]]

    @model_validator(mode="after")
    def _tpe_is_bounded(self) -> "SweepParams":
        if self.sampler == "tpe" and self.trials is None:
            raise ValueError("expected trials with sampler tpe, got null")
        return self

    @model_validator(mode="after")
    def _race_is_whole(self) -> "SweepParams":
        if self.sampler == "race" and self.race is None:
            raise ValueError("expected race with sampler race, got null")
        if self.sampler == "race" and self.storage is not None:
            raise ValueError("expected storage null with sampler race, which runs in one process, got a URL")
        return self

    @model_validator(mode="after")
    def _values_differ(self) -> "SweepParams":
        for section, settings in self.space.items():
            for key, values in settings.items():
                if len(set(map(repr, values))) < len(values):
                    raise ValueError(f"expected different values, got {list(values)} in space.{section}.{key}")
        return self


class CalibrationParams(Section):
    """`method` is what ships; scores with and without it are always reported (with `none`, affine is). `examples`: how
    many training examples it is fitted on, at most."""

    method: Literal["none", "batch", "affine"]
    examples: Annotated[int, Field(gt=0)]


class NoResolver(Section):
    """The winner of the sweep ships as it is."""

    kind: Literal["none"]


class SearchResolver(Section):
    """Edits without an LLM: add, exchange, remove and move rules that the Teacher has already written."""

    kind: Literal["search"]


class TeacherResolver(Section):
    """One structured Teacher call per round, which sees the instructions, failures and successes. The first `max_edits`
    of its answer are tried, none longer than `max_words`; no call after `max_tokens` (null: no limit)."""

    kind: Literal["teacher"]
    max_edits: Annotated[int, Field(gt=0)]
    max_words: Annotated[int, Field(gt=0)]
    max_tokens: Annotated[int, Field(gt=0)] | None


class GateParams(Section):
    """An Edit is accepted when macro-F1 on validation gains at least `min_gain`, the gain is positive with probability
    `min_confidence` (corrected for the number of lists compared on all of validation), and no declared label's recall
    falls by more than `max_label_loss` while its F1 falls too."""

    min_gain: Annotated[float, Field(ge=0, le=1)]
    min_confidence: Annotated[float, Field(ge=0.5, lt=1)]
    max_label_loss: Share
    resamples: Annotated[int, Field(ge=100)]


class ResolutionParams(Section):
    """The conflict loop. Per round: predict `pool` training examples, show the proposer `failures` of them with as many
    successes, measure `proposals` lists on the pool, and race the best `candidates` on validation. The loop ends after
    `rounds`, after `patience` rounds without an accepted Edit, or when nothing fits into `token_budget` (of the prompt;
    null: rendering.token_budget). `ablation` measures the effect of every final instruction on `ablation_examples` of
    validation (null: all); `pruning: ablation` drops those without one."""

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
    ablation_examples: Annotated[int, Field(gt=0)] | None
    pruning: Literal["none", "ablation"]


class EvaluationParams(Section):
    """The bootstrap of all intervals."""

    seed: int
    resamples: Annotated[int, Field(ge=100)]


class LatencyParams(Section):
    """Timed requests per system; `trial_requests`: per distinct prompt of the sweep (0: don't time them)."""

    requests: Annotated[int, Field(ge=50)]
    trial_requests: Annotated[int, Field(ge=0)]


class ChainOfThoughtParams(Section):
    """Greedy reasoning of at most `max_tokens`, on `examples` of the test set (null: all)."""

    max_tokens: Annotated[int, Field(gt=0)]
    examples: Annotated[int, Field(gt=0)] | None
    latency_requests: Annotated[int, Field(gt=0)]


class NearestParams(Section):
    """`shown`: training examples, the nearest to each input; on `examples` of the test set (null: all)."""

    shown: Annotated[int, Field(gt=0)]
    examples: Annotated[int, Field(gt=0)] | None


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
    """GEPA's search for a prompt: scored Student answers and Teacher calls (null: as many as the distillation made)."""

    max_metric_calls: Annotated[int, Field(gt=0)]
    max_teacher_calls: Annotated[int, Field(gt=0)] | None
    seed: int


class BaselinesParams(Section):
    """What the distilled prompt is compared with. `few_shot`: numbers of training examples shown, ascending, a system
    each. `lora` and `gepa` (null: don't run) train for minutes; `gepa` needs a Teacher that answers new questions."""

    seed: int
    few_shot: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)]
    few_shot_nearest: NearestParams
    chain_of_thought: ChainOfThoughtParams
    lora: LoraParams | None
    gepa: GepaParams | None

    @property
    def few_shot_systems(self) -> dict[str, int]:
        """System → number of examples shown; the name has the number in it for all but the first."""
        return {f"{FEW_SHOT}_{size}" if place else FEW_SHOT: size for place, size in enumerate(self.few_shot)}

    @model_validator(mode="after")
    def _few_shot_ascends(self) -> "BaselinesParams":
        if list(self.few_shot) != sorted(set(self.few_shot)):
            raise ValueError(f"expected few_shot to ascend, got {list(self.few_shot)}")
        return self


class TrackingParams(Section):
    """`uri` null: MLFLOW_TRACKING_URI, or else SQLite in the project."""

    uri: str | None


class PromotionParams(Section):
    """Promotion gates; null switches one off. `rivals`: systems that a candidate must not be clearly worse than."""

    better_than_zero_shot: bool
    rivals: tuple[str, ...]
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
            raise ValueError("expected a _target_, got none")
        return value

    @model_validator(mode="after")
    def _rivals_are_systems(self) -> "Config":
        systems = (
            MAJORITY,
            *self.baselines.few_shot_systems,
            FEW_SHOT_NEAREST,
            CHAIN_OF_THOUGHT,
            *LOGREGS,
            *([LORA] if self.baselines.lora else []),
            *([GEPA] if self.baselines.gepa else []),
            CLUSTERED,
        )
        for rival in self.promotion.rivals:
            if rival not in systems:
                raise ValueError(f"expected promotion.rivals among {', '.join(systems)}, got {rival!r}")
        return self

    @model_validator(mode="after")
    def _draw_is_made(self) -> "Config":
        draw, draws = self.clustering.draw, self.extraction.draws
        if draw is not None and draw >= draws:
            raise ValueError(f"expected clustering.draw below extraction.draws = {draws}, got {draw}")
        return self
