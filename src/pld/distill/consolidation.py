"""From rules to instructions by the configured consolidator: medoids or merges per cluster, or the Teacher's
instructions per label and their checklist."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pld.distill.checklist import FRAME, STEP, checklist
from pld.distill.cluster import Clustering, chosen_rules, cluster_rules
from pld.distill.consolidate import medoids, rule_groups, weigher
from pld.distill.label_consolidation import CONSOLIDATED, Checks, consolidate
from pld.distill.personal_data import personal_data_check
from pld.distill.teacher_consolidation import MERGED, merge
from pld.errors import ConfigError, DistillError, WaitingError
from pld.params import Config, Scalar, TeacherConsolidator
from pld.ports import Clusterer, Teacher, Vectors
from pld.records import Example, Instruction, Rule

_ASKED = ("clusterer", "clustering", "consolidator")  # sections of the space on which questions depend


@dataclass(frozen=True)
class Consolidated:
    """`in_order`: the instructions are a checklist, whose order stays."""

    clustering: Clustering
    instructions: list[Instruction]
    in_order: bool = False


def consolidated(
    config: Config,
    rules: Sequence[Rule],
    vectors: Vectors,
    train: Mapping[str, Example],
    clusterer: Clusterer,
    teacher: Teacher | None,
) -> Consolidated:
    """The instructions of one trial; `vectors` [n, d] belong to `rules` [n]. Deterministic.

    Raises DistillError when clustering leaves nothing.
    """
    params, task, attempts = config.consolidator, config.task, config.asking.attempts
    rules, vectors = chosen_rules(rules, vectors, config.clustering)
    weigh = weigher(rules, config.clustering)
    clustering = cluster_rules(rules, vectors, clusterer, config.clustering.noise)
    groups = rule_groups(clustering.clusters, rules, vectors, params.min_share, weigh)
    if not isinstance(params, TeacherConsolidator):
        return Consolidated(clustering, medoids(groups, weigh))
    if teacher is None:
        raise ConfigError("expected a Teacher to consolidate rules, got none (groups.consolidator=teacher)")
    checks = Checks(
        task,
        params.max_words,
        config.extraction.max_copied_words,
        personal_data_check(config.extraction.personal_data),
    )
    if params.scope == "cluster":
        instructions = merge(task, groups, params, teacher, attempts, weigh=weigh)
    else:
        instructions = consolidate(checks, rules, vectors, groups, train, params, teacher, attempts, weigh)
    if config.rendering.frame == FRAME:
        by_id = {rule.id: rule for rule in rules}
        steps = checklist(checks, instructions, by_id, train, params.max_steps, teacher, attempts, weigh)
        if steps is not None:
            return Consolidated(clustering, steps, in_order=True)
    return Consolidated(clustering, instructions)


def calls_behind(instructions: Sequence[Instruction]) -> int:
    """How many questions to the Teacher made `instructions` of a list, by their origins; repeated ones not counted."""
    origins = [instruction.origin for instruction in instructions]
    merges = sum(origin.startswith(MERGED) or "merge refused" in origin for origin in origins)
    labels = {
        instruction.label
        for instruction in instructions
        if instruction.origin.startswith((CONSOLIDATED, STEP)) or "consolidation refused" in instruction.origin
    }
    return merges + len(labels) + any(origin.startswith(STEP) for origin in origins)


def asked_space(space: Mapping[Any, Mapping[str, Sequence[Scalar]]]) -> dict[str, dict[str, Sequence[Scalar]]]:
    """The part of the sweep's `space` on which the Teacher's questions depend."""
    return {
        section: {
            name: values
            for name, values in settings.items()
            if section in _ASKED or (section, name) == ("rendering", "frame")
        }
        for section, settings in space.items()
    }


def ask_ahead(points: Iterable[Mapping[str, Scalar]], consolidate_at: Callable[[Mapping[str, Scalar]], object]) -> None:
    """Ask the questions of all `points` of the sweep by `consolidate_at`, before any is measured: those that wait for
    an offline Teacher then wait together. Raises the last WaitingError, which counts them all."""
    waiting: WaitingError | None = None
    for settings in points:
        try:
            consolidate_at(settings)
        except WaitingError as error:
            waiting = error
        except DistillError:
            continue  # the trial itself will say so
    if waiting:
        raise waiting
