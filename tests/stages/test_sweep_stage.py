"""What the sweep stage leaves, of a sweep of test size."""

import csv
import json
import re
from pathlib import Path

import pytest

from pld import artifacts
from pld.distill.sweep import DrawSpread, Swept
from pld.reports import TrialReport
from pld.stages import sweep
from support.word_sweep import ByNearest, raced, swept, whole

DRAWS = Path("artifacts/best/draws.json")


@pytest.fixture(autouse=True)
def settings() -> None:
    """Composed from the project's own conf/, before a test leaves its folder."""
    whole()


def written(found: Swept) -> Swept:
    sweep._write(Path("artifacts"), found)
    return found


def test_where_draws_were_searched_their_spread_is_told_and_kept_beside_the_winner(project, capsys):
    found = written(swept(*({"clustering.draw": draw} for draw in (None, 0, 1))))
    spread = artifacts.read_record(DRAWS, DrawSpread)
    assert [item.draw for item in spread.draws] == [None, 0, 1]
    assert f"sweep: {spread}\n" in capsys.readouterr().out
    with Path("artifacts/trials.csv").open() as file:
        rows = {row["trial_id"]: row for row in csv.DictReader(file)}
    assert {row["clustering.draw"] for row in rows.values()} == {"", "0", "1"}
    assert all(rows[item.trial_id]["macro_f1"] == f"{item.macro_f1:.4f}" for item in spread.draws)
    assert found.winner.report.settings["clustering.draw"] != 1


def test_of_a_sweep_without_draws_nothing_is_told_and_nothing_of_an_earlier_one_stays(project, capsys):
    written(swept({"clustering.draw": 0}, {"clustering.draw": 1}))
    assert DRAWS.exists()
    capsys.readouterr()
    written(swept({"clustering.doubtful": "keep"}, {"clustering.doubtful": "downweight"}))
    assert not DRAWS.exists()
    assert "by draw" not in capsys.readouterr().out


def test_supports_that_are_no_whole_numbers_are_read_back_as_they_are(project):
    found = written(swept({"clustering.doubtful": "downweight"}))
    rows = [row["support"] for row in _lines(Path("artifacts/best/instructions.jsonl"))]
    kept = {item.id: item.support for item in found.winner.draft.instructions}
    assert rows == [kept[identity] for identity in found.winner.draft.prompt.instruction_ids]
    assert any(isinstance(value, float) for value in rows)


class BySize(ByNearest):
    def by_size(self, rows):
        return {"min_samples": rows, "init": "pca"}


class Repeated(ByNearest):
    def stability(self, vectors):
        return len(vectors) / 100


def test_the_stability_of_the_clusters_stands_with_every_trial_that_has_one(project, capsys):
    points = [{"clustering.doubtful": doubtful} for doubtful in ("keep", "drop")]
    written(swept(*points, clusterer=Repeated()))
    with Path("artifacts/trials.csv").open() as file:
        for row in csv.DictReader(file):
            of = {"keep": 0.6, "drop": 0.54}[row["clustering.doubtful"]]
            assert float(row["stability"]) == of
            assert json.loads(Path(f"artifacts/trials/{row['trial_id']}/report.json").read_text())["stability"] == of
    assert re.search(r"sweep: \d+ clusters, \d+% noise, stability 0\.(60|54) ", capsys.readouterr().out)
    written(swept(*points))
    assert "stability" not in capsys.readouterr().out
    assert "stability" not in Path("artifacts/best/trial.json").read_text()
    with Path("artifacts/trials.csv").open() as file:
        assert {row["stability"] for row in csv.DictReader(file)} == {""}


def test_what_the_clusterer_chose_by_the_number_of_rules_is_told_and_stands_with_every_trial(project, capsys):
    points = [{"clustering.doubtful": doubtful} for doubtful in ("keep", "drop")]
    found = written(swept(*points, clusterer=BySize()))
    chosen = {"keep": 60, "drop": 54}
    with Path("artifacts/trials.csv").open() as file:
        for row in csv.DictReader(file):
            number = chosen[row["clustering.doubtful"]]
            assert row["by_size"] == f"min_samples {number}, init pca"
            report = json.loads(Path(f"artifacts/trials/{row['trial_id']}/report.json").read_text())
            assert report["by_size"] == {"min_samples": number, "init": "pca"}
    winner = found.winner.report
    told = f"sweep: chosen by the number of rules that {winner.trial_id} clusters: min_samples"
    assert told in capsys.readouterr().out
    written(swept(*points))
    assert "chosen by" not in capsys.readouterr().out
    assert "by_size" not in Path("artifacts/best/trial.json").read_text()


def test_the_leaderboard_of_a_race_says_how_far_each_trial_went_and_what_it_cost(project, capsys):
    points = [{"clustering.draw": draw, "rendering.order": order} for draw in (0, 1) for order in ("support", "label")]
    found, student = raced(*points, first=2)
    written(found)
    with Path("artifacts/trials.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["rung"], row["n"]) for row in rows] == [("2", "30")] * 2 + [("1", "6")] * 2
    assert sum(int(row["asked"]) for row in rows) == len(student.asked)
    assert f"sweep: 4 trials, {len(student.asked):,} Student answers" in capsys.readouterr().out
    for row in rows:
        report = artifacts.read_record(Path(f"artifacts/trials/{row['trial_id']}/report.json"), TrialReport)
        assert (row["gap"], row["se"]) == (f"{report.standing.gap:.4f}", f"{report.standing.se:.4f}")
        assert bool(row["final_macro_f1"]) == (report.report.n == 30)
    best = artifacts.read_record(Path("artifacts/best/trial.json"), TrialReport)
    assert best.standing.gap <= best.standing.se
    assert best.report.n == 30


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
