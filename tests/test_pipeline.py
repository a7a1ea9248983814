"""The whole pipeline with the 135M Student, through the real DVC, Hydra and MLflow. The project is made once, by the
commands of docs/tutorial/your-own-data.md, and the tests share it in the order of this file."""

import contextlib
import csv
import hashlib
import json
import re
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from support.model_server import ModelServer
from support.planted import KEY, leaks
from support.project import ROOT, copy_project

PAGE = (ROOT / "docs/tutorial/your-own-data.md").read_text(encoding="utf-8")
MODEL = "pld-helpdesk"

pytestmark = pytest.mark.timeout(900)

SMALL = [
    "evaluation.resamples=200",
    "baselines.few_shot=[3,6]",
    "baselines.few_shot_nearest={shown:1,examples:9}",
    "baselines.chain_of_thought={max_tokens:12,examples:9,latency_requests:2}",
    "calibration.examples=20",
    "latency.trial_requests=1",
    "sweep.finalists=1",
    "resolution.ablation=true",
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


@dataclass(frozen=True)
class Walkthrough:
    """What the page's commands printed: up to the registered candidate, with the aliases then, and to production."""

    to_candidate: str
    aliases: dict[str, int]
    to_production: str


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The repository's task and Teacher, with settings that make a run quick."""
    made = copy_project(tmp_path_factory.mktemp("chain") / "project")
    made.select([*SMALL, EPS], clusterer="dbscan", consolidator="medoid", student="smollm2-135m")
    made.commit("quick settings")
    return made


@pytest.fixture(scope="module", autouse=True)
def walkthrough(project):
    told = follow(project, "", "1.", "2.", "3.", "4.", "5.", ANTHROPIC_API_KEY=PLANTED)
    found = aliases(project)
    return Walkthrough(told, found, follow(project, "6."))


def blocks(language, section):
    """The page's blocks in that language under the heading that begins so; "": above the first heading."""
    parts = {text.split("\n")[0]: text for text in PAGE.split("\n## ")[1:]} | {"": PAGE.split("\n## ")[0]}
    (title,) = [title for title in parts if (title.startswith(section) if section else not title)]
    found = re.findall(r"^```(\w*)\n(.*?)^```$", parts[title], re.MULTILINE | re.DOTALL)
    return [text for name, text in found if name == language]


def follow(project, *sections, **environment):
    """Run what the page says there, and nothing else; what it printed."""
    scripts = [script for section in sections for script in blocks("console", section)]
    return "".join(project.run("bash", "-e", "-c", script, **environment).stdout for script in scripts)


def query(project, sql):
    with sqlite3.connect(project.folder / "mlflow.db") as connection:
        return connection.execute(sql).fetchall()


def runs(project):
    return query(project, "select count(*) from runs where lifecycle_stage = 'active'")[0][0]


def aliases(project):
    return dict(query(project, f"select alias, version from registered_model_aliases where name = '{MODEL}'"))


def ran(output):
    """Stages that DVC ran, in order."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]


AFTER_THE_SWEEP = ("resolve", "review", "evaluate")
PLANTED = KEY * 2  # a project's copy holds the tests, and they hold the key


def hashes(project, *stages):
    lock = yaml.safe_load((project.folder / "dvc.lock").read_text())["stages"]
    return {out["path"]: out["md5"] for stage in stages for out in lock[stage]["outs"]}


def test_the_page_on_own_data_leads_from_a_file_to_a_registered_prompt(project, walkthrough):
    told = walkthrough.to_candidate
    assert ran(told) == [
        "config", "prepare", "extract", "embed", "sweep", "resolve", "review", "evaluate", "track",
    ]  # fmt: skip
    (report,) = blocks("", "1.")
    lines = told.splitlines()
    # the Student's tokens are those of the test's Student
    assert [line for line in report.splitlines() if line not in lines and not line.startswith("inputs: ")] == []
    for word in (
        "zero_shot",
        "few_shot",
        "chain_of_thought",
        "tfidf_logreg",
        "clustered",
        "distilled",
        "macro-F1",
        "p50",
        MODEL,
        "make ui",
    ):
        assert word in told, word
    assert walkthrough.aliases == {"candidate": 1}
    assert leaks(project.folder, told, [PLANTED]) == []


def test_the_page_leads_to_production_and_what_is_there_is_byte_for_byte_what_was_measured(project, walkthrough):
    told = walkthrough.to_production
    assert aliases(project) == {"production": 1}
    prompt = (project.folder / "artifacts/review/final/system_prompt.md").read_bytes()
    report = json.loads((project.folder / "artifacts/evaluation/report.json").read_text())
    assert report["prompt_sha256"] == hashlib.sha256(prompt).hexdigest()
    assert prompt.decode() in told
    assert "a first version, to try it out" in told
    tags = query(project, f"select value from model_version_tags where name = '{MODEL}'")
    assert (report["prompt_sha256"],) in tags


def test_the_winner_is_the_best_of_the_leaderboard_and_its_files_are_there(project):
    folder = project.folder / "artifacts"
    trial = json.loads((folder / "best/trial.json").read_text())
    own = folder / "trials" / trial["trial_id"]
    assert {path.name for path in own.iterdir()} == {
        "clusters.jsonl", "instructions.jsonl", "system_prompt.md", "messages.json", "report.json", "predictions.jsonl",
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
            "messages.json", "report.json",
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
    assert line["id"][:8] in project.run("pld", "ablate").stdout


def test_a_second_run_runs_only_tracking_and_adds_nothing(project):
    project.commit("first run")
    before = runs(project), aliases(project), hashes(project, "sweep", "resolve", "evaluate")
    done = project.run("dvc", "repro")
    assert ran(done.stdout) == ["track"]
    assert (runs(project), aliases(project), hashes(project, "sweep", "resolve", "evaluate")) == before


@pytest.mark.slow
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


@pytest.mark.slow
def test_an_edited_clusterer_option_reruns_the_sweep_and_asks_no_teacher(project):
    option = project.folder / "conf/clusterer/dbscan.yaml"
    before = hashes(project, "sweep")
    edited = re.sub(r"^eps: \S+", "eps: 0.45", option.read_text(), flags=re.MULTILINE)  # the sweep tries others anyway
    assert edited != option.read_text()
    option.write_text(edited)
    done = project.run("dvc", "repro")
    # the winner is the same, and what depends on it alone is not run again
    assert ran(done.stdout) == ["config", "sweep", "track"]
    assert hashes(project, "sweep") == before
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout", "-q")


@pytest.mark.slow
def test_a_colleague_has_everything_from_the_remote(project):
    project.commit("as it stands")
    assert ran(follow(project, "7.")) == ["track"]
    for name in ("review/final/system_prompt.md", "evaluation/predictions.jsonl", "trials.csv"):
        theirs = project.folder.parent / "colleague/artifacts" / name
        assert theirs.read_bytes() == (project.folder / "artifacts" / name).read_bytes()


def test_new_rows_are_seen_before_they_are_run(project):
    told = follow(project, "8.")
    (shown,) = blocks("", "8.")
    head, *rest = shown.splitlines()
    assert head.split(" (")[0] in told
    assert [line for line in rest if line not in told.splitlines()] == []
    project.run("dvc", "checkout", "-q", "--force")


def filled_in(sheet, text):
    """The YAML sheet after review: the first instruction edited to `text`, the others approved."""
    value = yaml.load(sheet, yaml.BaseLoader) | {"reviewer": "Ada"}
    first, *others = value["instructions"]
    reviewed = [first | {"verdict": "edit", "text": text}, *(item | {"verdict": "approve"} for item in others)]
    return yaml.safe_dump(value | {"instructions": reviewed}, sort_keys=False)


@pytest.mark.slow
def test_a_newcomer_reads_edits_promotes_serves_classifies_and_rolls_back(project):
    folder = project.folder
    ships = folder / "artifacts/review/final"
    before = (ships / "system_prompt.md").read_bytes()
    assert "<html" in (folder / "artifacts/report/index.html").read_text()

    project.run("pld", "review", "export", "--out", "sheet.yaml")
    sheet = folder / "sheet.yaml"
    (label, *_) = (json.loads(line)["label"] for line in (ships / "instructions.jsonl").read_text().splitlines())
    sheet.write_text(
        filled_in(sheet.read_text(), f"If the customer writes of an outage or a late fee, answer {label}.")
    )
    assert "recorded as sheet 1" in project.run("pld", "review", "import", "sheet.yaml").stdout
    done = project.run("dvc", "repro")
    assert ran(done.stdout) == ["review", "evaluate", "track"]
    after = (ships / "system_prompt.md").read_bytes()
    assert b"an outage or a late fee" in after
    assert before != after
    systems = json.loads((folder / "artifacts/evaluation/report.json").read_text())["systems"]
    assert {"clustered", "unreviewed", "distilled"} <= set(systems)
    assert "Ada" in project.run("pld", "review", "verify").stdout

    assert aliases(project) == {"production": 1, "candidate": 2}
    refused = project.run("pld", "promote", check=False)  # a failed gate is passed over for a reason alone
    assert refused.returncode == 1
    assert "max_prompt_tokens failed" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert aliases(project) == {"production": 1, "candidate": 2}
    assert "production" in project.run("pld", "status").stdout
    assert "reworded" in project.run("pld", "diff", "production", "candidate").stdout
    project.run("pld", "promote", "--force", "--reason", "shorter than the limit of the test can be")
    assert aliases(project) == {"production": 2, "previous": 1}
    assert project.run("pld", "export", "--alias", "production").stdout.encode() == after

    project.run("pld", "classify", "assets/corpus/records/tickets.csv", "--alias", "production", "--out", "answers.csv")
    with (folder / "answers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    log = folder / "served.jsonl"
    with ended(ModelServer(folder, model=MODEL, PLD_SERVING_LOG=str(log))) as server:
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


@pytest.mark.slow
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


@pytest.mark.slow
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
