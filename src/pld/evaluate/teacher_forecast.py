"""What the stages would ask the configured Teacher, set against the store of its answers: the facts of an estimate."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pld import prompts
from pld.adapters.teachers.answer_store import FILE_NAME, AnswerStore
from pld.adapters.teachers.paid import PaidTeacher
from pld.adapters.teachers.recorded import RecordedTeacher
from pld.artifacts import read_jsonl, read_record
from pld.config.assets import cache_folder
from pld.config.composition import with_settings
from pld.distill import extract as extraction
from pld.distill import teacher_consolidation as merging
from pld.distill.cluster import chosen_rules
from pld.distill.consolidate import rule_groups, weigher
from pld.distill.cost_estimate import (
    RECORDED,
    STAGES,
    Ahead,
    Estimate,
    Experience,
    ahead_of,
    characters_of,
    estimate_stage,
    sample,
)
from pld.distill.render import render_input
from pld.errors import ArtifactError, ConfigError, DistillError, TeacherError
from pld.evaluate.gepa import MAX_WORDS, ROLE, SHOWN, ProposedPrompt
from pld.params import Config, TeacherConsolidator, TeacherResolver
from pld.ports import Teacher, TeacherAnswer, TeacherRequest
from pld.pricing import price_of
from pld.records import Cluster, Example, Instruction, Rule, TrialReport, canonical_json
from pld.resolve import teacher_proposer as teacher_edits
from pld.resolve.inputs import read_vectors
from pld.resolve.proposer import Answered, Evidence

_LOOKED_UP_AT_ONCE = 1000
_SAMPLE = 20  # requests that are counted
_LETTERS = 6.5  # of an English word with its space
_REMARKS = 150  # characters that GEPA's question says about an example
_GEPA_WORDS = 1000  # characters of GEPA's own question, a little more than it has


def forecast(
    config: Config,
    teacher: Teacher,
    folder: Path = Path("artifacts"),
    stages: Sequence[str] = STAGES,
    *,
    counted: bool = True,
) -> Estimate:
    """What each of `stages` would ask `teacher` (that of `config`), as far as the files in `folder` tell.

    `counted`: have the provider count the tokens of a few requests, which is free of charge. Asks nothing. Raises
    ArtifactError without a train split, and TeacherError where the answer store or a recording can't be read.
    """
    found = _Facts(config, teacher, folder, counted)
    spent = found.store.spent(config.task.name)
    makers = {"extract": found.extract, "sweep": found.sweep, "resolve": found.resolve, "evaluate": found.evaluate}
    aheads = [ahead for stage in stages for ahead in makers[stage]()]
    return Estimate(
        task=config.task.name,
        teacher=teacher.name,
        way=found.way,
        prices_as_of=config.prices.as_of,
        prices_source=config.prices.source,
        budget_usd=config.budget.usd,
        budget_calls=config.budget.calls,
        spent_usd=spent.all_usd,
        spent_calls=spent.all_calls,
        stages=tuple(estimate_stage(ahead, found.experience(ahead, requests)) for ahead, requests in aheads),
    )


Asked = tuple[Ahead, Sequence[TeacherRequest]]
"""What lies ahead, and those of its requests that are known to the letter and have no answer yet."""


class _Facts:
    """Each method yields what its stage would ask, or nothing where it asks nobody."""

    def __init__(self, config: Config, teacher: Teacher, folder: Path, counted: bool) -> None:
        self.config = config
        self.teacher = teacher
        self.folder = folder
        self.counted = counted
        self.store = AnswerStore(cache_folder() / FILE_NAME)
        self.train = _train(config, folder / "splits/train.jsonl")
        self.asked = extraction.asked_about(config.task, self.train, config.extraction)

    @property
    def way(self) -> str:
        return self.teacher.way_of(extraction.ROLE) if isinstance(self.teacher, PaidTeacher) else RECORDED

    def extract(self) -> Iterator[Asked]:
        draws = self.config.extraction.draws
        of = f" of {len(self.train):,}" if len(self.asked) < len(self.train) else ""
        basis = f"{len(self.asked):,}{of} training examples{f' x {draws} draws' * (draws > 1)}"
        requests = extraction.extraction_requests(self.config.task, self.asked, self.config.extraction)
        if requests:
            yield self._known("extract", requests, basis)

    def sweep(self) -> Iterator[Asked]:
        params = self.config.consolidator
        if not isinstance(params, TeacherConsolidator):
            return
        trials = sorted((self.folder / "trials").glob("*/report.json"))
        requests = self._merges(trials, params)
        if requests:
            yield self._known("sweep", requests, f"the clusters of the {len(trials)} trials that are there")
            return
        rules = self._rules()
        count = len(rules) or len(self.asked) * self.config.extraction.draws
        words = self.config.extraction.max_words * _LETTERS
        each = sum(len(rule.text) for rule in rules) / len(rules) if rules else words
        a_clustering = min(params.max_calls, max(count // 2, 1))
        shown = min(count / a_clustering, params.max_rules) * each
        clusterings = self._clusterings()
        constant = _constant(
            prompts.render(
                "merge_system",
                base_instruction=self.config.task.base_instruction,
                labels=self.config.task.labels,
                max_words=params.max_words,
            ),
            extraction.answer_schema(merging.MergeAnswer, self.config.task.labels),
        )
        basis = f"at most {a_clustering:,} groups of several rules in each of {clusterings:,} clusterings"
        yield _bound("sweep", merging.ROLE, clusterings * a_clustering, constant, shown, basis), ()

    def resolve(self) -> Iterator[Asked]:
        params = self.config.resolver
        if not isinstance(params, TeacherResolver):
            return
        request = teacher_edits.resolve_request(self._evidence(), params)
        rounds = self.config.resolution.rounds
        basis = f"at most resolution.rounds {rounds}, each as large as a full one"
        constant = _constant(request.system, dict(request.schema))
        yield _bound("resolve", teacher_edits.ROLE, rounds, constant, len(request.prompt), basis), ()

    def evaluate(self) -> Iterator[Asked]:
        params = self.config.baselines.gepa
        if params is None:
            return
        calls = params.max_teacher_calls
        basis = "at most baselines.gepa.max_teacher_calls"
        if calls is None:
            earlier = [ahead.calls for stage in (self.extract, self.sweep, self.resolve) for ahead, _ in stage()]
            calls, basis = sum(earlier), "at most as many as the distillation makes"
        task = self.config.task
        inputs = sum(len(render_input(task, example.inputs)) for example in self.train) / max(len(self.train), 1)
        shown = _GEPA_WORDS + len(task.base_instruction) + SHOWN * (inputs + _REMARKS)
        system = prompts.render("gepa_system", labels=task.labels, max_words=MAX_WORDS)
        constant = _constant(system, ProposedPrompt.model_json_schema())
        yield _bound("evaluate", ROLE, calls, constant, shown, f"{basis}, with a prompt as short as the first"), ()

    def experience(self, ahead: Ahead, requests: Sequence[TeacherRequest]) -> Experience:
        """`requests`: of `ahead`, those to count a sample of."""
        teacher = self.teacher
        if not isinstance(teacher, PaidTeacher):
            return Experience(teacher.name, None, self.way, 1)
        model = teacher.model_of(ahead.role)
        return Experience(
            model=model,
            price=price_of(self.config.prices, model),
            way=teacher.way_of(ahead.role),
            attempts=self.config.asking.attempts,
            counted=self._count(teacher, sample(requests, _SAMPLE)) if self.counted and requests else None,
            past=self.store.mean_usage(ahead.role, model),
            refused=self.store.refused_share(ahead.role, model),
        )

    def _known(self, stage: str, requests: Sequence[TeacherRequest], basis: str) -> Asked:
        stored = self._stored(requests)
        left = [request for request in requests if request.key not in stored]
        role, task = requests[0].role, self.config.task.name
        earlier = self.store.earlier(task, role, [request.key for request in left]) if left else 0
        return ahead_of(stage, requests, stored, earlier, basis), left

    def _stored(self, requests: Sequence[TeacherRequest]) -> set[str]:
        if isinstance(self.teacher, PaidTeacher):
            keys = list(self.teacher.keys_of(requests).items())
            found: set[str] = set()
            for at in range(0, len(keys), _LOOKED_UP_AT_ONCE):  # not all at once: answers fill the memory
                some = keys[at : at + _LOOKED_UP_AT_ONCE]
                stored = self.store.get_many(key for _, key in some)
                found.update(name for name, key in some if key in stored)
            return found
        if isinstance(self.teacher, RecordedTeacher):
            return {request.key for request in requests if self.teacher.has(request)}
        return set()

    def _count(self, teacher: PaidTeacher, requests: Sequence[TeacherRequest]) -> tuple[int, int, int] | None:
        try:
            counts = teacher.count_tokens(requests)
        except TeacherError:  # an estimate goes on without: it says what it rests on
            return None
        return None if counts is None else (len(counts), sum(counts), sum(map(characters_of, requests)))

    def _rules(self) -> list[Rule]:
        path = self.folder / "rules/rules.jsonl"
        return read_jsonl(path, Rule) if path.exists() else []

    def _clusterings(self) -> int:
        """How many points of the sweep can differ in their groups of rules."""
        space = self.config.sweep.space
        sections = [space[name] for name in ("clusterer", "clustering", "consolidator") if name in space]
        points = math.prod(len(values) for section in sections for values in section.values())
        trials = self.config.sweep.trials if self.config.sweep.sampler == "tpe" else None
        return points if trials is None else min(points, trials)

    def _merges(self, trials: Sequence[Path], params: TeacherConsolidator) -> list[TeacherRequest] | None:
        """What merging the clusters of `trials` asks; None where they are of other rules or settings."""
        heard = _Listener()
        try:
            rules = self._rules()
            vectors = read_vectors(self.folder, rules)
            for path in trials:
                changed = with_settings(self.config, read_record(path, TrialReport).settings)
                chosen, own = chosen_rules(rules, vectors, changed.clustering)
                weigh = weigher(chosen, changed.clustering)
                clusters = read_jsonl(path.with_name("clusters.jsonl"), Cluster)
                known = {rule.id for rule in chosen}
                if not all(known.issuperset(cluster.rule_ids) for cluster in clusters):
                    return None
                settings = changed.consolidator if isinstance(changed.consolidator, TeacherConsolidator) else params
                groups = rule_groups(clusters, chosen, own, settings.min_share, weigh)
                merging.merge(self.config.task, groups, settings, heard, 1, weigh=weigh)
        except (ArtifactError, ConfigError, DistillError):
            return None
        return list(heard.asked.values())

    def _evidence(self) -> Evidence:
        """A round with as many failures and successes as it may have."""
        config, labels = self.config, self.config.task.labels
        path = self.folder / "best/instructions.jsonl"
        size = config.resolution.failures
        wrong = [Answered(one, next(x for x in labels if x != one.label), 1.0) for one in self.train[:size]]
        right = [Answered(one, one.label, 1.0) for one in self.train[size : 2 * size]]
        return Evidence(
            round=1,
            task=config.task,
            instructions=read_jsonl(path, Instruction) if path.exists() else (),
            failures=wrong,
            successes=right,
            blames=(),
            rules=self._rules(),
            vectors=np.empty((0, 0), dtype=np.float32),
            clusters={},
        )


class _Listener:
    """Hears what is asked, and leaves all of it out."""

    name = "nobody"

    def __init__(self) -> None:
        self.asked: dict[str, TeacherRequest] = {}

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        self.asked |= {request.key: request for request in requests}
        yield from ()


def _train(config: Config, path: Path) -> list[Example]:
    if not path.exists():
        raise ArtifactError(f"{path}: wanted the training examples, found no such file; run `dvc repro prepare`")
    examples, task = read_jsonl(path, Example), config.task
    for example in examples:
        if example.label not in task.labels or set(example.inputs) != set(task.fields):
            raise ArtifactError(
                f"{path}: wanted examples of task {task.name}, found {example.id} with label {example.label!r} and "
                f"fields {list(example.inputs)}; run `dvc repro prepare`"
            )
    return examples


def _constant(system: str, schema: object) -> int:
    return len(system) + len(canonical_json(schema))


def _bound(stage: str, role: str, calls: int, constant: int, shown: float, basis: str) -> Ahead:
    return Ahead(stage, role, calls, 0, 0, constant + shown, constant, basis, at_most=True)
