from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pld.errors import DataError
from pld.serving.drift import (
    LABELS_TEST,
    MARGINS_TEST,
    PSI_MAJOR,
    UNANSWERED_TEST,
    holm,
    inputs_needed,
    monitor,
    psi,
)
from support.mails import LABELS
from support.served import SHA, answers, log_of, rows_of, served

ROWS = st.lists(st.tuples(st.sampled_from([*LABELS, None]), st.floats(0, 9).map(lambda x: round(x, 6))), max_size=40)


def compared(log, test, **changes):
    return monitor(log, test, LABELS, SHA, **{"alpha": 0.01, **changes})


def by_name(report):
    return {test.name: test for test in report.tests}


@given(ROWS, ROWS)
@settings(max_examples=60, deadline=None)
def test_whatever_was_served_p_is_a_probability_and_counts_add_up(now, then):
    report = compared(log_of(now), rows_of(then))
    for test in report.tests:
        assert 0 <= test.p <= test.p_adjusted <= 1
    assert report.inputs == len(now)
    assert sum(shift.served for shift in report.labels) + report.unanswered == report.inputs
    for shift in report.labels:
        assert shift.served_share.low <= shift.served_share.value <= shift.served_share.high


@given(ROWS.filter(len), st.randoms())
@settings(max_examples=40, deadline=None)
def test_the_test_set_itself_served_in_any_order_is_no_drift(rows, random):
    log = log_of(rows)
    random.shuffle(log)
    report = compared(log, rows_of(rows))
    assert report.verdict != "drift"
    assert [test.p_adjusted for test in report.tests] == pytest.approx([1.0] * len(report.tests))
    assert [test.effect for test in report.tests] == pytest.approx([0.0] * len(report.tests))


@given(ROWS, st.randoms())
@settings(max_examples=30, deadline=None)
def test_the_order_of_the_log_and_of_the_test_set_changes_nothing(rows, random):
    log = log_of(rows) + log_of(rows[:5])
    log += [answer.model_copy(update={"at": "2026-11-01T00:00:00Z"}) for answer in log_of(rows[::-1])[:7]]
    test = rows_of(answers(30))
    first = compared(log, test, window="day")
    random.shuffle(log)
    random.shuffle(test)
    assert compared(log, test, window="day") == first


def test_false_alarms_are_no_more_frequent_than_alpha():
    test = rows_of(answers(300))
    said = [compared(log_of(answers(300, seed=seed)), test, alpha=0.05).verdict for seed in range(1, 81)]
    assert said.count("drift") <= 6  # 80 times 0.05 is 4, and an effect must be large enough besides


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({"shares": (0.2, 0.3, 0.5)}, LABELS_TEST),
        ({"margin": 0.8}, MARGINS_TEST),
        ({"missing": 20}, UNANSWERED_TEST),
    ],
)
def test_each_kind_of_drift_is_found_by_its_own_test_alone(changed, name):
    report = compared(log_of(answers(400, seed=1, **changed)), rows_of(answers(400)))
    assert report.verdict == "drift"
    assert [test.name for test in report.tests if test.drift] == [name]
    assert str(report).startswith(f"Drift: {name} (")
    assert len(str(report).splitlines()) == 1


def test_a_difference_that_is_significant_but_small_is_no_drift():
    report = compared(log_of(answers(20_000, (0.45, 0.33, 0.22), seed=1)), rows_of(answers(20_000)))
    labels = by_name(report)[LABELS_TEST]
    assert labels.p_adjusted < 0.001
    assert labels.effect < 0.1
    assert not labels.drift
    assert report.verdict == "no_drift"


def test_a_label_that_nobody_answered_on_test_is_drift_without_an_infinite_effect():
    then = [(LABELS[0], 1.0)] * 200
    report = compared(log_of([*then[:150], *[(LABELS[2], 1.0)] * 50]), rows_of(then))
    labels = by_name(report)[LABELS_TEST]
    assert labels.drift
    assert PSI_MAJOR < labels.effect < 10
    assert "refund by -25.0 points" in str(report)


def test_small_counts_are_tested_exactly():
    """Against Fisher's exact test, to which the random tables must agree on 2 x 2."""
    from scipy.stats import fisher_exact

    now, then = [(LABELS[0], 1.0)] * 3 + [(LABELS[1], 1.0)] * 1, [(LABELS[0], 1.0)] * 1 + [(LABELS[1], 1.0)] * 7
    p = by_name(compared(log_of(now), rows_of(then)))[LABELS_TEST].p
    assert p == pytest.approx(fisher_exact([[3, 1], [1, 7]])[1], abs=0.02)


def test_with_too_few_answers_the_report_says_how_many_are_needed():
    test = rows_of(answers(400))
    few = compared(log_of(answers(30, seed=1)), test)
    assert few.verdict == "too_few"
    assert few.needed is not None
    assert f"about {few.needed} are needed" in str(few)
    assert compared(log_of(answers(few.needed, seed=1)), test).verdict == "no_drift"
    nothing = compared([], test)
    assert (nothing.verdict, nothing.inputs) == ("too_few", 0)
    assert "larger test set" in str(compared(log_of(answers(500)), rows_of(answers(20))))


def test_the_number_of_inputs_needed_detects_a_major_shift_four_times_in_five():
    then = np.array([200, 120, 80])
    shifted = np.array([0.285, 0.33, 0.385])
    assert psi(np.round(10_000 * shifted).astype(int), then) == pytest.approx(PSI_MAJOR, abs=0.01)
    needed = inputs_needed(then, 0.01)
    test = rows_of([(label, 1.0) for label, count in zip(LABELS, then, strict=True) for _ in range(count)])
    found = 0
    for seed in range(60):
        log = log_of([(label, 1.0) for label, _ in answers(needed, tuple(shifted), seed=seed)])
        labels = by_name(compared(log, test))[LABELS_TEST]
        found += labels.p < 0.01 / 3  # as Holm asks of the smallest of three
    assert 40 <= found <= 58


def test_an_input_counts_once_with_its_latest_answer_and_the_repeats_are_counted():
    log = [
        served("praise", text="a", at="2026-11-02T00:00:00+02:00"),
        served("refund", text="a", at="2026-11-01T23:00:00Z"),
        served("delivery", text="a", at="2026-11-01T00:00:00"),
        served("delivery", text="b"),
        served("delivery", text="b"),
    ]
    report = compared(log, rows_of(answers(50)))
    assert (report.lines, report.inputs, report.repeats, report.disagreeing) == (5, 2, 3, 1)
    assert [shift.served for shift in report.labels] == [1, 1, 0]
    assert report.first == "2026-11-01T00:00:00+00:00"


def test_lines_of_other_prompts_and_of_earlier_days_are_left_out_and_counted():
    other, early = served("refund", text="b", sha="b" * 64), served("refund", text="c", at="2026-01-01T00:00:00Z")
    log = [served("refund", text="a"), other, early]
    report = compared(log, rows_of(answers(50)), since=datetime(2026, 11, 1, tzinfo=UTC))
    assert (report.lines, report.other_prompts, report.earlier, report.inputs) == (2, 1, 1, 1)


def test_windows_show_when_drift_began():
    old, new = log_of(answers(90)), log_of(answers(90, (0.0, 0.1, 0.9), seed=2), start=90)
    later = [answer.model_copy(update={"at": answer.at.replace("-11-", "-12-")}) for answer in new]
    report = compared(old + later, rows_of(answers(90)), window="week")
    starts = [window.start for window in report.windows]
    assert starts == sorted(starts)
    assert starts[0] == "2026-11-09"  # a Monday
    assert sum(window.inputs for window in report.windows) == 180
    assert report.windows[-1].psi > 1 > report.windows[1].psi


def test_answers_of_another_task_and_broken_times_are_refused_in_one_line():
    foreign = served("refund").model_copy(update={"label": "red"})
    with pytest.raises(DataError, match="got 'red' with 3"):
        compared([foreign], rows_of(answers(9)))
    with pytest.raises(DataError, match="expected an ISO 8601 time"):
        compared([served("refund", at="yesterday")], rows_of(answers(9)))


@given(st.lists(st.floats(0, 1), max_size=5))
def test_holms_values_are_no_smaller_and_keep_the_order(values):
    adjusted = holm(values)
    assert all(before <= after <= 1.0 for before, after in zip(values, adjusted, strict=True))
    ordered = [adjusted[at] for at in sorted(range(len(values)), key=lambda at: values[at])]
    assert ordered == sorted(ordered)


def test_holms_values_as_in_the_textbook():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
