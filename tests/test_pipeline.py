"""The whole chain on the shipped tickets with the 135M Student, through the real DVC, Hydra and MLflow."""

import contextlib
import csv
import hashlib
import json
import re
import sqlite3
import time
from pathlib import Path

import pytest
import yaml

from support.model_server import ModelServer
from support.planted import KEY, leaks
from support.project import copy_project

pytestmark = pytest.mark.timeout(900)

SMALL = [
    "evaluation.resamples=200",
    "baselines.few_shot=3",
    "baselines.chain_of_thought={max_tokens:12,examples:9,latency_requests:2}",
    "calibration.examples=20",
    "sweep.finalists=1",
    "resolution.rounds=2",
    "resolution.patience=2",
    "resolution.pool=16",
    "resolution.failures=6",
    "resolution.proposals=5",
    "resolution.candidates=3",
    "resolution.gate={min_gain:0.001,min_confidence:0.5,max_label_loss:1.0,resamples:200}",  # to see an Edit accepted
    "sweep.space.rendering={frame:[list],exemplars:[1],exemplars_per:[label]}",
    "student.dtype=bfloat16",  # for time
    "clustering.noise=drop",
    "promotion.max_prompt_tokens=5",  # no prompt is that short: nothing is promoted by itself
]
EPS = "sweep.space.clusterer.eps=[0.01,0.5,0.6]"  # at 0.01 all rules are noise


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = copy_project(tmp_path_factory.mktemp("chain") / "project")
    made.select([*SMALL, EPS], task="tickets", clusterer="dbscan", teacher="recorded_tickets", student="smollm2-135m")
    made.commit("tickets")
    return made


def query(project, sql):
    with sqlite3.connect(project.folder / "mlflow.db") as connection:
        return connection.execute(sql).fetchall()


def runs(project):
    return query(project, "select count(*) from runs where lifecycle_stage = 'active'")[0][0]


def aliases(project):
    return dict(query(project, "select alias, version from registered_model_aliases where name = 'pld-tickets'"))


def ran(output):
    """Stages that DVC ran, in order."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]


AFTER_THE_SWEEP = ("resolve", "review", "evaluate", "report")
PLANTED = KEY * 2  # a project's copy holds the tests, and they hold the key


def hashes(project, *stages):
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
    return {
        out["path"]: out["md5"]
        for stage in stages
        for out in lock[stage]["outs"]
        if not out["path"].endswith(("latency.json", "timing.json"))
    }


def test_a_fresh_clone_runs_to_a_registered_prompt_and_closes_with_the_table(project):
    done = project.run("dvc", "repro", ANTHROPIC_API_KEY=PLANTED)
    assert ran(done.stdout) == [
        "config",
        "prepare",
        "extract",
        "embed",
        "sweep",
        "resolve",
        "review",
        "evaluate",
        "report",
        "track",
    ]
    for word in (
        "zero_shot",
        "few_shot",
        "chain_of_thought",
        "tfidf_logreg",
        "clustered",
        "distilled",
        "macro-F1",
        "p50",
        "pld-tickets",
        "make ui",
    ):
        assert word in done.stdout, word
    assert aliases(project) == {"candidate": 1}
    assert leaks(project.folder, done.stdout + done.stderr, [PLANTED]) == []


def test_what_is_registered_is_byte_for_byte_what_was_measured(project):
    prompt = (project.folder / "artifacts/review/final/system_prompt.md").read_bytes()
    report = json.loads((project.folder / "artifacts/evaluation/report.json").read_text())
    assert report["prompt_sha256"] == hashlib.sha256(prompt).hexdigest()
    tags = query(project, "select value from model_version_tags where name = 'pld-tickets'")
    assert (report["prompt_sha256"],) in tags


def test_the_winner_is_the_best_of_the_leaderboard_and_its_files_are_there(project):
    folder = project.folder / "artifacts"
    trial = json.loads((folder / "best/trial.json").read_text())
    own = folder / "trials" / trial["trial_id"]
    assert {path.name for path in own.iterdir()} == {
        "clusters.jsonl", "instructions.jsonl", "system_prompt.md", "report.json", "predictions.jsonl",
    }  # fmt: skip
    assert (own / "system_prompt.md").read_bytes() == (folder / "best/system_prompt.md").read_bytes()
    rules = {json.loads(line)["id"] for line in (folder / "rules/rules.jsonl").read_text().splitlines()}
    for line in (own / "instructions.jsonl").read_text().splitlines():
        assert set(json.loads(line)["rule_ids"]) <= rules


def test_a_point_that_leaves_no_prompt_is_a_row_with_its_error_and_the_sweep_goes_on(project):
    rows = list(csv.DictReader((project.folder / "artifacts/trials.csv").open()))
    assert [bool(row["error"]) for row in rows] == [False, False, True]
    assert "choose clustering.noise=nearest" in rows[-1]["error"]
    for row in rows[:-1]:
        prompt = (project.folder / "artifacts/trials" / row["trial_id"] / "system_prompt.md").read_bytes()
        assert hashlib.sha256(prompt).hexdigest().startswith(row["prompt"])
        assert len(row["prompt"]) == 12


def test_the_loop_leaves_its_rounds_and_what_ships_comes_from_the_last_of_them(project):
    folder = project.folder / "artifacts/resolve"
    rounds = sorted((folder / "rounds").iterdir())
    assert [path.name for path in rounds] == ["01", "02"][: len(rounds)]
    for path in rounds:
        assert {item.name for item in path.iterdir()} == {
            "pool.jsonl", "shown.jsonl", "blame.jsonl", "edits.jsonl", "instructions.jsonl", "system_prompt.md",
            "report.json",
        }  # fmt: skip
    assert (rounds[-1] / "system_prompt.md").read_bytes() == (folder / "final/system_prompt.md").read_bytes()
    report = json.loads((folder / "report.json").read_text())
    assert report["result"]["macro_f1"]["value"] >= report["came_in"]["macro_f1"]["value"]
    systems = json.loads((project.folder / "artifacts/evaluation/report.json").read_text())["systems"]
    assert {"clustered", "distilled"} <= set(systems)


def test_every_line_of_the_prompt_can_be_explained_and_weighed(project):
    lines = (project.folder / "artifacts/review/final/instructions.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        explained = project.run("pld", "explain", line["id"]).stdout
        assert line["text"].split()[0] in explained
    assert line["id"] in project.run("pld", "ablate").stdout


def test_a_second_run_runs_only_tracking_and_adds_nothing(project):
    project.commit("first run")
    before = runs(project), aliases(project), hashes(project, "sweep", "resolve", "evaluate")
    done = project.run("dvc", "repro")
    assert ran(done.stdout) == ["track"]
    assert (runs(project), aliases(project), hashes(project, "sweep", "resolve", "evaluate")) == before


def test_the_same_commit_makes_the_same_bytes_again(project):
    stages = ("embed", "sweep", "resolve", "review", "evaluate")
    before = hashes(project, *stages)
    project.run("dvc", "repro", "--force", "--single-item", *stages)
    assert hashes(project, *stages) == before


def test_metrics_and_plots_are_dvcs_own(project):
    metrics = json.loads(project.run("dvc", "metrics", "show", "--json").stdout)
    (shown,) = metrics[""]["data"].values()
    assert set(shown["data"]) >= {"zero_shot", "distilled_calibrated"}
    done = project.run("dvc", "plots", "show", "--json")
    assert {"artifacts/trials.csv", "artifacts/evaluation/confusion.csv"} <= set(json.loads(done.stdout)["data"])


def test_an_edited_clusterer_option_reruns_the_sweep_and_asks_no_teacher(project):
    option = project.folder / "conf/clusterer/dbscan.yaml"
    option.write_text(option.read_text().replace("min_samples: 6", "min_samples: 4"))
    done = project.run("dvc", "repro")
    # the stages between depend on the winner alone, which can be the same
    assert [stage for stage in ran(done.stdout) if stage not in AFTER_THE_SWEEP] == ["config", "sweep", "track"]
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout", "-q")


def test_a_push_takes_everything_to_the_remote_and_a_pull_brings_it_back(project):
    project.run("dvc", "push", "-q")
    project.run("rm", "-rf", "artifacts", ".dvc/cache")
    done = project.run("dvc", "repro", "--pull")
    assert ran(done.stdout) == ["track"]


def test_promotion_by_hand_needs_a_reason_where_a_gate_fails(project):
    refused = project.run("pld", "promote", check=False)
    assert refused.returncode == 1
    assert "max_prompt_tokens failed" in refused.stderr
    assert refused.stderr.count("\n") == 1
    project.run("pld", "promote", "--force", "--reason", "a test")
    assert aliases(project)["production"] == 1
    assert "production" in project.run("pld", "status").stdout


def filled_in(sheet, text):
    """A reviewer's work in an editor: the first instruction gets `text`, the others are approved."""
    verdicts = iter(["edit"] + ["approve"] * sheet.count("verdict:"))
    sheet = re.sub(r"^verdict:.*$", lambda _: f"verdict: {next(verdicts)}", sheet, flags=re.MULTILINE)
    sheet = re.sub(r"^reviewer:.*$", "reviewer: Ada", sheet, flags=re.MULTILINE)
    return re.sub(r"^text:[^`]*```", f"text: {text}\n```", sheet, count=1, flags=re.MULTILINE)


def test_a_newcomer_reads_edits_promotes_serves_classifies_and_rolls_back(project):
    folder = project.folder
    ships = folder / "artifacts/review/final"
    before = (ships / "system_prompt.md").read_bytes()
    assert "<html" in (folder / "artifacts/report/index.html").read_text()

    project.run("pld", "review", "export", "--out", "sheet.md")
    sheet = folder / "sheet.md"
    (label, *_) = (json.loads(line)["label"] for line in (ships / "instructions.jsonl").read_text().splitlines())
    sheet.write_text(
        filled_in(sheet.read_text(), f"If the customer writes of an outage or a late fee, answer {label}.")
    )
    assert "recorded as sheet 1" in project.run("pld", "review", "import", "sheet.md").stdout
    done = project.run("dvc", "repro")
    assert ran(done.stdout) == ["review", "evaluate", "report", "track"]
    after = (ships / "system_prompt.md").read_bytes()
    assert b"an outage or a late fee" in after
    assert before != after
    systems = json.loads((folder / "artifacts/evaluation/report.json").read_text())["systems"]
    assert {"clustered", "unreviewed", "distilled"} <= set(systems)
    assert "Ada" in project.run("pld", "review", "verify").stdout

    assert aliases(project) == {"production": 1, "candidate": 2}
    assert "reworded" in project.run("pld", "diff", "production", "candidate").stdout
    project.run("pld", "promote", "--force", "--reason", "shorter than the limit of the test can be")
    assert aliases(project) == {"production": 2, "previous": 1}
    assert project.run("pld", "export", "--alias", "production").stdout.encode() == after

    project.run("pld", "classify", "assets/corpus/records/tickets.csv", "--alias", "production", "--out", "answers.csv")
    with (folder / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    log = folder / "served.jsonl"
    with ended(ModelServer(folder, model="pld-tickets", PLD_SERVING_LOG=str(log))) as server:
        asked = [{name: row[name] for name in ("subject", "body")} for row in rows[:5]]
        status, answered = server.ask({"dataframe_records": asked})
    assert status == 200
    for row, answer in zip(rows, answered["predictions"], strict=False):
        assert row["label"] == answer["label"]
        assert answer["prompt_sha256"] == row["prompt_sha256"] == hashlib.sha256(after).hexdigest()
    assert "Too few to tell" in project.run("pld", "monitor", str(log)).stdout

    project.run("pld", "rollback")
    assert aliases(project) == {"production": 1, "previous": 2}
    assert project.run("pld", "export", "--alias", "production").stdout.encode() == before
    moves = json.loads(project.run("pld", "history", "--json").stdout)
    assert [move["kind"] for move in moves][:2] == ["rollback", "force"]
    project.commit("reviewed")


@contextlib.contextmanager
def ended(server):
    server.start()
    try:
        yield server
    finally:
        server.end()


def settings(*more):
    return f"overrides={json.dumps([*SMALL, *more])}"


def test_an_experiment_runs_and_never_moves_production(project):
    before = runs(project), aliases(project)
    changed = settings("sweep.space.clusterer.min_cluster_size=[5]")
    done = project.run("dvc", "exp", "run", "-S", "groups.clusterer=umap_hdbscan", "-S", changed)
    # the stages between depend on the winner alone, which can be the same
    assert [stage for stage in ran(done.stdout) if stage not in AFTER_THE_SWEEP] == ["config", "sweep", "track"]
    assert aliases(project) == before[1]
    assert runs(project) > before[0]
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout", "-q")


def test_a_queue_with_two_workers_loses_no_artifact_and_never_moves_production(project):
    before = runs(project), aliases(project)
    for eps in (0.55, 0.65):
        changed = settings(f"sweep.space.clusterer.eps=[{eps}]")
        project.run("dvc", "exp", "run", "--queue", "-S", changed)
    project.start("dvc", "queue", "start", "-j", "2")
    status = until_done(project)
    assert status.count("Success") == 2, status
    assert aliases(project) == before[1]
    assert runs(project) > before[0]
    for (uri,) in query(project, "select artifact_uri from runs where lifecycle_stage = 'active'"):
        stored = Path(uri.removeprefix("file://"))
        assert project.folder in stored.parents
    for (uri,) in query(
        project,
        "select artifact_uri from runs join tags on runs.run_uuid = tags.run_uuid "
        "where tags.key = 'pld.kind' and tags.value in ('result', 'trial') "
        "and lifecycle_stage = 'active' and status = 'FINISHED'",
    ):
        assert (Path(uri.removeprefix("file://")) / "system_prompt.md").exists(), uri


def until_done(project, seconds=500):
    for _ in range(seconds // 2):
        status = project.run("dvc", "queue", "status").stdout
        if "Running" not in status and "Queued" not in status:
            return status
        time.sleep(2)
    raise AssertionError(status)


def test_nothing_asked_for_the_network(project):
    assert project.contacted() == []
