"""All systems on made-up mails: with a scripted Student, and with the real SmolLM2 and MiniLM (slow)."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from pld.config.composition import compose
from pld.distill.render import prompt_messages
from pld.errors import ConfigError
from pld.evaluate.baselines import gepa, lora
from pld.evaluate.build_systems import DistilledPrompt, SystemInputs, build_systems
from pld.evaluate.measure import answers_of, evaluation_report, twin_of
from pld.params import NearestParams
from pld.records import LOGREGS, WITHOUT_LLM, Calibration
from pld.reports import TrainingCost
from support.artifact_tree import composed, resolution_report
from support.mails import LABELS, mails
from support.scripted_student import LetterEmbedder, ScriptedStudent
from support.stories import CLUSTERED, PROMPT

LORA = "{rank:4,alpha:8,dropout:0.0,learning_rate:1e-3,epochs:1,batch_size:4,max_tokens:200,seed:0}"
GEPA = "{max_metric_calls:40,max_teacher_calls:null,seed:0}"
ALWAYS = (
    "majority", "zero_shot", "few_shot", "few_shot_6", "few_shot_nearest", "chain_of_thought", "tfidf_logreg",
    "embedding_logreg", "tfidf_logreg_explained", "embedding_logreg_explained", "clustered", "distilled",
)  # fmt: skip


def inputs(**baselines):
    config = composed()
    thinking = config.baselines.chain_of_thought.model_copy(update={"max_tokens": 4, "examples": 2})
    nearest = NearestParams(shown=2, examples=3)
    few = {"chain_of_thought": thinking, "few_shot_nearest": nearest, "few_shot": (3, 6)}
    settings = config.baselines.model_copy(update={**few, **baselines})
    train = mails("train", 9)
    return SystemInputs(
        config=config.model_copy(update={"baselines": settings}),
        train=train,
        validation=mails("validation", 3),
        explained=train[:4],
        shots={"few_shot": train[:3], "few_shot_6": train[:6]},
        clustered=DistilledPrompt(
            prompt_messages(CLUSTERED),
            Calibration(method="batch", labels=LABELS, scale=1.0, bias=(2.0, 2.0, 2.0), examples=3),
            "1 instruction",
            TrainingCost(teacher_calls=9, recorded=True),
        ),
        distilled=DistilledPrompt(
            prompt_messages(PROMPT),
            Calibration(method="batch", labels=LABELS, scale=1.0, bias=(1.0, 1.0, 1.0), examples=3),
            "2 instructions",
            TrainingCost(teacher_calls=11, recorded=True),
            labelled=frozenset(example.id for example in train[:5]),
        ),
    )


@pytest.fixture(scope="module", params=["scripted", pytest.param("SmolLM2", marks=pytest.mark.slow)])
def measured(request):
    """Each system of the default configuration, and its answers to four mails."""
    test, own = mails("test", 4), inputs()
    if request.param == "scripted":
        own.__dict__.update({"student": ScriptedStudent(), "embedder": LetterEmbedder()})
    return {
        system.name: (system, answers_of(system, test[: system.sample or len(test)], own.config))
        for system in build_systems(own)
    }


def test_every_system_answers_in_the_order_of_the_report(measured):
    assert tuple(measured) == ALWAYS
    for name, (system, answers) in measured.items():
        assert answers.scores.shape == ({"chain_of_thought": 2, "few_shot_nearest": 3}.get(name, 4), 3)
        assert np.isfinite(answers.scores).all()
        assert system.readable


def test_only_prompted_systems_are_calibrated(measured):
    calibrated = {name for name, (_, answers) in measured.items() if answers.calibration is not None}
    assert calibrated == {"zero_shot", "few_shot", "few_shot_6", "few_shot_nearest", "clustered", "distilled"}
    assert measured["distilled"][1].calibration.bias == (1.0, 1.0, 1.0)  # what ships, not another one


def test_systems_with_a_student_count_tokens_of_whole_requests(measured):
    for name, (system, answers) in measured.items():
        if name in WITHOUT_LLM:
            assert system.student is None
            assert (answers.prompt_tokens, answers.cost.tokens_per_request) == (0, 0)
        else:
            assert answers.cost.tokens_per_request > answers.prompt_tokens > 0
    read = {name: answers.cost.tokens_per_request for name, (_, answers) in measured.items()}
    assert read["few_shot_nearest"] > read["zero_shot"]
    # the examples chosen for an input are no part of what requests share
    assert measured["few_shot_nearest"][1].prompt_tokens == measured["zero_shot"][1].prompt_tokens


def test_systems_that_are_trained_report_their_cost(measured):
    timed = {name for name, (system, _) in measured.items() if system.training_seconds is not None}
    assert timed == {"few_shot_nearest", *LOGREGS}


def test_every_system_says_how_many_labels_it_used(measured):
    used = {name: answers.cost.labels_used for name, (_, answers) in measured.items()}
    assert {name: used[name] for name in ("zero_shot", "few_shot", "few_shot_6", "chain_of_thought")} == {
        "zero_shot": 0, "few_shot": 3, "few_shot_6": 6, "chain_of_thought": 0,
    }  # fmt: skip
    assert (used["tfidf_logreg"], used["tfidf_logreg_explained"]) == (9, 4)
    assert (used["embedding_logreg"], used["embedding_logreg_explained"]) == (9, 4)
    assert used["distilled"] == 5
    calibrated = {name: answers.cost.labels_used_calibrated for name, (_, answers) in measured.items()}
    assert calibrated["zero_shot"] == 9, "all of train is fewer than calibration.examples"
    assert calibrated["few_shot_6"] == 9, "an example that is shown and calibrates is one label"
    assert calibrated["tfidf_logreg"] is None


def test_the_cost_of_distillation_is_that_of_each_step(measured):
    assert measured["clustered"][1].cost.training.teacher_calls == 9
    assert measured["distilled"][1].cost.training.teacher_calls == 11


def test_the_prompts_before_and_after_the_loop_are_systems_with_their_own_calibrations(measured):
    before, after = measured["clustered"], measured["distilled"]
    assert [system.beginning[0].content for system, _ in (before, after)] == [CLUSTERED, PROMPT]
    assert before[1].calibration.bias == (2.0, 2.0, 2.0)
    assert (before[1].scores != after[1].scores).any()
    assert twin_of(after[0], [before[0]]) is None


def test_all_systems_make_a_whole_report(measured):
    report, predictions = evaluation_report(
        composed(),
        "sha",
        mails("test", 4),
        {name: answers for name, (_, answers) in measured.items()},
        {"engine": "any"},
        resolution_report(composed()),
    )
    assert {name for name in report.systems if not name.endswith("_calibrated")} == set(ALWAYS)
    assert len([row for row in predictions if row.system == "chain_of_thought"]) == 2
    assert {found.b for found in report.comparisons if found.a == "distilled"} == set(ALWAYS) - {"distilled"}


def composed_with(tmp_path, *overrides):
    selections = yaml.safe_load(Path("params.yaml").read_text()) | {"overrides": list(overrides)}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(selections))
    return compose(Path("conf"), tmp_path / "params.yaml")


def test_the_optional_baselines_are_off_and_an_override_turns_them_on(tmp_path):
    assert composed().baselines.lora is None
    assert composed().baselines.gepa is None
    config = composed_with(tmp_path, f"baselines.lora={LORA}", f"baselines.gepa={GEPA}")
    assert config.baselines.lora.learning_rate == 1e-3
    assert config.baselines.gepa.max_teacher_calls is None


def test_a_misspelt_setting_of_an_optional_baseline_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"expected a known key .*got 'baselines.gepa.sede'"):
        composed_with(tmp_path, f"baselines.gepa={GEPA.replace('seed', 'sede')}")


def test_a_rival_that_is_no_system_is_refused_with_the_list_of_systems(tmp_path):
    named = composed_with(tmp_path, "promotion.rivals=[few_shot_48,lora]", f"baselines.lora={LORA}").promotion.rivals
    assert named == ("few_shot_48", "lora")
    with pytest.raises(ConfigError, match=r"expected promotion\.rivals among .*, got 'lora'"):
        composed_with(tmp_path, "promotion.rivals=[lora]")
    with pytest.raises(ConfigError, match=r"expected promotion.rivals among majority, few_shot, few_shot_48, .*'few'"):
        composed_with(tmp_path, "promotion.rivals=[few]")


def test_few_shot_sizes_must_ascend(tmp_path):
    with pytest.raises(ConfigError, match=r"expected few_shot to ascend, got \[48, 12\]"):
        composed_with(tmp_path, "baselines.few_shot=[48,12]")


def test_an_optional_baseline_that_cannot_run_is_refused_before_the_first_system(tmp_path):
    settings = composed_with(tmp_path, f"baselines.gepa={GEPA}").baselines.gepa
    with pytest.raises(ConfigError, match="which plays back"):
        next(build_systems(inputs(gepa=settings)))


def test_optional_baselines_come_before_the_distilled_prompts(tmp_path, monkeypatch):
    baselines = composed_with(tmp_path, f"baselines.lora={LORA}", f"baselines.gepa={GEPA}").baselines
    own = inputs(lora=baselines.lora, gepa=baselines.gepa)
    own.__dict__.update({"student": ScriptedStudent(), "embedder": LetterEmbedder()})
    asked = {}

    def fine_tune(section, messages, inputs, answers, labels, params, on_progress=None):
        asked["lora"] = (len(inputs), answers, labels)
        seconds = type("Training", (), {"seconds": 12.5})
        return type("FineTuned", (), {"student": own.student, "training": seconds})

    def optimise(task, train, validation, student, teacher, params, distillation_calls, on_progress=None):
        asked["gepa"] = (len(train), len(validation), distillation_calls)
        return gepa.Optimised("Say it in a word.", 0.5, 2, TrainingCost(teacher_calls=4), {}, 3.5)

    monkeypatch.setattr(lora, "fine_tune", fine_tune)
    monkeypatch.setattr(gepa, "optimise", optimise)
    monkeypatch.setattr(gepa, "check", lambda teacher: None)
    found = {system.name: system for system in build_systems(own)}
    assert tuple(found)[-4:] == ("lora", "gepa", "clustered", "distilled")
    assert asked["lora"] == (9, [example.label for example in own.train], LABELS)
    assert asked["gepa"] == (9, 3, 11)
    assert (found["lora"].training_seconds, found["gepa"].training_seconds) == (12.5, 3.5)
    assert found["gepa"].training.teacher_calls == 4
    assert found["gepa"].readable == "a prompt of 5 words"
    assert found["gepa"].beginning[0].content == "Say it in a word."
