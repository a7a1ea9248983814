from pathlib import Path

import numpy as np
import pytest

from pld.adapters.composition import compose
from pld.method.evaluation import calibration_of
from pld.method.measurement import Answers, evaluation_report
from pld.records import Example


@pytest.fixture
def config():
    composed = compose(Path("conf"), Path("params.yaml"))
    task = composed.task.model_copy(update={"labels": ("a", "b")})
    return composed.model_copy(update={"task": task})


TEST = [Example(id=f"e{i}", inputs={"sentence": str(i)}, label="ab"[i % 2], split="test") for i in range(40)]


def answers(right, shift=0.0):
    """Scores that choose the gold label for the first `right` examples; `shift` favours label b everywhere."""
    scores = np.array([[-1.0, -2.0] if (e.label == "a") == (i < right) else [-2.0, -1.0] for i, e in enumerate(TEST)])
    scores[:, 1] += shift
    return Answers(scores, calibration_of(scores, ("a", "b")), prompt_tokens=10 * right)


def report_of(config, **changed):
    given = {"zero_shot": answers(10), "few_shot": answers(20), "distilled": answers(40)} | changed
    return evaluation_report(config, "sha", TEST, given)


def test_every_system_is_reported_with_and_without_calibration(config):
    report, predictions = report_of(config)
    names = {"zero_shot", "few_shot", "distilled"}
    assert set(report.systems) == names | {f"{name}_calibrated" for name in names}
    assert {item.system for item in predictions} == set(report.systems)
    assert len(predictions) == 6 * len(TEST)
    assert {(c.a, c.b) for c in report.comparisons} == {
        (f"distilled{kind}", f"{rival}{kind}") for kind in ("", "_calibrated") for rival in ("zero_shot", "few_shot")
    }


def test_what_ships_follows_the_setting(config):
    assert report_of(config)[0].shipped == "distilled"
    batch = config.model_copy(update={"calibration": config.calibration.model_copy(update={"method": "batch"})})
    assert report_of(batch)[0].shipped == "distilled_calibrated"


def test_calibration_mends_scores_that_favour_one_label(config):
    report, _ = report_of(config, distilled=answers(40, shift=5.0))
    assert report.systems["distilled"].accuracy.value == 0.5
    assert report.systems["distilled_calibrated"].accuracy.value == 1.0


def test_stored_scores_choose_the_stored_label(config):
    _, predictions = report_of(config, distilled=answers(17, shift=0.4))
    for item in predictions:
        assert item.predicted == "ab"[int(np.argmax(item.scores))]
