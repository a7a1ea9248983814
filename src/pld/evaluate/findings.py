"""Which systems the shipped prompt is compared with, and the results that a reader must not miss, as sentences."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from pld.records import CALIBRATED, DISTILLED, EMBEDDING_LOGREG, FEW_SHOT_NEAREST, WITHOUT_LLM
from pld.reports import Comparison, EvaluationReport, LoopEffect, SystemReport

Standing = Literal["better", "level", "worse"]


def shipped_system(method: str) -> str:
    """The system that is registered, by `calibration.method`."""
    return DISTILLED + (CALIBRATED if method != "none" else "")


def rivals(system: str, measured: Collection[str]) -> tuple[str, ...]:
    """The other systems of `measured` that `system` is compared with: their calibrated variants if `system` is
    calibrated and they have one."""
    names = (name for name in measured if not name.endswith(CALIBRATED) and name != system.removesuffix(CALIBRATED))
    return tuple(_variant(name, system, measured) for name in names)


def compared_as(name: str, report: EvaluationReport) -> str:
    """The variant of the system `name` that is compared with what ships, or that ships."""
    return _variant(name, report.shipped, report.systems)


def _variant(name: str, system: str, measured: Collection[str]) -> str:
    calibrated = name + CALIBRATED
    return calibrated if system.endswith(CALIBRATED) and calibrated in measured else name


def comparisons_of_shipped(report: EvaluationReport) -> dict[str, Comparison]:
    """Name of each rival → what ships minus the rival."""
    wanted = rivals(report.shipped, report.systems)
    return {found.b: found for found in report.comparisons if found.a == report.shipped and found.b in wanted}


def standing(found: Comparison) -> Standing:
    """Of `found.a` against `found.b`: clear if the 95 % interval of the difference excludes 0."""
    delta = found.macro_f1_delta
    return "better" if delta.low > 0 else "worse" if delta.high < 0 else "level"


def findings(
    shipped: str, systems: Mapping[str, SystemReport], comparisons: Sequence[Comparison], task: str
) -> tuple[str, ...]:
    """A sentence for each system without an LLM that does better than the `shipped` one."""
    own = systems[shipped].macro_f1.value
    sentences = []
    for found in comparisons:
        delta = found.macro_f1_delta
        if found.a != shipped or found.b not in WITHOUT_LLM or delta.value >= 0:
            continue
        figures = f"macro-F1 {systems[found.b].macro_f1.value:.3f} against {own:.3f}"
        difference = f"by {-delta.value:.3f} [{-delta.high:.3f}, {-delta.low:.3f}]"
        clear = difference if delta.high < 0 else f"{difference}, which may be chance"
        sentences.append(f"{found.b}, which needs no LLM, does better than {shipped} on {task}: {figures}, {clear}.")
    return tuple(sentences)


def loop_findings(loop: LoopEffect | None) -> tuple[str, ...]:
    """A sentence if the loop's gain on test differs from the gain on validation, where it was selected."""
    if loop is None:
        return ()
    chosen, honest = loop.validation.macro_f1_delta.value, loop.test.macro_f1_delta
    figures = f"macro-F1 {chosen:+.3f} on validation, where it was chosen, and {honest.signed} on test"
    if loop.accepted and honest.value <= 0:
        return (f"What the loop accepted gained nothing on examples that it had not seen: {figures}.",)
    if not honest.low <= chosen <= honest.high:
        return (f"The loop's gain on test is not the one that validation promised: {figures}.",)
    return ()


def unparsable_findings(systems: Mapping[str, SystemReport]) -> tuple[str, ...]:
    """A sentence for each system with unparsable test examples."""
    return tuple(
        f"{name} has no answer to {report.unparsable:,} of {report.n:,} test examples (unparsable, as inputs "
        "are that are longer than the Student's context), which count as wrong."
        for name, report in systems.items()
        if report.unparsable and not name.endswith(CALIBRATED)
    )


def window_findings(exceeding: int, n: int) -> tuple[str, ...]:
    """A sentence if inputs of the `n` test examples exceed the embedder's window."""
    if not exceeding:
        return ()
    return (
        f"{exceeding:,} of {n:,} test inputs are longer than the embedder's window: {FEW_SHOT_NEAREST} and "
        f"{EMBEDDING_LOGREG} see the mean of the vectors of their fields, and of the parts of a long field.",
    )
