import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from pld.distill import study as study_module
from pld.distill.study import OptunaStudy
from pld.distill.sweep import Result
from pld.distill.trial import trial_id
from pld.errors import ConfigError
from pld.params import SweepParams
from pld.records import Prediction
from pld.reports import Interval, SystemReport, TrialReport


def params(**changed):
    values = {
        "sampler": "grid",
        "seed": 0,
        "trials": None,
        "race": None,
        "storage": None,
        "finalists": 1,
        "space": {"clusterer": {"eps": (0.1, 0.2, 0.3)}, "rendering": {"exemplars": (0, 1)}},
    }
    return SweepParams(**(values | changed))


def answer(settings):
    value = settings["clusterer.eps"] + settings["rendering.exemplars"]
    interval = Interval(value=value, low=value, high=value)
    report = SystemReport(
        macro_f1=interval, accuracy=interval, per_label={}, confusion=(), unparsable=0, n=1, prompt_tokens=1
    )
    trial = TrialReport(
        trial_id=trial_id(settings), settings=dict(settings), report=report, instructions=1, clusters=1,
        noise_share=0.0, labels_without_instruction=(), cut=(),
    )  # fmt: skip
    return Result(settings, trial, (), None)


def run(study, trial=answer):
    asked = []

    def noted(settings):
        asked.append(settings)
        return trial(settings)

    study.run(noted)
    return asked


def test_a_grid_is_walked_whole_each_point_once_and_in_the_same_order():
    first, second = OptunaStudy(params=params(), name="s"), OptunaStudy(params=params(), name="s")
    asked = run(first)
    assert asked == run(second)
    assert len({trial_id(settings) for settings in asked}) == len(asked) == first.size == 6


def test_a_point_that_failed_is_kept_with_its_error_and_not_tried_again():
    study = OptunaStudy(params=params(), name="s")
    run(
        study,
        lambda settings: (
            answer(settings) if settings["clusterer.eps"] > 0.1 else Result(settings, None, (), "all noise")
        ),
    )
    assert sorted(result.error or "" for result in study.results()) == ["", "", "", "", "all noise", "all noise"]


def test_tpe_keeps_to_its_budget_and_repeats_with_its_seed():
    study = params(sampler="tpe", trials=5)
    asked = run(OptunaStudy(params=study, name="s"))
    assert len(asked) == 5
    assert asked == run(OptunaStudy(params=study, name="s"))


def rows(path):
    """Points and states of the trials in a storage."""
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT number, state FROM trials ORDER BY number").fetchall()


def count(path, state):
    return sum(found == state for _, found in rows(path))


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"sampler": "tpe", "trials": 6}], ids=["grid", "tpe"])
def test_workers_on_one_storage_measure_each_point_once_and_all_see_every_result(tmp_path, settings):
    shared = params(storage=f"sqlite:///{tmp_path}/study.db", **settings)
    OptunaStudy(params=shared, name="s")  # the tables

    def slow(point):
        time.sleep(0.1)
        return answer(point)

    with ThreadPoolExecutor(3) as pool:
        studies = [OptunaStudy(params=shared, name="s") for _ in range(3)]
        asked = list(pool.map(lambda study: run(study, slow), studies))
    assert sum(map(len, asked)) == count(tmp_path / "study.db", "COMPLETE") == 6
    for study in studies:
        assert len(study.results()) == len(studies[0].results()) > 0


def test_the_point_of_a_worker_that_dies_is_taken_over_and_its_trial_does_not_run_for_ever(tmp_path, monkeypatch):
    for name, seconds in {"_BEAT_S": 0.05, "_DEAD_S": 0.4, "_LOOK_S": 0.02}.items():
        monkeypatch.setattr(study_module, name, seconds)
    shared = params(storage=f"sqlite:///{tmp_path}/study.db")
    dead = OptunaStudy(params=shared, name="s")
    assert dead._claim(dead._study.ask()) is not None  # and then nothing more, as if killed
    dead._study.ask()  # or even before it had a point
    survivor = OptunaStudy(params=shared, name="s")
    run(survivor)
    assert len(survivor.results()) == 6
    assert count(tmp_path / "study.db", "COMPLETE") == 6
    assert count(tmp_path / "study.db", "RUNNING") == 0


def test_a_slow_worker_gives_signs_of_life_and_keeps_its_point(tmp_path, monkeypatch):
    for name, seconds in {"_BEAT_S": 0.05, "_DEAD_S": 0.5, "_LOOK_S": 0.02}.items():
        monkeypatch.setattr(study_module, name, seconds)
    shared = params(storage=f"sqlite:///{tmp_path}/study.db", space={"clusterer": {"eps": (0.1, 0.2)}})
    slow, quick = (OptunaStudy(params=shared, name="s") for _ in range(2))

    def at_leisure(point):
        time.sleep(1.5)
        return answer({**point, "rendering.exemplars": 0})

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run, slow, at_leisure)
        while not rows(tmp_path / "study.db"):
            time.sleep(0.02)
        second = run(quick, lambda point: answer({**point, "rendering.exemplars": 0}))
        assert len(first.result()) + len(second) == 2
    assert rows(tmp_path / "study.db") == [(0, "COMPLETE"), (1, "COMPLETE")]


def test_a_worker_that_is_interrupted_frees_its_point_at_once(tmp_path):
    shared = params(storage=f"sqlite:///{tmp_path}/study.db")

    def interrupted(settings):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(OptunaStudy(params=shared, name="s"), interrupted)
    study = OptunaStudy(params=shared, name="s")
    assert len(run(study)) == len(study.results()) == 6


def large(settings):
    """A result with 2,000 answers over 20 labels."""
    scores = np.random.default_rng(0).normal(size=(2000, 20))
    return replace(answer(settings), predictions=tuple(
        Prediction(example_id=f"{row:016x}", system="s", label="a", predicted="b", scores=tuple(map(float, own)))
        for row, own in enumerate(scores)
    ))  # fmt: skip


def test_a_result_of_any_size_fits_into_the_texts_of_mysql(tmp_path):
    shared = params(storage=f"sqlite:///{tmp_path}/study.db", space={"rendering": {"exemplars": (1,)}})
    study = OptunaStudy(params=shared, name="s")
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute(
            "CREATE TRIGGER mysql BEFORE INSERT ON trial_user_attributes WHEN length(new.value_json) > 65535 "
            "BEGIN SELECT RAISE(FAIL, 'Data too long for column value_json'); END"
        )
    run(study, lambda settings: large({**settings, "clusterer.eps": 0}))
    (found,) = OptunaStudy(params=shared, name="s").results()
    assert found.predictions == large({"rendering.exemplars": 1, "clusterer.eps": 0}).predictions


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        ("SELECT RAISE(IGNORE)", "expected a storage that keeps what is written, got a part of trial"),
        ("SELECT RAISE(FAIL, 'NOT NULL constraint failed')", "expected a storage that keeps what is written, got"),
        ("INSERT INTO no_such_table VALUES (1)", "expected an Optuna storage URL that answers, got 'sqlite:.*no_such_"),
    ],
)
def test_a_storage_that_refuses_a_result_is_reported_in_one_line_and_leaves_no_complete_trial_without(
    tmp_path, raised, message
):
    shared = params(storage=f"sqlite:///{tmp_path}/study.db")
    study = OptunaStudy(params=shared, name="s")
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute(
            "CREATE TRIGGER refuses BEFORE INSERT ON trial_user_attributes WHEN new.key = 'result.0' "
            f"BEGIN {raised}; END"
        )
    with pytest.raises(ConfigError, match=message) as caught:
        run(study)
    assert "\n" not in str(caught.value)
    assert count(tmp_path / "study.db", "COMPLETE") == 0
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("DROP TRIGGER refuses")
    assert len(run(OptunaStudy(params=shared, name="s"))) == 6
    assert count(tmp_path / "study.db", "RUNNING") == 0


def test_a_message_about_a_storage_does_not_show_its_password():
    with pytest.raises(ConfigError) as caught:
        OptunaStudy(params=params(storage="postgresql+nodriver://sweep:hunter22@db/pld"), name="s")
    assert "hunter22" not in str(caught.value)


def test_a_storage_that_does_not_answer_is_told_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="expected an Optuna storage URL"):
        OptunaStudy(params=params(storage=f"sqlite:///{tmp_path}/no/such/folder/study.db"), name="s")
