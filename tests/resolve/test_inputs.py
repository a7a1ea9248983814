import json
from pathlib import Path

import numpy as np
import pytest

from pld.artifacts import write_json, write_jsonl, write_text
from pld.config.settings import load_config
from pld.errors import ArtifactError
from pld.resolve.inputs import load_inputs
from support.artifact_tree import write_artifacts
from support.stories import CAME_IN, RULES, TWO_ROUNDS
from support.word_student import WordStudent

ARTIFACTS = Path("artifacts")


@pytest.fixture(autouse=True)
def tree(project, monkeypatch):
    monkeypatch.setattr("pld.resolve.inputs.build", lambda section, role: WordStudent())
    write_artifacts(ARTIFACTS, story=TWO_ROUNDS)
    (ARTIFACTS / "splits/test.jsonl").unlink()  # not looked at


def test_the_list_that_won_is_loaded_with_its_own_settings():
    lists = load_inputs(load_config(), ARTIFACTS)
    assert lists.instructions == CAME_IN
    assert lists.config.rendering.exemplars == 1  # the winner's, not that of conf/
    assert lists.scorer.config is lists.config
    assert lists.vectors.shape == (13, 13)
    assert (len(lists.clusters), lists.clusters[RULES[1].id]) == (12, 1)
    assert lists.noise == {RULES[12].id}
    assert (len(lists.train), len(lists.validation)) == (15, 30)
    assert lists.scorer.explained == {rule.example_id for rule in RULES}


@pytest.mark.parametrize("changed", ["prompt", "rule", "vectors"])
def test_files_that_are_not_of_one_run_are_refused(changed):
    if changed == "prompt":
        write_text(ARTIFACTS / "best/system_prompt.md", "another")
    if changed == "vectors":
        write_json(ARTIFACTS / "embeddings/rule_ids.json", {"rule_ids": [rule.id for rule in reversed(RULES)]})
    if changed == "rule":
        rows = [json.loads(line) for line in (ARTIFACTS / "best/instructions.jsonl").read_text().splitlines()]
        rows[0]["rule_ids"][0] = "unheard of"
        write_text(ARTIFACTS / "best/instructions.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    expected = {
        "prompt": r"expected the system message of .*best/messages.json, got another text \(.*best/system_prompt.md\)",
        "rule": "got unheard of of",
        "vectors": r"expected the vectors of .*, got others \(artifacts/embeddings\)",
    }
    with pytest.raises(ArtifactError, match=expected[changed]):
        load_inputs(load_config(), ARTIFACTS)


def test_vectors_are_those_of_the_file():
    lists = load_inputs(load_config(), ARTIFACTS)
    assert np.array_equal(lists.vectors, np.load(ARTIFACTS / "embeddings/vectors.npy"))


def test_the_loop_has_the_rules_that_the_winner_clustered_and_no_other():
    rules = [rule.model_copy(update={"doubtful": rule is RULES[12]}) for rule in RULES]
    write_jsonl(ARTIFACTS / "rules/rules.jsonl", rules)
    winner = ARTIFACTS / "best/trial.json"
    trial = json.loads(winner.read_text())
    write_json(winner, trial | {"settings": trial["settings"] | {"clustering.doubtful": "drop"}})
    lists = load_inputs(load_config(), ARTIFACTS)
    assert lists.rules == rules[:12]
    assert np.array_equal(lists.vectors, np.load(ARTIFACTS / "embeddings/vectors.npy")[:12])
