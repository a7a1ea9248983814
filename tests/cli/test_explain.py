import json
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pld.cli.main import main, pld
from support.artifact_tree import write_artifacts
from support.stories import EFFECTS, FINAL, NARROW, PRAISE, REVISED, RULES, TWO_ROUNDS, WITH_TURNS


@pytest.fixture(autouse=True)
def tree(project):
    write_artifacts(project / "artifacts", story=TWO_ROUNDS)
    Path("artifacts/splits/test.jsonl").unlink()  # not looked at


def shown(*arguments):
    return CliRunner().invoke(pld, ["explain", *arguments], catch_exceptions=False).stdout


def words(*arguments):
    """What is printed, line ends and indents aside."""
    return " ".join(shown(*arguments).split())


def as_json(*arguments):
    return json.loads(shown(*arguments, "--json"))


def refusal(identity, capsys):
    with pytest.raises(SystemExit):
        main(["explain", identity])
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_an_instruction_is_followed_from_its_examples_through_its_edits_to_its_effect():
    own = FINAL[0]
    output = shown(own.id[:4])
    assert max(map(len, output.splitlines())) <= 120
    told = " ".join(output.split())
    for part in (
        f"{own.id}: instruction 1 of 3, leads to refund {own.text}",
        "origin: medoid; 4 rules behind it, cluster 0",
        f"round 1: revise of {NARROW.id} (Edit {REVISED.id}, by search) because: too narrow; accepted: macro-F1",
        "+0.0200 [+0.0100, +0.0500], a gain has probability 0.9800",
        "macro-F1 +0.120 [+0.110, +0.150]; F1 of refund +0.120, delivery +0.000",
        "turns right 12: validation-0, validation-1,",
        "validation-9 and 2 more",
        "turns wrong 0: none",
        "examples that it comes from: 4",
        f"train-3 (refund) (doubtful): {RULES[3].text}",
    ):
        assert part in told, part
    assert "validation-11" in words(own.id, "--all")


def test_json_holds_what_the_text_says():
    found = as_json(FINAL[0].id)
    assert (found["kind"], found["id"], found["clusters"]) == ("instruction", FINAL[0].id, [0])
    assert [example["example_id"] for example in found["examples"]] == ["train-0", "train-3", "train-6", "train-9"]
    assert [(step["op"], step["from_id"]) for step in found["edits"]] == [("revise", NARROW.id)]
    assert found["effect"] == EFFECTS[0].model_dump(mode="json")


def test_a_training_example_and_its_rule_lead_to_the_instructions_that_come_from_them():
    told = words("train-2")
    assert f"train-2: train example, label praise rule {RULES[2].id} (cluster 2): {RULES[2].text}" in told
    assert f"come from it: 1 {PRAISE.id} (praise): {PRAISE.text}" in told
    assert words(RULES[2].id) == told
    assert as_json("train-2")["instructions"] == [PRAISE.id]


@pytest.mark.parametrize(
    ("identity", "why"),
    [
        ("train-12", "(noise):"),
        ("train-13", "rule: refused: copied: repeats 8 or more consecutive words of text"),
        ("train-14", "rule: the Teacher gave none"),
    ],
)
def test_an_example_that_no_instruction_comes_from_says_why(identity, why):
    told = words(identity)
    assert why in told
    assert told.endswith("instructions that come from it: none")


def test_an_example_turn_of_the_prompt_traces_to_its_example_and_its_instruction(project):
    write_artifacts(project / "artifacts", story=WITH_TURNS)
    shown = as_json("train-2")
    assert shown["turn"] in range(1, 6)
    assert shown["instructions"] == [PRAISE.id]
    assert f"shown in the prompt as example turn {shown['turn']}" in words("train-2")
    assert f"train-2 (praise) (example turn {shown['turn']}): {RULES[2].text}" in words(PRAISE.id)
    assert as_json("train-3")["turn"] is None, "its rule is doubtful"


def test_an_example_that_the_teacher_was_not_asked_about_says_so():
    config = yaml.safe_load(Path("artifacts/config.yaml").read_text())
    config["extraction"]["examples"] = 1
    Path("artifacts/config.yaml").write_text(yaml.safe_dump(config))
    assert "rule: none: the Teacher was not asked about this example (extraction.examples)" in words("train-14")
    assert "rule: refused: copied" in words("train-13")  # of a run with more examples


def test_a_validation_example_names_the_instructions_that_turn_it_right_and_wrong():
    told = words("validation-2")
    assert f"turn it right: 1 {FINAL[0].id}" in told
    assert f"turn it wrong: 2 {FINAL[1].id} (delivery): {FINAL[1].text} {FINAL[2].id}" in told


def test_without_an_ablation_the_effect_is_reported_as_not_measured(project):
    write_artifacts(project / "artifacts", story=TWO_ROUNDS, ablated=False)
    assert "effect: not measured (resolution.ablation); run `pld ablate`" in words(FINAL[0].id)
    assert "turn it right: not measured" in words("validation-2")


def test_an_unknown_id_is_refused_with_the_ids_of_the_instructions(capsys):
    told = refusal("nothing", capsys)
    assert "got 'nothing' (explain); the instructions are" in told
    assert all(own.id in told for own in FINAL)
    assert "got 'tra' (explain); the instructions are" in refusal("tra", capsys)  # too short to be a beginning


def test_an_ambiguous_prefix_is_refused_with_the_ids_that_begin_with_it(capsys):
    assert words("train-1").startswith("train-1: train example")  # an id itself, and the beginning of others
    told = refusal("train", capsys)
    assert "got 'train', with which 15 begin (explain): train-0, train-1," in told
    assert told.endswith("train-9, ...\n")


def test_fractional_support_says_that_doubtful_rules_count_less(project):
    path = Path("artifacts/review/final/instructions.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["support"] = 3.25
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "origin: medoid; 3.25 rules behind it, doubtful ones counted less, cluster 0" in words(FINAL[0].id)
