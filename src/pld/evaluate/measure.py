"""Asks every system for its answers on test, and makes the evaluation report from them."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from pld.calibration import calibrate
from pld.distill.calibrating import fitted
from pld.distill.trial import groups_of, sample
from pld.evaluate.findings import findings, loop_findings, rivals, shipped_system, unparsable_findings, window_findings
from pld.evaluate.latency import measure_latency, time_prefill
from pld.evaluate.systems import Prompted, Replies, System
from pld.evaluate.verdict import recommendation
from pld.metrics import (
    Indices,
    choose,
    compare,
    indices,
    predictions,
    system_report,
)
from pld.params import Config
from pld.ports import OnProgress, Scores
from pld.records import CALIBRATED, CLUSTERED, DISTILLED, UNREVIEWED, Calibration, Chain, Example, Message, Prediction
from pld.reports import Comparison, EvaluationReport, Latency, LoopEffect, SystemCost, SystemReport
from pld.resolve.records import ResolutionReport


@dataclass(frozen=True)
class Answers:
    """One system's uncalibrated `scores` [n, k] on the test `examples` [n] that it answered. `calibration` None: there
    is no calibrated variant. `beginning`: the messages that all requests share."""

    examples: Sequence[Example]
    scores: Scores
    calibration: Calibration | None
    prompt_tokens: int
    cost: SystemCost
    chains: Sequence[Chain] = ()
    beginning: Sequence[Message] = ()


def asked_of(system: System, test: Sequence[Example], seed: int) -> list[Example]:
    """The test examples that `system` answers: all, or its seeded sample of them."""
    return sample(test, len(test) if system.sample is None else system.sample, f"{system.name} {seed}")


def measured(
    system: System,
    asked: Sequence[Example],
    config: Config,
    requests: int,
    on_progress: OnProgress | None = None,
) -> tuple[Answers, Latency]:
    """Answers of `system` to `asked`, and how fast it gives them. The shared messages are computed once, for both."""
    prefill_ms = time_prefill(system)
    answers = answers_of(system, asked, config, on_progress)
    return answers, measure_latency(system, asked, requests, prefill_ms)


def answers_of(
    system: System, asked: Sequence[Example], config: Config, on_progress: OnProgress | None = None
) -> Answers:
    """Ask `system` about `asked` and the training examples that calibrate it (`on_progress` counts both), in one call
    except for those that its prompt shows."""
    n, calibration = len(asked), system.calibration
    parts = system.calibration_parts if calibration is None else ()
    unseen = [example for part in parts if part.messages == system.beginning for example in part.examples]
    replies = system.answer([*asked, *unseen], on_progress)

    def score(messages: Sequence[Message], examples: Sequence[Example]) -> Scores:
        if messages == system.beginning:
            return replies.scores[n:]
        assert isinstance(system.answer, Prompted)  # no other one shows examples in its beginning
        return replace(system.answer, beginning=tuple(messages))(examples, on_progress).scores

    if parts:
        calibration = fitted(config.task, config.calibration, parts, score)
    own = Replies(replies.scores[:n], replies.chats[:n], replies.chains[:n])
    return Answers(
        examples=asked,
        scores=own.scores,
        calibration=calibration,
        prompt_tokens=system.student.count_tokens(system.beginning) if system.student else 0,
        cost=SystemCost(
            tokens_per_request=_tokens_per_request(system, own),
            training=system.training,
            readable=system.readable,
            cut_share=_cut_share(own),
            labels_used=len(system.labelled),
            labels_used_calibrated=_labels_used_calibrated(system),
        ),
        chains=tuple(
            Chain(example_id=example.id, text=chain.text, tokens=chain.tokens, finished=chain.finished)
            for example, chain in zip(asked if own.chains else (), own.chains, strict=True)
        ),
        beginning=system.beginning,
    )


def twin_of(system: System, earlier: Sequence[System]) -> System | None:
    """One of `earlier` that answers every request as `system` does: the same Student after the same messages."""
    if not isinstance(system.answer, Prompted) or system.calibration is None:
        return None
    return next((other for other in earlier if other.answer == system.answer and other.sample == system.sample), None)


def answers_of_twin(system: System, found: Answers) -> Answers:
    """The answers `found` of `system`'s twin, with `system`'s own calibration, training cost and description."""
    own = {
        "training": system.training,
        "readable": system.readable,
        "labels_used": len(system.labelled),
        "labels_used_calibrated": _labels_used_calibrated(system),
    }
    cost = found.cost.model_copy(update=own)
    return replace(found, calibration=system.calibration, cost=cost)


def evaluation_report(
    config: Config,
    prompt_sha256: str,
    test: Sequence[Example],
    answers: Mapping[str, Answers],
    student: Mapping[str, str],
    resolution: ResolutionReport | None,
    exceed_window: int = 0,
) -> tuple[EvaluationReport, list[Prediction]]:
    """Report on every system and its calibrated variant, and compare the distilled one with each rival on the
    examples that both answered. `student`: its description; `resolution`: the loop on validation (None: no loop);
    `exceed_window`: test inputs longer than the embedder's window."""
    task, settings = config.task, config.evaluation
    variants = _variants(answers)
    reports: dict[str, SystemReport] = {}
    rows: list[Prediction] = []
    for name, found in variants.items():
        chosen = choose(found.scores)
        gold = indices([example.label for example in found.examples], task.labels)
        reports[name] = system_report(
            gold,
            chosen,
            task.labels,
            groups_of(found.examples),
            settings.resamples,
            settings.seed,
            found.prompt_tokens,
        )
        rows += predictions(found.examples, name, found.scores, task.labels)
    comparisons = tuple(
        _comparison(config, test, name, rival, variants)
        for name in (shipped_system("none"), shipped_system("affine"))
        if name in variants
        for rival in rivals(name, variants)
    )
    shipped = shipped_system(config.calibration.method)
    loop = None
    if resolution is not None and (resolution.rounds or resolution.candidates):
        left = shipped.replace(DISTILLED, UNREVIEWED) if UNREVIEWED in answers else shipped
        before = CLUSTERED + (CALIBRATED if left.endswith(CALIBRATED) else "")
        loop = LoopEffect(
            rounds=len(resolution.rounds),
            candidates=resolution.candidates,
            accepted=len(resolution.accepted),
            validation=resolution.gain,
            test=_comparison(config, test, left, before, variants),
        )
    report = EvaluationReport(
        task=task.name,
        split="test",
        n=len(test),
        labels=task.labels,
        prompt_sha256=prompt_sha256,
        shipped=shipped,
        systems=reports,
        comparisons=comparisons,
        findings=(
            *findings(shipped, reports, comparisons, task.name),
            *loop_findings(loop),
            *unparsable_findings(reports),
            *window_findings(exceed_window, len(test)),
        ),
        student=dict(student),
        loop=loop,
        calibrations={name: found.calibration for name, found in answers.items() if found.calibration is not None},
    )
    costs = {name: found.cost for name, found in answers.items()}
    return report.model_copy(update={"verdict": recommendation(report, costs, config.promotion)}), rows


def _variants(answers: Mapping[str, Answers]) -> dict[str, Answers]:
    """Every system as it answered, then the calibrated variants."""
    plain = dict(answers)
    for name, found in answers.items():
        if found.calibration is not None:
            plain[name + CALIBRATED] = replace(found, scores=calibrate(found.scores, found.calibration))
    return plain


def _comparison(
    config: Config, test: Sequence[Example], name: str, rival: str, variants: Mapping[str, Answers]
) -> Comparison:
    own, theirs = _chosen(variants[name]), _chosen(variants[rival])
    both = [example for example in test if example.id in own and example.id in theirs]
    labels, settings = config.task.labels, config.evaluation
    return compare(
        name,
        rival,
        indices([example.label for example in both], labels),
        [own[example.id] for example in both],
        [theirs[example.id] for example in both],
        len(labels),
        groups_of(both),
        settings.resamples,
        settings.seed,
    )


def _chosen(answers: Answers) -> dict[str, int]:
    places: Indices = choose(answers.scores)
    return {example.id: int(place) for example, place in zip(answers.examples, places, strict=True)}


def _tokens_per_request(system: System, replies: Replies) -> int:
    if system.student is None or not replies.chats:
        return 0
    return round(statistics.median(system.student.count_tokens(chat) for chat in replies.chats))


def _labels_used_calibrated(system: System) -> int | None:
    if system.calibration is None and not system.calibrated_on:
        return None
    return len(system.labelled | {example.id for example in system.calibrated_on})


def _cut_share(replies: Replies) -> float | None:
    if not replies.chains:
        return None
    return sum(not chain.finished for chain in replies.chains) / len(replies.chains)
