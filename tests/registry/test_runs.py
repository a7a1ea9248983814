import dataclasses
import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pld.artifacts import read_record, write_json, write_prompt
from pld.config.settings import load_config
from pld.distill.render import prompt_messages
from pld.errors import ArtifactError
from pld.params import Config, NoResolver
from pld.records import Reviewed, sha256
from pld.registry import packaging
from pld.registry.registry import Registry
from pld.registry.result import PipelineResult, flattened, read_result, settings
from pld.registry.runs import LoggedRun, log_result
from pld.registry.store import Store, connect, experiment_id
from pld.reports import Latency, RoleSpending
from support.artifact_tree import composed, write_artifacts
from support.stories import CLUSTERED, PROMPT

COMPARABLE = {"macro_f1", "macro_f1_low", "macro_f1_high", "accuracy", "prompt_tokens"}
TIMED = {"latency_p50_ms", "latency_p95_ms", "prefill_ms"}
SHAPE = {"instructions", "clusters", "noise_share"}


def result(project: Path, **changes: Any) -> PipelineResult:
    write_artifacts(project / "artifacts", **changes)
    return read_result(load_config())


def runs(store: Store) -> dict[str, Any]:
    found = store.client.search_runs([experiment_id(store, "mail")])
    by_name = {run.info.run_name: run for run in found}
    assert len(by_name) == len(found), "no run twice"
    return by_name


def parent_of(store: Store, logged: LoggedRun) -> Any:
    return store.client.get_run(logged.run_id)


def test_one_parent_run_and_a_nested_run_per_trial_and_system(store: Store, project: Path) -> None:
    found = result(project)
    logged = log_result(store, found)
    by_name = runs(store)
    systems = {"zero_shot", "few_shot", "clustered", "distilled"}
    trials = {f"trial {trial.trial_id}" for trial in found.trials} | {"trial 00failed0000"}
    variants = systems | {f"{name}_calibrated" for name in systems} | {"tfidf_logreg"}
    score = found.report.systems["distilled"].macro_f1.value
    assert set(by_name) == {f"{score:.3f} {found.key[:8]}"} | variants | trials
    nested = [run for run in by_name.values() if run.info.run_id != logged.run_id]
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {logged.run_id}
    assert {run.info.status for run in by_name.values()} == {"FINISHED", "FAILED"}


def spent(role: str, calls: int, usd: float | None) -> tuple[RoleSpending, ...]:
    tokens = {"input_tokens": 10, "cache_read_input_tokens": 5, "output_tokens": 3}
    return (RoleSpending(role=role, model="claude-test", calls=calls, tokens=tokens, usd=usd),)


def test_the_teachers_cost_is_logged_in_total_and_by_stage_and_role(store: Store, project: Path) -> None:
    paid = {"extract": spent("extract", 9, 0.5), "evaluate": spent("optimise", 2, 0.25)}
    parent = parent_of(store, log_result(store, result(project, spending=paid)))
    told = {name: value for name, value in parent.data.metrics.items() if name.startswith("teacher/")}
    assert told == {
        "teacher/calls": 11, "teacher/usd": 0.75,
        "teacher/extract/extract/calls": 9, "teacher/extract/extract/usd": 0.5,
        "teacher/extract/extract/input_tokens": 15, "teacher/extract/extract/output_tokens": 3,
        "teacher/evaluate/optimise/calls": 2, "teacher/evaluate/optimise/usd": 0.25,
        "teacher/evaluate/optimise/input_tokens": 15, "teacher/evaluate/optimise/output_tokens": 3,
    }  # fmt: skip
    assert "pld.teacher_usd" not in parent.data.tags
    files = {item.path for item in store.client.list_artifacts(parent.info.run_id, "spending")}
    assert files == {f"spending/{stage}.json" for stage in ("extract", "sweep", "resolve", "evaluate")}


def test_an_unknown_price_is_a_tag_and_never_a_zero(store: Store, project: Path) -> None:
    paid = {"extract": spent("extract", 9, 0.5), "resolve": spent("resolve", 2, None)}
    parent = parent_of(store, log_result(store, result(project, spending=paid)))
    assert parent.data.tags["pld.teacher_usd"] == "unknown"
    assert "teacher/usd" not in parent.data.metrics
    assert "teacher/resolve/resolve/usd" not in parent.data.metrics
    assert parent.data.metrics["teacher/extract/extract/usd"] == 0.5


def test_costs_and_prices_are_not_part_of_a_results_key(project: Path) -> None:
    first = result(project)
    prices = composed().prices.model_copy(update={"source": "another page"})
    budget = composed().budget.model_copy(update={"usd": 5.0})
    changed = composed().model_copy(update={"prices": prices, "budget": budget})
    paid = {"extract": spent("extract", 9, 0.5)}
    assert result(project, config=changed, spending=paid).key == first.key
    flat = settings(changed)
    assert (flat["prices.source"], flat["budget.usd"]) == ("another page", "5.0")
    assert not [name for name in flat if name.startswith("prices.models")]


def test_parent_trials_and_systems_share_the_names_of_their_metrics(store: Store, project: Path) -> None:
    found = result(project)
    parent = parent_of(store, log_result(store, found)).data.metrics
    by_name = runs(store)
    trial, system = by_name[f"trial {found.best.trial_id}"].data.metrics, by_name["zero_shot"].data.metrics
    assert set(parent) >= COMPARABLE | TIMED | SHAPE
    assert set(trial) >= COMPARABLE | SHAPE
    assert set(system) >= COMPARABLE | TIMED
    assert parent["macro_f1"] == found.report.systems["distilled"].macro_f1.value
    assert (parent["latency_p95_ms"], parent["prefill_ms"], parent["prompt_tokens"]) == (20, 90, 60)
    assert parent["macro_f1_over_zero_shot"] == pytest.approx(parent["macro_f1"] - system["macro_f1"])


def test_settings_are_parameters_and_a_trial_has_its_own(store: Store, project: Path) -> None:
    found = result(project)
    parent = parent_of(store, log_result(store, found)).data.params
    assert parent["student.name"] == "smollm2-135m"
    assert (parent["prompt_sha256"], parent["data.test.md5"]) == (sha256(PROMPT), found.test_digest)
    assert parent["task.labels"] == '["refund","delivery","praise"]'
    assert parent["winner.clusterer.min_cluster_size"] == "8"
    assert not [name for name in parent if name.startswith("tracking")], "a URI may hold a password"
    trial = runs(store)["trial 00failed0000"]
    assert trial.data.params == {"clusterer.min_cluster_size": "99", "split": "validation"}
    assert trial.data.tags["pld.error"] == "nothing was left to ship"


def test_what_was_shipped_and_measured_are_artifacts(store: Store, project: Path, tmp_path: Path) -> None:
    found = result(project, groups=True)
    run = log_result(store, found).run_id
    root = {file.path for file in store.client.list_artifacts(run)}
    assert root >= {"system_prompt.md", "instructions.jsonl", "calibration.json", "trials.csv", "config.yaml"}
    inside = {file.path for file in store.client.list_artifacts(run, "evaluation")}
    assert inside >= {f"evaluation/{name}" for name in ("report.json", "predictions.jsonl", "groups.json")}
    assert [file.path for file in store.client.list_artifacts(run, "plots")] == ["plots/confusion.png"]
    copy = Path(store.client.download_artifacts(run, "", str(tmp_path)))
    assert (copy / "system_prompt.md").read_bytes() == PROMPT.encode()
    assert (copy / "best/system_prompt.md").read_bytes() == CLUSTERED.encode()
    assert len((copy / "instructions.jsonl").read_text().splitlines()) == 2
    assert len((copy / "best/instructions.jsonl").read_text().splitlines()) == 1
    written = project / "artifacts/resolve"
    kept = {path.relative_to(copy / "resolve") for path in (copy / "resolve").rglob("*")}
    assert kept == {path.relative_to(written) for path in written.rglob("*")}
    assert Path("rounds/01/edits.jsonl") in kept


def test_the_html_report_and_the_review_are_artifacts(store: Store, project: Path) -> None:
    page = project / "artifacts/report/index.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>a report</p>")
    found = result(project)
    reviewed = Reviewed(came_in="0" * 64, ships=sha256(PROMPT), sheets=(3, 4))
    write_json(project / "artifacts/review/review.json", reviewed)
    run = log_result(store, found).run_id
    tags = store.client.get_run(run).data.tags
    assert (tags["pld.report"], tags["pld.review_sheets"]) == ("report/index.html", "2")
    assert tags["mlflow.note.content"].startswith("Macro-F1 0.")
    assert "on 60 test examples, +0." in tags["mlflow.note.content"]
    assert tags["mlflow.note.content"].endswith("The report is the artifact `report/index.html`.")
    (project / "copy").mkdir()
    copy = Path(store.client.download_artifacts(run, "", str(project / "copy")))
    assert (copy / tags["pld.report"]).read_text() == "<p>a report</p>"
    assert read_record(copy / "review/review.json", Reviewed) == reviewed
    final = project / "artifacts/review/final"
    assert {path.name for path in (copy / "review/final").iterdir()} == {path.name for path in final.iterdir()}


def test_the_run_of_a_timed_trial_has_its_latency(store: Store, project: Path) -> None:
    found = result(project)
    timed = Latency(p50_ms=7, p95_ms=8, prefill_ms=9, requests=50)
    latency = found.latency.model_copy(update={"trials": {found.best.trial_id: timed}})
    log_result(store, dataclasses.replace(found, latency=latency))
    metrics = runs(store)[f"trial {found.best.trial_id}"].data.metrics
    assert {name: metrics[name] for name in TIMED} == {"latency_p50_ms": 7, "latency_p95_ms": 8, "prefill_ms": 9}


def steps(store: Store, run: str, name: str) -> dict[int, float]:
    return {item.step: item.value for item in store.client.get_metric_history(run, name)}


def test_each_round_of_the_loop_is_a_step_of_the_parent_after_the_list_that_came_in(
    store: Store, project: Path
) -> None:
    found = result(project)
    run = log_result(store, found).run_id
    came_in, (first,) = found.resolution.came_in, found.resolution.rounds
    assert steps(store, run, "round/validation_macro_f1") == {
        0: came_in.macro_f1.value,
        1: first.validation.macro_f1.value,
    }
    assert steps(store, run, "round/pool_macro_f1") == {1: first.pool.macro_f1.value}
    assert steps(store, run, "round/prompt_tokens") == {0: 55, 1: 60}
    assert steps(store, run, "round/instructions") == {0: 1, 1: 2}
    edits = {name: steps(store, run, f"round/edits_{name}") for name in ("proposed", "refused", "accepted")}
    assert edits == {"proposed": {1: 4}, "refused": {1: 1}, "accepted": {1: 1}}
    assert [name for name in parent_of(store, LoggedRun(run, True)).data.metrics if "/" in name], "a section of its own"


def test_the_parent_shows_what_the_loop_gained_where_it_was_chosen_and_on_test(store: Store, project: Path) -> None:
    found = result(project)
    parent = parent_of(store, log_result(store, found)).data.metrics
    systems = found.report.systems
    gain = systems["distilled"].macro_f1.value - systems["clustered"].macro_f1.value
    assert parent["loop_gain_test"] == pytest.approx(gain)
    assert parent["loop_gain_test_low"] <= gain <= parent["loop_gain_test_high"]
    assert parent["loop_gain_validation"] == pytest.approx(0.1)
    assert (parent["loop_candidates"], parent["loop_accepted"]) == (3, 1)
    assert parent["instructions"] == 2, "of what ships, not of the winning trial"


def test_without_a_loop_there_is_the_list_that_came_in_and_no_gain(store: Store, project: Path) -> None:
    run = log_result(store, result(project, config=without_a_loop())).run_id
    metrics = parent_of(store, LoggedRun(run, True)).data.metrics
    assert not [name for name in metrics if name.startswith("loop_")]
    assert set(steps(store, run, "round/validation_macro_f1")) == {0}
    assert "round/pool_macro_f1" not in metrics


def without_a_loop() -> Config:
    return composed().model_copy(update={"resolver": NoResolver(kind="none")})


def test_data_sets_are_inputs_with_the_md5_that_dvc_records(store: Store, project: Path) -> None:
    parent = parent_of(store, log_result(store, result(project)))
    inputs = {item.dataset.name: item.dataset.digest for item in parent.inputs.dataset_inputs}
    wanted = {
        f"mail-{split}": hashlib.md5((project / f"artifacts/splits/{split}.jsonl").read_bytes()).hexdigest()
        for split in ("train", "validation", "test")
    }
    assert inputs == wanted
    contexts = {tag.value for item in parent.inputs.dataset_inputs for tag in item.tags}
    assert contexts == {"training", "validation", "testing"}


def test_code_and_lock_are_tags_and_the_lock_is_hashed_without_the_stage_that_logs(store: Store, project: Path) -> None:
    subprocess.run(["git", "init", "-q", "."], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    (project / "dvc.lock").write_text("stages:\n  sweep: {cmd: s}\n")
    tags = parent_of(store, log_result(store, result(project))).data.tags
    assert tags["mlflow.source.git.commit"] == head
    assert tags["pld.git_dirty"] == "false"
    (project / "dvc.lock").write_text("stages:\n  track: {cmd: t}\n  sweep: {cmd: s}\n")
    later = parent_of(store, log_result(store, result(project, right=0.8))).data.tags
    assert later["pld.dvc_lock"] == tags["pld.dvc_lock"]
    (project / "dvc.lock").write_text("stages:\n  sweep: {cmd: other}\n")
    other = parent_of(store, log_result(store, result(project, right=0.7))).data.tags
    assert other["pld.dvc_lock"] != tags["pld.dvc_lock"]


def test_logging_a_result_twice_adds_nothing(store: Store, project: Path) -> None:
    first = log_result(store, result(project))
    before = {name: run.info.run_id for name, run in runs(store).items()}
    again = log_result(store, result(project))
    assert (first.new, again.new) == (True, False)
    assert again.run_id == first.run_id
    assert {name: run.info.run_id for name, run in runs(store).items()} == before


def test_measuring_latency_again_or_moving_a_gate_makes_no_other_result(project: Path) -> None:
    config = write_artifacts(project / "artifacts")
    first = read_result(config)
    assert result(project, p95_ms=33.0).key == first.key
    (project / "artifacts/resolve/timing.json").write_text('{"seconds": {"pool": 99}}')
    assert read_result(config).key == first.key
    promotion = config.promotion.model_copy(update={"max_prompt_tokens": 5})
    assert read_result(config.model_copy(update={"promotion": promotion})).key == first.key


def test_the_latency_of_a_result_is_the_one_logged_with_it_before_or_added_later(
    store: Store, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaging, "_PACKAGE", project / "code")
    (project / "code").mkdir()

    def judged(run: str) -> str:
        config = load_config()
        gates = config.promotion.model_copy(update={"max_p95_ms": 25, "better_than_zero_shot": False})
        untimed = dataclasses.replace(read_result(config), config=config.model_copy(update={"promotion": gates}))
        assert not untimed.latency.systems
        return str(Registry(store, "mail").register_and_promote(untimed, run))

    result(project)
    path = project / "artifacts/evaluation/latency.json"
    timed = path.read_bytes()
    path.unlink()  # as after `dvc exp apply`
    logged = log_result(store, read_result(load_config()))
    assert "no latency was measured for distilled; run `dvc repro -f -s evaluate`" in judged(logged.run_id)
    path.write_bytes(timed)
    again = log_result(store, read_result(load_config()))
    assert (again.run_id, again.new) == (logged.run_id, False)
    assert parent_of(store, again).data.metrics.keys() >= TIMED
    path.unlink()
    assert "max_p95_ms p95 20.0 ms on a test, limit 25 ms" in judged(logged.run_id)


@pytest.mark.parametrize("changes", [{"right": 0.8}, {"prompt": PROMPT + "\n"}, {"test_size": 63}])
def test_another_outcome_is_another_result(project: Path, changes: dict[str, Any]) -> None:
    assert result(project).key != result(project, **changes).key


@pytest.mark.parametrize("file", ["report.json", "rounds/01/edits.jsonl", "final/descent.jsonl"])
def test_another_course_of_the_loop_is_another_result(project: Path, file: str) -> None:
    config = write_artifacts(project / "artifacts")
    before = read_result(config).key
    path = project / "artifacts/resolve" / file
    path.write_text(path.read_text() + "\n")
    assert read_result(config).key != before


def test_another_setting_is_another_result(project: Path) -> None:
    config = write_artifacts(project / "artifacts")
    changed = config.model_copy(update={"student": {**config.student, "batch_size": 3}})
    assert read_result(config).key != read_result(changed).key


def test_with_the_store_deleted_all_is_logged_again(store: Store, project: Path, fresh_database: Path) -> None:
    found = result(project)
    assert log_result(store, found).new
    names = set(runs(store))
    fresh = connect(f"sqlite:///{fresh_database.parent / 'emptied.db'}")
    assert log_result(fresh, found).new
    assert set(runs(fresh)) == names


def test_an_incomplete_run_of_a_killed_process_is_replaced(
    store: Store, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = result(project)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pld.registry.runs.trial_metrics", killed)
        with pytest.raises(KeyboardInterrupt):
            log_result(store, found)
    half = runs(store)
    assert half, "the test needs something half logged"
    logged = log_result(store, found)
    assert logged.new
    whole = runs(store)
    assert not {run.info.run_id for run in half.values()} & {run.info.run_id for run in whole.values()}
    assert {run.data.tags.get("mlflow.parentRunId", logged.run_id) for run in whole.values()} == {logged.run_id}
    assert not log_result(store, found).new


def test_a_prompt_that_was_edited_after_the_evaluation_is_refused(project: Path) -> None:
    config = write_artifacts(project / "artifacts")
    # what came into the loop is not what was measured as shipped either
    for text in ("something else", CLUSTERED):
        write_prompt(project / "artifacts/review/final", prompt_messages(text))
        with pytest.raises(ArtifactError, match=r"expected the prompt that was evaluated .*review/final/messages.json"):
            read_result(config)


def test_settings_are_flattened_to_dotted_names() -> None:
    nested = {"a": {"b": 1, "c": None}, "d": [1, "x"], "e": {}}
    assert flattened(nested) == {"a.b": "1", "a.c": "None", "d": '[1,"x"]', "e": "{}"}
