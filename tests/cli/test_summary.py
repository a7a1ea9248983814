import json

import pytest
from click.testing import CliRunner

from pld.cli.main import pld
from pld.cli.summary import training
from pld.params import NoResolver
from pld.reports import RoleSpending, SystemCost, TrainingCost
from support.artifact_tree import composed, write_artifacts


def shown(*arguments):
    return CliRunner().invoke(pld, ["summary", *arguments], catch_exceptions=False).output


def row(output, system, title):
    table = output[output.index(title) :]
    return next(line for line in table.splitlines() if line.startswith(f"│ {system} "))


def test_two_tables_show_quality_and_cost_in_120_columns(project):
    write_artifacts(project / "artifacts")
    output = shown()
    assert max(map(len, output.splitlines())) <= 120
    quality = row(output, "tfidf_logreg", "quality on 60 test examples")
    assert " 60 │" in quality
    assert quality.count("[") == 2  # its own interval, and that of the lead over it: no calibrated variant
    assert row(output, "few_shot", "quality on").count("[") == 3
    cost = row(output, "distilled", "what it costs")
    for cell in (" 10 ", " 20 ", " 75 ", "2 instructions", "349 Teacher calls (recorded)"):
        assert cell in cost, cell
    assert "0.4 s" in row(output, "tfidf_logreg", "what it costs")
    assert "none" in row(output, "zero_shot", "what it costs")


def test_each_verdict_is_a_line_that_names_the_systems_it_holds_for(project):
    write_artifacts(project / "artifacts", right=0.95, test_size=200)
    output = " ".join(shown().split())
    assert "distilled is better than: zero_shot (" in output
    assert "distilled is worse than" not in output
    assert "needs no LLM" not in output


def test_the_summary_says_when_a_system_without_an_llm_is_better(project):
    write_artifacts(project / "artifacts", right=0.1)
    output = " ".join(shown().split())
    assert "tfidf_logreg, which needs no LLM, does better than distilled on mail: macro-F1" in output
    assert "distilled is worse than: " in output


def test_the_summary_opens_with_the_verdict_in_three_sentences(project):
    write_artifacts(project / "artifacts", right=0.95, test_size=200)
    decision, why, instead = shown().strip().splitlines()[:3]
    assert decision == "Ship the distilled prompt."
    assert why == "On 200 test examples it is clearly better than zero_shot and few_shot."
    assert instead == "Nothing else that was measured is clearly better, or as good for less."
    write_artifacts(project / "artifacts", right=0.1, rival=0.9, test_size=200)
    assert shown().strip().startswith("Don't ship the distilled prompt.")
    assert "Use tfidf_logreg: it needs no LLM and is clearly better (macro-F1 +0." in shown()


def test_the_labels_that_a_system_used_are_those_of_the_variant_that_is_compared(project):
    calibration = composed().calibration.model_copy(update={"method": "affine"})
    write_artifacts(project / "artifacts", composed().model_copy(update={"calibration": calibration}))
    assert " 209 " in row(shown(), "few_shot", "what it costs")
    assert " 50 " in row(shown(), "tfidf_logreg", "what it costs")
    used = {one["system"]: one["labels_used"] for one in json.loads(shown("--json"))}
    assert (used["few_shot"], used["few_shot_calibrated"], used["tfidf_logreg"]) == (12, 209, 50)
    write_artifacts(project / "artifacts")
    assert " 12 " in row(shown(), "few_shot", "what it costs")


def test_the_loop_is_one_line_with_its_gain_on_validation_and_on_test(project):
    write_artifacts(project / "artifacts", test_size=200)
    output = " ".join(shown().split())
    rows = {one["system"]: one["macro_f1"]["value"] for one in json.loads(shown("--json"))}
    on_test = rows["distilled"] - rows["clustered"]
    assert f"{on_test:+.3f}" != "+0.100"
    assert (
        "the loop: 1 round, 3 lists tried on validation, 1 Edit accepted; macro-F1 there +0.100 [+0.020, +0.180] "
        f"(optimistically biased by selection), on test {on_test:+.3f} ["
    ) in output
    assert "What the loop accepted gained nothing" not in output
    assert "shipped: distilled" in output
    assert "artifacts/review/final/system_prompt.md" in output
    assert "artifacts/report/index.html" in output
    assert "pld explain <id>" in output
    assert "pld ablate" in output
    before, after = row(shown(), "clustered", "quality on"), row(shown(), "distilled", "quality on")
    assert before.count("[") == 3  # its own interval, calibrated, and the shipped one's lead over it
    assert after.count("[") == 2


def test_a_gain_that_vanishes_on_test_is_reported(project):
    write_artifacts(project / "artifacts", gained=-0.05, test_size=200)
    output = " ".join(shown().split())
    assert "What the loop accepted gained nothing on examples that it had not seen: macro-F1 +0.100 on valid" in output


def test_a_run_without_a_loop_says_so(project):
    config = composed().model_copy(update={"resolver": NoResolver(kind="none")})
    write_artifacts(project / "artifacts", config)
    output = " ".join(shown().split())
    assert "the loop: none was run" in output
    assert "too good" not in output
    assert "clustered (0 fixed, 0 broken" in output


def test_the_spread_over_teacher_draws_is_reported(project):
    write_artifacts(project / "artifacts")
    assert "draws:" not in shown()
    drawn = [{"draw": draw, "trial_id": "t", "macro_f1": 0.5 + 0.1 * draw, "n": 9} for draw in (0, 1)]
    (project / "artifacts/best/draws.json").write_text(json.dumps({"draws": drawn, "spread": 0.1}))
    words = "draws: best macro-F1 on validation by draw: 0 0.500, 1 0.600; the single draws are 0.100 apart"
    assert words in " ".join(shown().split())


def spent(role, calls, usd):
    tokens = {"input_tokens": 800 * calls, "cache_read_input_tokens": 100 * calls, "output_tokens": 100 * calls}
    return (RoleSpending(role=role, model="claude-test", calls=calls, tokens=tokens, usd=usd),)


@pytest.mark.parametrize(
    ("spending", "words"),
    [
        ({"extract": spent("extract", 300, 1.8), "resolve": spent("resolve", 2, 0.22)},
         "Teacher: 302 calls, 0.30 M tokens, $2.02 (extract $1.80, resolve $0.22)"),
        ({"extract": spent("extract", 300, 1.8), "resolve": spent("resolve", 1, None)},
         "Teacher: 301 calls, 0.30 M tokens, price unknown (conf/prices.yaml) (extract $1.80, resolve unknown)"),
        ({"evaluate": spent("optimise", 1, 0.5)}, "Teacher: 1 call, 1,000 tokens, $0.50 (evaluate $0.50)"),
        ({}, "Teacher: recorded answers played back: nothing spent now"),
    ],
)  # fmt: skip
def test_the_cost_of_the_teacher_is_one_line(project, spending, words):
    write_artifacts(project / "artifacts", spending=spending)
    assert words in " ".join(shown().split())


@pytest.mark.parametrize("method", ["none", "batch"])
def test_a_calibrated_prompt_is_compared_with_calibrated_systems(project, method):
    config = composed()
    config = config.model_copy(update={"calibration": config.calibration.model_copy(update={"method": method})})
    write_artifacts(project / "artifacts", config)
    output = " ".join(shown().split())
    assert ("distilled_calibrated is" in output) == (method == "batch")
    assert ("zero_shot_calibrated (" in output) == (method == "batch")
    assert "tfidf_logreg (" in output


def test_json_has_a_row_for_each_system(project):
    write_artifacts(project / "artifacts")
    rows = {one["system"]: one for one in json.loads(shown("--json"))}
    assert set(rows) == {"tfidf_logreg"} | {
        name + kind for name in ("zero_shot", "few_shot", "clustered", "distilled") for kind in ("", "_calibrated")
    }
    found = rows["distilled_calibrated"]
    assert found["tokens_per_request"] == 75
    assert found["training"]["teacher_calls"] == 349
    assert found["latency"]["p95_ms"] == 20
    assert set(found["macro_f1"]) == {"value", "low", "high"}
    assert rows["tfidf_logreg"]["training_seconds"] == 0.42


@pytest.mark.parametrize(
    ("spent", "seconds", "words"),
    [
        (TrainingCost(), None, "none"),
        (TrainingCost(), 3.21, "3.2 s"),
        (TrainingCost(teacher_calls=1200, teacher_tokens=456_789), None, "1,200 Teacher calls of 457k tokens"),
        (TrainingCost(teacher_calls=2, recorded=True, student_answers=9), 1.0,
         "2 Teacher calls (recorded), 9 Student answers, 1.0 s"),
    ],
)  # fmt: skip
def test_training_cost_is_described_in_words(spent, seconds, words):
    assert training(SystemCost(tokens_per_request=0, training=spent, readable=""), seconds) == words
