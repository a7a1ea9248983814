"""Extraction from a service that misbehaves: the rules are those of a calm day, and nothing is paid for twice."""

import os

import pytest

from support.misbehaviour import DOWN_S, KINDS, FaultRun, run_faults

EXAMPLES = int(os.environ.get("PLD_FAULT_EXAMPLES", "60"))


def check(calm: FaultRun, *runs: FaultRun) -> None:
    for run in runs:
        print(f"{run.kind}: {run.overhead_s:+.1f} s, {run.attempts} attempts, {run.lost} lost")
        assert run.same_rules, run
        assert run.paid_twice == 0, run
        assert run.attempts > calm.attempts or run.seconds > DOWN_S, f"{run.kind}: nothing went wrong"


FAST = ("429", "cut_json", "invalid")


@pytest.mark.parametrize(
    ("provider", "kinds"),
    [
        ("anthropic", FAST),
        pytest.param("anthropic", [kind for kind in KINDS if kind not in (*FAST, "kill")], marks=pytest.mark.slow),
        # the other kinds take the same code
        pytest.param("openai", ["429", "529", "cut_body", "truncated"], marks=pytest.mark.slow),
    ],
)
def test_whatever_goes_wrong_the_rules_are_the_same_and_no_answer_is_paid_for_twice(provider, kinds, tmp_path):
    check(*run_faults(EXAMPLES, kinds, tmp_path, provider))


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again_ends_with_the_same_rules_and_pays_for_no_stored_answer(tmp_path):
    check(*run_faults(EXAMPLES, ["kill"], tmp_path))
