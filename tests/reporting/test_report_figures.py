"""What the report says and shows, from made-up figures."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pld.data.splits import SplitSummary
from pld.records import Instruction, Rule
from pld.reporting import rows
from pld.reporting.rows import Change, in_figures, review_changes, shown_rules, system_rows, trial_points
from pld.reports import (
    Comparison,
    CostReport,
    EvaluationReport,
    Interval,
    LabelScore,
    Latency,
    LatencyReport,
    SystemReport,
    TrialReport,
)
from pld.resolve.records import Descent, Step

LABELS = ("yes", "no")


def interval(value: float, away: float = 0.05) -> Interval:
    return Interval(value=value, low=value - away, high=value + away)


def system(f1: float, n: int = 200, tokens: int = 100, right: int = 5) -> SystemReport:
    score = LabelScore(precision=f1, recall=f1, f1=f1, support=n // 2)
    return SystemReport(
        macro_f1=interval(f1),
        accuracy=interval(f1),
        per_label=dict.fromkeys(LABELS, score),
        confusion=((right, 1), (2, right)),
        unparsable=0,
        n=n,
        prompt_tokens=tokens,
    )


def evaluated(
    ahead: dict[str, float], shipped: str = "distilled", sizes: dict[str, int] | None = None
) -> EvaluationReport:
    """What ships reaches 0.6, each system less by `ahead`, give or take 0.05."""
    systems = {name: system(0.6 - delta, (sizes or {}).get(name, 200)) for name, delta in ahead.items()}
    comparisons = tuple(
        Comparison(a=shipped, b=name, macro_f1_delta=interval(delta), fixed=3, broken=2, mcnemar_p=1.0)
        for name, delta in ahead.items()
    )
    return EvaluationReport(
        task="mail",
        split="test",
        n=200,
        labels=LABELS,
        prompt_sha256="0" * 64,
        shipped=shipped,
        systems={**systems, shipped: system(0.6)},
        comparisons=comparisons,
    )


def test_the_figures_name_clearly_better_systems_the_best_first() -> None:
    ahead = {"zero_shot": 0.3, "few_shot": 0.02, "gepa": -0.02, "tfidf_logreg": -0.1, "lora": -0.2}
    assert in_figures(evaluated(ahead, sizes={"lora": 64})) == (
        "On 200 test examples, what ships (distilled) reaches macro-F1 0.600 [0.550, 0.650], 0.300 [0.250, 0.350] more "
        "than zero_shot (0.300); lora (by 0.200 [0.150, 0.250] on the 64 that it answered) and tfidf_logreg (by 0.100 "
        "[0.050, 0.150]) do better."
    )


def test_the_figures_say_when_zero_shot_is_as_good_or_better() -> None:
    level = in_figures(evaluated({"zero_shot": 0.01}))
    assert "not clearly different from zero_shot (0.590), +0.010 [-0.040, +0.060]; nothing else" in level
    assert "0.100 [0.050, 0.150] less than zero_shot (0.700); nothing else" in in_figures(
        evaluated({"zero_shot": -0.1})
    )


def test_a_calibrated_prompt_is_compared_with_calibrated_rivals() -> None:
    report = evaluated({"zero_shot": 0.3, "zero_shot_calibrated": 0.2, "tfidf_logreg": -0.1}, "distilled_calibrated")
    report = report.model_copy(update={"systems": {"distilled": system(0.5), **report.systems}})
    assert "0.200 [0.150, 0.250] more than zero_shot_calibrated (0.400); tfidf_logreg" in in_figures(report)
    rows = system_rows(report, LatencyReport(machine="", systems={}), CostReport(systems={}))
    assert [(row.name, row.ships, row.standing) for row in rows] == [
        ("zero_shot", False, "better"),
        ("distilled", True, None),
        ("tfidf_logreg", False, "worse"),
    ]


def test_a_repeated_confusion_matrix_refers_to_the_first() -> None:
    report = evaluated({"zero_shot": 0.3, "clustered": 0.0})
    systems = {**report.systems, "zero_shot": system(0.3, right=4)}
    found = rows.confusions(report.model_copy(update={"systems": systems}))
    assert [(own.name, own.same_as) for own in found] == [
        ("zero_shot", None),
        ("clustered", None),
        ("distilled", "clustered"),
    ]


def trial(name: str, f1: float, tokens: int) -> TrialReport:
    return TrialReport(
        trial_id=name,
        settings={},
        report=system(f1, tokens=tokens),
        instructions=1,
        clusters=1,
        noise_share=0.0,
        labels_without_instruction=(),
        cut=(),
    )


def timing(ms: float) -> Latency:
    return Latency(p50_ms=ms, p95_ms=ms, prefill_ms=ms, requests=10)


def test_the_front_uses_latency_only_if_every_trial_was_timed() -> None:
    trials = [trial("short", 0.5, 10), trial("long", 0.7, 90), trial("slow", 0.5, 20), trial("quick", 0.4, 30)]
    timed = {"short": timing(9), "long": timing(9), "slow": timing(9), "quick": timing(1)}
    points = trial_points(trials, timed, "long")
    assert [point.trial.trial_id for point in points] == ["long", "short", "slow", "quick"]
    assert [point.trial.trial_id for point in points if point.on_front] == ["long", "short", "quick"]
    assert [point.won for point in points] == [True, False, False, False]
    del timed["slow"]
    assert [point.trial.trial_id for point in trial_points(trials, timed, "long") if point.on_front] == [
        "long",
        "short",
    ]


def test_a_trial_that_a_race_dropped_comes_after_those_on_all_of_validation_and_is_on_no_front() -> None:
    dropped = trial("lucky", 0.9, 10)
    dropped = dropped.model_copy(update={"report": dropped.report.model_copy(update={"n": 2})})
    points = trial_points([dropped, trial("whole", 0.5, 20)], {}, "whole")
    assert [(point.trial.trial_id, point.whole, point.on_front) for point in points] == [
        ("whole", True, True),
        ("lucky", False, False),
    ]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=8))
def test_a_trial_off_the_front_is_dominated_by_one_on_it(figures: list[tuple[int, int, int]]) -> None:
    trials = [trial(str(place), f1 / 4, tokens) for place, (f1, tokens, _) in enumerate(figures)]
    timed = {str(place): timing(ms) for place, (_, _, ms) in enumerate(figures)}
    front = {point.trial.trial_id for point in trial_points(trials, timed, "0") if point.on_front}
    for place, (f1, tokens, ms) in enumerate(figures):
        beaten = [
            other
            for other in front
            for own in [figures[int(other)]]
            if own != figures[place] and own[0] >= f1 and own[1] <= tokens and own[2] <= ms
        ]
        assert bool(beaten) == (str(place) not in front)


def rule(number: int, text: str = "If so, answer yes.") -> Rule:
    return Rule(id=f"r{number}", example_id="", label="yes", rationale="", text=text, teacher="", doubtful=False)


def test_the_sample_of_rules_hardly_changes_when_rules_are_added(monkeypatch: Any) -> None:
    monkeypatch.setattr(rows, "MOST_RULES", 50)
    few, more = [rule(n) for n in range(100)], [rule(n) for n in range(110)]
    assert shown_rules(few[:50]) == few[:50]
    before, after = ({own.id for own in shown_rules(rules)} for rules in (few, more))
    assert len(before) == len(after) == 50
    assert len(before - after) <= 10
    assert [own for own in few if own.id in before] == shown_rules(few)


def test_fewer_long_rules_fit_into_the_page(monkeypatch: Any) -> None:
    monkeypatch.setattr(rows, "MOST_BYTES", 10_000)
    assert len(shown_rules([rule(n, "&" * 160) for n in range(100)])) == 10  # 800 bytes each as HTML


def instruction(identity: str) -> Instruction:
    return Instruction(id=identity, text=f"{identity}.", label="yes", rule_ids=(), support=1, origin="medoid")


def step(number: int, from_id: str) -> Step:
    return Step(
        round=0, edit_id=f"sheet {number}", op="revise", proposer="Ada", reason="", from_id=from_id, verdict="decided"
    )


def test_an_instruction_rewritten_in_several_sheets_is_shown_beside_its_original() -> None:
    kept, was, gone, new, added = map(instruction, ("kept", "was", "gone", "new", "added"))
    steps = (step(1, "was"), step(2, "in between"))
    descent = Descent(
        instruction_id="new", label="yes", text="new.", origin="medoid", example_ids=(), rule_ids=(), cluster_ids=(),
        edits=steps, fixed=None, broken=None,
    )  # fmt: skip
    assert review_changes([kept, was, gone], [kept, new, added], [descent]) == [
        Change(was, new, steps[-1]),
        Change(None, added),
        Change(gone, None),
    ]
    assert review_changes([kept, was], [was, kept], []) == []


def test_shortened_examples_are_counted_by_split() -> None:
    whole = SplitSummary(
        task="mail",
        rows=1508,
        examples=1508,
        merged_duplicates=0,
        groups=0,
        counts={"train": {"yes": 1200, "no": 300}, "validation": {"yes": 2, "no": 1}, "test": {"yes": 5, "no": 0}},
        empty_fields={},
        shortened={"train": 0, "validation": 0, "test": 0},
    )
    assert rows.data_findings(whole) == []
    cut = whole.model_copy(update={"shortened": {"train": 1400, "validation": 0, "test": 5}})
    [said] = rows.data_findings(cut)
    assert said.startswith("A part of the text is left out in 1,400 of 1,500 train and 5 of 5 test examples")
