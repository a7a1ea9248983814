import pytest

from pld.reporting.importances import importances
from pld.reports import Interval, Standing, SystemReport, TrialReport


def trial(f1: float, **settings: object) -> TrialReport:
    interval = Interval(value=f1, low=f1, high=f1)
    report = SystemReport(
        macro_f1=interval, accuracy=interval, per_label={}, confusion=(), unparsable=0, n=9, prompt_tokens=9
    )
    return TrialReport(
        trial_id=str(settings),
        settings=settings,
        report=report,
        instructions=1,
        clusters=1,
        noise_share=0.0,
        labels_without_instruction=(),
        cut=(),
    )


GRID = [(size, frame) for size in (4, 8, None) for frame in ("list", "rules_first")]


def test_the_setting_that_moves_macro_f1_gets_most_and_shares_sum_to_one():
    found = importances([trial(0.9 if size == 8 else 0.3, size=size, frame=frame, seed=0) for size, frame in GRID], 0)
    assert found.missing is None
    assert next(iter(found.shares)) == "size"
    assert found.shares["size"] > 0.9
    assert sum(found.shares.values()) == pytest.approx(1)
    assert found.fixed == ("seed",)


def test_of_a_race_the_settings_are_compared_on_the_part_that_all_answered():
    raced = [
        trial(0.1 * n, size=size, frame=frame).model_copy(
            update={"standing": Standing(rung=1 + n % 2, gap=0, se=0, on_first=0.9 if size == 8 else 0.3)}
        )
        for n, (size, frame) in enumerate(GRID)
    ]
    assert importances(raced, 0).shares["size"] > 0.9


def test_importances_depend_only_on_the_seed():
    trials = [trial(0.1 * n, size=size, frame=frame) for n, (size, frame) in enumerate(GRID)]
    assert importances(trials, 3) == importances(trials, 3)


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ([], "0 finished"),
        ([trial(0.1 * n, size=n) for n in range(3)], "3 finished"),
        ([trial(0.1 * n, size=8) for n in range(5)], "one value of each setting"),
        ([trial(0.5, size=n) for n in range(5)], "the same macro-F1"),
    ],
)
def test_missing_importances_give_a_reason(trials, words):
    found = importances(trials, 0)
    assert found.shares == {}
    assert words in found.missing
