import shutil
from pathlib import Path

import pytest

from pld.config.settings import load_config
from pld.errors import RegistryError, StudentError
from pld.params import Config
from pld.registry import reevaluate
from pld.registry.registry import Registry
from pld.registry.release import fetch_release
from support.artifact_tree import composed, write_artifacts
from support.mail_student import MailStudent
from support.shelf import BETTER, WORSE, aliases, register


@pytest.fixture
def students(monkeypatch: pytest.MonkeyPatch) -> list[MailStudent]:
    """Those that were built to measure a version again; after a list they get every mail right."""
    built: list[MailStudent] = []

    def build(*_: object) -> MailStudent:
        built.append(MailStudent())
        return built[-1]

    monkeypatch.setattr(reevaluate, "build", build)
    return built


def figures(registry: Registry, number: int, config: Config | None = None) -> dict[str, str]:
    outcome = registry.promote(config or load_config(), number)
    return {verdict.gate: verdict.figures for verdict in outcome.verdicts}


def test_production_is_measured_again_on_the_present_test_set_and_only_once(
    shelf: Registry, students: list[MailStudent]
) -> None:
    line = str(register(shelf.store, prompt=WORSE, right=0.4, test_size=63))
    assert "not_worse_than_production failed: macro-F1 -0." in line
    assert "against production on 63 test examples" in line
    (student,) = students
    once = student.asked
    held = next(version for version in shelf.versions() if version.number == 2)
    digest = fetch_release(load_config(), "3").test_digest
    assert held.test_digest == digest
    assert held.macro_f1.startswith("1.000 [")
    run, folder = held.measured_in
    assert run == held.evidence_run
    assert folder.startswith("measured/"), "beside its first evaluation"
    release = fetch_release(load_config(), "production")
    assert (len(release.predictions), release.test_digest) == (63, digest)
    assert len(release.instructions) == 2, "those of the run that it comes from"
    figures(shelf, 3)
    assert len(students) == 1, "it is remembered"
    assert student.asked == once


def test_production_is_measured_again_where_the_student_is_another_one(
    shelf: Registry, students: list[MailStudent]
) -> None:
    register(shelf.store, prompt=WORSE, right=0.4, engine="another one")
    assert len(students) == 1
    figures(shelf, 3)
    assert len(students) == 1, "remembered for that Student, although its own describes itself otherwise"


def test_an_older_version_that_is_asked_for_is_measured_again_too(shelf: Registry, students: list[MailStudent]) -> None:
    write_artifacts(Path("artifacts"), prompt=BETTER, test_size=63)
    found = figures(shelf, 1)
    assert len(students) == 2, "it and production"
    assert "against production on 63 test examples" in found["not_worse_than_production"]
    assert found["better_than_zero_shot"].startswith("macro-F1 +0.8")
    assert "against zero_shot" in found["better_than_zero_shot"]
    assert "against few_shot" in found["not_worse_than_few_shot"], "whose answers are those of the present artifacts"
    assert aliases(shelf)["production"] == 1


def test_a_calibrated_version_that_is_measured_again_is_compared_with_the_calibrated_zero_shot(
    shelf: Registry, students: list[MailStudent]
) -> None:
    batch = composed().calibration.model_copy(update={"method": "batch"})
    config = composed().model_copy(update={"calibration": batch})
    register(shelf.store, config=config, prompt=WORSE, right=0.4)
    write_artifacts(Path("artifacts"), prompt=BETTER, test_size=63)
    shown = figures(shelf, 4, load_config())["better_than_zero_shot"]
    assert "against zero_shot_calibrated" in shown
    assert len(students) == 2


def test_a_measurement_that_is_lost_is_made_again(shelf: Registry, students: list[MailStudent]) -> None:
    for folder in Path("mlartifacts").rglob("evaluation"):
        shutil.rmtree(folder)
    assert "against production on 60 test examples" in figures(shelf, 3)["not_worse_than_production"]
    assert len(students) == 2


def test_a_student_that_can_not_be_loaded_any_more_fails_the_gate_in_one_line(
    shelf: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> None:
        raise StudentError("the weights are gone")

    monkeypatch.setattr(reevaluate, "build", build)
    line = str(register(shelf.store, prompt=WORSE, test_size=63))
    assert "\n" not in line
    assert "version 2 was not measured on the present test set and Student, and can't be now: the weights are" in line
    assert aliases(shelf)["production"] == 2


def test_other_labels_fail_the_gate_in_one_line(shelf: Registry, students: list[MailStudent]) -> None:
    write_artifacts(Path("artifacts"), test_size=63)
    config = load_config()
    turned = config.task.model_copy(update={"labels": config.task.labels[::-1]})
    with pytest.raises(RegistryError, match=r"can't be now: it answers with the labels refund, delivery, praise, and"):
        shelf.promote(config.model_copy(update={"task": turned}), 3)
    assert students == []


def test_a_test_set_that_is_not_the_evaluated_one_measures_nothing(
    shelf: Registry, students: list[MailStudent]
) -> None:
    write_artifacts(Path("artifacts"), test_size=63)
    test = Path("artifacts/splits/test.jsonl")
    test.write_text(test.read_text().replace("parcel", "packet"))
    with pytest.raises(RegistryError, match=r"expected the test set that was evaluated \(md5 .*splits/test.jsonl\)"):
        shelf.promote(load_config(), 3)
    assert students == []


def test_without_artifacts_of_the_task_stored_measurements_are_compared_as_they_are(
    shelf: Registry, students: list[MailStudent]
) -> None:
    config = load_config()
    shutil.rmtree("artifacts")
    assert "on 60 test examples" in figures(shelf, 3, config)["not_worse_than_production"]
    write_artifacts(Path("artifacts"), test_size=63)
    Path("artifacts/evaluation/report.json").unlink()
    assert "on 60 test examples" in figures(shelf, 3, config)["not_worse_than_production"]
    assert students == []
