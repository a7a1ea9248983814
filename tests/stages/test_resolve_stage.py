"""The stage with a scripted Student, on a made-up list of five instructions."""

from pathlib import Path

import pytest

from pld.artifacts import read_jsonl, read_prompt, read_record, write_json
from pld.distill.render import turn_examples
from pld.params import NoResolver, SearchResolver
from pld.records import Calibration, Example, Instruction, Prediction
from pld.resolve.records import EditResult, ResolutionReport, RoundReport
from pld.stages import resolve
from support.artifact_tree import composed, write_artifacts
from support.stories import CAME_IN, RULES, TWO_ROUNDS, WITH_TURNS
from support.word_student import WordStudent

FOLDER = Path("artifacts/resolve")
ROUND = {
    "pool.jsonl",
    "shown.jsonl",
    "blame.jsonl",
    "edits.jsonl",
    "instructions.jsonl",
    "system_prompt.md",
    "messages.json",
    "report.json",
}


@pytest.fixture(autouse=True)
def tree(project):
    write_artifacts(Path("artifacts"), story=TWO_ROUNDS)


def run_stage(resolver="search", **changes):
    """The bytes of all outputs, by path."""
    kinds = {"search": SearchResolver, "none": NoResolver}
    config = composed()
    gate = config.resolution.gate.model_copy(update={"resamples": 200})
    small = {"pool": 4, "rounds": 2, "sampler": "random", "gate": gate, **changes}  # random: embeds nothing
    resolution = config.resolution.model_copy(update=small)
    resolver = kinds[resolver](kind=resolver)
    config = config.model_copy(update={"resolution": resolution, "resolver": resolver})
    resolve.compute(config, Path("artifacts"), student=WordStudent())
    return {str(path.relative_to(FOLDER)): path.read_bytes() for path in FOLDER.rglob("*") if path.is_file()}


def test_the_stage_writes_rounds_the_final_list_and_reports_and_no_times(capsys):
    files = run_stage()
    report = read_record(FOLDER / "report.json", ResolutionReport)
    final = {"instructions.jsonl", "system_prompt.md", "messages.json", "calibration.json", "predictions.jsonl"}
    expected = {f"final/{name}" for name in (*final, "descent.jsonl", "ablation.jsonl")}
    expected |= {"report.json", "report.md", "pareto.csv"}
    expected |= {f"rounds/{found.round:02}/{name}" for found in report.rounds for name in ROUND}
    assert set(files) == expected
    assert report.rounds
    first = read_record(FOLDER / "rounds/01/report.json", RoundReport)
    assert first == report.rounds[0]
    assert len(read_jsonl(FOLDER / "rounds/01/edits.jsonl", EditResult)) == first.proposed > 0
    assert report.result.macro_f1.value >= report.came_in.macro_f1.value
    assert f"resolve: ended by: {report.ended}" in capsys.readouterr().out


def test_the_same_inputs_give_the_same_bytes():
    assert run_stage() == run_stage()


def test_turns_go_through_the_loop_and_come_from_the_instructions_that_are_left():
    write_artifacts(Path("artifacts"), story=WITH_TURNS)
    came_in = read_prompt(Path("artifacts/best"))
    run_stage("none")
    assert read_prompt(FOLDER / "final") == came_in
    assert [message.role for message in came_in[1:]] == ["user", "assistant"] * 5
    run_stage()
    left = read_jsonl(FOLDER / "final/instructions.jsonl", Instruction)
    train = read_jsonl(Path("artifacts/splits/train.jsonl"), Example)
    behind = {rule.example_id for rule in RULES for own in left if rule.id in own.rule_ids and not rule.doubtful}
    shown = turn_examples(composed().task, read_prompt(FOLDER / "final"), train)
    assert len(shown) == 5
    assert set(shown) <= behind
    pool = {row.example_id for row in read_jsonl(FOLDER / "rounds/01/pool.jsonl", Prediction)}
    assert pool.isdisjoint(turn_examples(composed().task, came_in, train)), "the pool is what the prompt doesn't show"


def test_without_a_resolver_the_list_that_won_ships_byte_for_byte():
    files = run_stage("none")
    assert files["final/system_prompt.md"] == Path("artifacts/best/system_prompt.md").read_bytes()
    assert read_jsonl(FOLDER / "final/instructions.jsonl", Instruction) == CAME_IN
    report = read_record(FOLDER / "report.json", ResolutionReport)
    assert (report.resolver, report.ended, report.rounds, report.candidates) == ("none", "no resolver", (), 0)
    assert report.result == report.came_in


def test_the_list_that_won_keeps_the_calibration_that_the_sweep_fitted():
    best = Path("artifacts/best/calibration.json")
    fitted = read_record(best, Calibration).model_copy(update={"bias": (0.25, -0.5, 0.25), "examples": 7})
    write_json(best, fitted)
    run_stage("none")
    assert read_record(FOLDER / "final/calibration.json", Calibration) == fitted


def test_pruned_instructions_are_named_and_gone(capsys):
    run_stage("none", pruning="ablation")
    report = read_record(FOLDER / "report.json", ResolutionReport)
    kept = {own.id for own in read_jsonl(FOLDER / "final/instructions.jsonl", Instruction)}
    pruned = {words.split(":")[0] for words in report.pruned}
    assert pruned
    assert pruned.isdisjoint(kept)
    assert pruned | kept == {own.id for own in CAME_IN}
    assert f"resolve: pruned {report.pruned[0]}" in capsys.readouterr().out
