"""The verdict of an evaluation: whether to ship the distilled prompt, why, and what to use instead.

It judges what the promotion gates judge about one evaluation: better than zero-shot, and not clearly worse than each
rival. The other gates (latency, production, review) need more than the report and are judged by `track`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pld.evaluate.findings import Standing, rivals, standing
from pld.params import PromotionParams
from pld.records import CALIBRATED, CHAIN_OF_THOUGHT, FEW_SHOT, FEW_SHOT_NEAREST, LORA, WITHOUT_LLM, ZERO_SHOT
from pld.reports import Comparison, EvaluationReport, Recommendation, SystemCost

_NEVER_CALIBRATED = (*WITHOUT_LLM, CHAIN_OF_THOUGHT, LORA)
_WORDS: dict[Standing | None, str] = {
    "better": "clearly better than",
    "level": "level with",
    "worse": "clearly worse than",
    None: "not compared with",
}


@dataclass(frozen=True)
class _Rival:
    """`lead` over what ships in macro-F1, on the `n` examples that both answered; its `labels` and `tokens`."""

    name: str
    standing: Standing
    lead: float
    n: int
    labels: int
    tokens: int


def comparison_with(report: EvaluationReport, system: str) -> Comparison | None:
    """What ships minus `system` under the same calibration (as it is, if it never has one); None: not measured."""
    found = {own.b: own for own in report.comparisons if own.a == report.shipped}
    if not report.shipped.endswith(CALIBRATED):
        return found.get(system)
    return found.get(system + CALIBRATED) or (found.get(system) if system in _NEVER_CALIBRATED else None)


def unmet(report: EvaluationReport, gates: PromotionParams) -> tuple[str, ...]:
    """The systems against which the gates on comparisons fail, zero-shot first."""
    zero_shot = comparison_with(report, ZERO_SHOT)
    failed = [ZERO_SHOT] if gates.better_than_zero_shot and _standing(zero_shot) != "better" else []
    failed += [rival for rival in gates.rivals if _standing(comparison_with(report, rival)) in ("worse", None)]
    return tuple(failed)


def recommendation(report: EvaluationReport, costs: Mapping[str, SystemCost], gates: PromotionParams) -> Recommendation:
    """`costs`: of each system, by its name without calibration."""
    own = labels_used(report.shipped, costs), costs[_base(report.shipped)].tokens_per_request
    others = [
        _Rival(
            name=_base(found.b),
            standing=standing(found),
            lead=-found.macro_f1_delta.value,
            n=min(report.systems[found.a].n, report.systems[found.b].n),
            labels=labels_used(found.b, costs),
            tokens=costs[_base(found.b)].tokens_per_request,
        )
        for found in report.comparisons
        if found.a == report.shipped and found.b in rivals(report.shipped, report.systems)
    ]
    better, instead = _instead(report, others, *own)
    ships = not unmet(report, gates)
    if not ships:
        decision = "Don't ship the distilled prompt."
    elif better is None:
        decision = "Ship the distilled prompt."
    else:
        does = "does better with no more labels" if better.standing == "worse" else "does as well for less"
        decision = f"The distilled prompt passes its gates, but {better.name} {does}."
    return Recommendation(
        ships=ships,
        better=better.name if better else None,
        decision=decision,
        why=_why(report, gates),
        instead=instead,
    )


def _why(report: EvaluationReport, gates: PromotionParams) -> str:
    by_standing: dict[Standing | None, list[str]] = {}
    for name in dict.fromkeys((ZERO_SHOT, *gates.rivals)):
        by_standing.setdefault(_standing(comparison_with(report, name)), []).append(name)
    parts = [f"{words} {' and '.join(by_standing[key])}" for key, words in _WORDS.items() if key in by_standing]
    return f"On {report.n:,} test examples it is {', '.join(parts)}."


def _instead(report: EvaluationReport, others: list[_Rival], labels: int, tokens: int) -> tuple[_Rival | None, str]:
    """The system to use in place of what ships, which uses so many `labels` and `tokens`, and the sentence."""
    ahead = sorted((one for one in others if one.standing == "worse"), key=lambda one: (-one.lead, one.name))
    frugal = [one for one in ahead if one.labels <= labels]
    if no_llm := [one for one in frugal if one.name in WITHOUT_LLM]:
        best = no_llm[0]
        return best, (
            f"Use {best.name}: it needs no LLM and is clearly better{_by(report, best)} with {best.labels:,} labels "
            f"against {labels:,}."
        )
    if frugal:
        best = frugal[0]
        return best, (
            f"Use {best.name}: it is clearly better{_by(report, best)} with {best.labels:,} labels against {labels:,}, "
            f"at {best.tokens:,} tokens a request against {tokens:,}."
        )
    cheaper = [
        one
        for one in others
        if one.standing == "level"
        and one.name.startswith((ZERO_SHOT, FEW_SHOT))
        and one.name != FEW_SHOT_NEAREST
        and one.labels <= labels
        and one.tokens <= tokens
        and (one.labels, one.tokens) != (labels, tokens)
    ]
    if cheaper:
        best = min(cheaper, key=lambda one: (one.tokens, one.labels, one.name))
        return best, (
            f"Use {best.name}: it is not clearly different{_by(report, best)}, with {best.labels:,} labels and "
            f"{best.tokens:,} tokens a request against {labels:,} and {tokens:,}."
        )
    if ahead:
        best = ahead[0]
        return None, (
            f"Nothing does clearly better with as few labels ({labels:,}), but {best.name} does with "
            f"{best.labels:,}{_by(report, best)}."
        )
    return None, "Nothing else that was measured is clearly better, or as good for less."


def _by(report: EvaluationReport, rival: _Rival) -> str:
    part = "" if rival.n == report.n else f" on the {rival.n:,} examples that it answered"
    return f" (macro-F1 {rival.lead + 0.0:+.3f}{part})"


def _standing(found: Comparison | None) -> Standing | None:
    return standing(found) if found else None


def _base(system: str) -> str:
    return system.removesuffix(CALIBRATED)


def labels_used(system: str, costs: Mapping[str, SystemCost]) -> int:
    """Labelled training examples behind `system`, with those of its calibration if that is its calibrated variant."""
    cost = costs[_base(system)]
    calibrated = cost.labels_used_calibrated if system.endswith(CALIBRATED) else None
    return cost.labels_used if calibrated is None else calibrated
