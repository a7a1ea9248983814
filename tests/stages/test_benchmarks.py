"""The public benchmarks that an installed package ships, from their files to rules with a configured Teacher."""

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from pld.adapters.teachers.factory import create_teacher
from pld.artifacts import read_json, read_jsonl
from pld.config.composition import compose
from pld.distill.cost_estimate import estimate
from pld.records import Example, Rule
from pld.stages import extract, prepare
from support.anthropic_server import answer
from support.small_projects import ROOT, configure


def explain(body, _):
    """A rule that leads to the gold label of the prompt."""
    (label,) = re.findall(r"^Gold label: (.+)$", body["messages"][0]["content"], re.MULTILINE)
    return answer({"rationale": "It is so.", "rule": f"If it is so, answer {label}.", "label": label})


@pytest.mark.parametrize(
    ("task", "counts"),
    [
        ("logiqa", {"A": 4, "B": 4, "C": 3, "D": 3}),
        ("stereoset_stance", {"stereotype": 5, "anti-stereotype": 5, "unrelated": 4}),
        ("privacy_policy", {"relevant": 7, "irrelevant": 7}),
    ],
)
def test_a_benchmark_runs_to_its_rules_with_a_teacher_that_is_asked_about_some_of_its_examples(
    task, counts, project, anthropic_server, capsys
):
    shutil.copytree(ROOT / "conf", project / "conf")
    shutil.copy(ROOT / "params.yaml", project / "params.yaml")
    server = anthropic_server(explain)
    configure(project, "extraction.examples=14", task=task, teacher="anthropic")
    prepare.run()
    config = compose(Path("conf"), Path("params.yaml"))
    (ahead,) = estimate(config, create_teacher(config), stages=("extract",)).stages
    extract.run()
    train = {example.id: example for example in read_jsonl(Path("artifacts/splits/train.jsonl"), Example)}
    rules = read_jsonl(Path("artifacts/rules/rules.jsonl"), Rule)
    assert Counter(rule.label for rule in rules) == counts
    assert all(train[rule.example_id].label == rule.label for rule in rules)
    assert (ahead.to_ask, len(server.bodies)) == (14, 14)
    summary = read_json(Path("artifacts/rules/summary.json"))
    assert (summary["rejected"], summary["examples"] + summary["not_asked"]) == (0, len(train))
    told = capsys.readouterr().out
    assert (
        f"asked about 14 of {len(train):,} training examples (extraction.examples), of which 14 have an answer" in told
    )
