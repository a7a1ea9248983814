from concurrent.futures import ThreadPoolExecutor

import pytest

from pld.distill.study import OptunaStudy
from pld.distill.sweep import Result
from pld.distill.trial import trial_id
from pld.errors import ConfigError
from pld.params import SweepParams
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


@pytest.mark.slow
def test_workers_on_one_storage_share_the_points_and_all_see_every_result(tmp_path):
    shared = params(storage=f"sqlite:///{tmp_path}/study.db")
    OptunaStudy(params=shared, name="s")  # the tables
    with ThreadPoolExecutor(2) as pool:
        studies = [OptunaStudy(params=shared, name="s") for _ in range(2)]
        asked = list(pool.map(run, studies))
    assert sum(map(len, asked)) < 12  # at the end both may take the same points
    for study in studies:
        assert len(study.results()) == 6


def test_a_storage_that_does_not_answer_is_told_in_one_line(tmp_path):
    with pytest.raises(ConfigError, match="expected an Optuna storage URL"):
        OptunaStudy(params=params(storage=f"sqlite:///{tmp_path}/no/such/folder/study.db"), name="s")
