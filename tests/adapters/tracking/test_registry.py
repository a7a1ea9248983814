import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from pld.adapters.tracking.registry import Registry, Standing, Version
from pld.adapters.tracking.result import read_result
from pld.adapters.tracking.runs import log_result
from pld.adapters.tracking.store import Store, connect
from pld.errors import RegistryError
from pld.method.acceptance import judge
from pld.params import Config, load_config
from pld.records import sha256
from support.artifact_tree import CLUSTERED, PROMPT, write_artifacts

BETTER = PROMPT + "- thanks: praise\n"
Settle = Callable[..., Standing]


@pytest.fixture
def registry(store: Store) -> Registry:
    return Registry(store, "mail")


@pytest.fixture
def settle(store: Store, project: Path, registry: Registry) -> Settle:
    """Write artifacts with some changes, log them, and ask for promotion: what `track` does."""

    def run(**changes: Any) -> Standing:
        write_artifacts(project / "artifacts", **changes)
        result = read_result(load_config())
        return registry.settle(result, log_result(store, result).run_id)

    return run


def aliases(registry: Registry) -> dict[str, int]:
    """Of the model; those of the prompt must be the same but for its own version numbers."""
    versions = {version.number: version for version in registry.versions()}
    found = {alias: version.number for version in versions.values() for alias in version.aliases}
    client = registry.store.client
    for alias, number in found.items():
        prompt = client.get_prompt_version_by_alias(registry.prompt, alias)
        assert sha256(prompt.template) == versions[number].prompt_sha256, "the prompt's aliases are in step"
    return found


def of(registry: Registry, number: int) -> Version:
    return next(version for version in registry.versions() if version.number == number)


def with_gates(**changes: Any) -> Config:
    config = load_config()
    return config.model_copy(update={"promotion": config.promotion.model_copy(update=changes)})


def test_the_first_version_whose_gates_hold_is_production_and_no_longer_a_candidate(
    settle: Settle, registry: Registry
) -> None:
    standing = settle()
    assert str(standing).startswith("pld-mail version 1 is production: all gates hold (better_than_zero_shot macro-F1")
    assert aliases(registry) == {"production": 1}
    verdicts = {verdict.gate: verdict for verdict in of(registry, 1).verdicts}
    assert set(verdicts) == {"better_than_zero_shot", "not_worse_than_production"}
    assert verdicts["better_than_zero_shot"] in standing.verdicts, "with the figures it was judged on"


def test_the_registered_prompt_is_the_measured_one_byte_for_byte(settle: Settle, registry: Registry) -> None:
    text = 'Über {{ name }}, {{undefined}} {% raw %} "quoted" \\ \r\n\ttabs, no newline at the end  '
    settle(prompt=text)
    assert registry.store.client.get_prompt_version_by_alias("pld-mail-prompt", "production").template == text
    assert of(registry, 1).prompt_sha256 == sha256(text)


def test_what_the_loop_left_is_registered_and_served_and_not_what_came_into_it(
    settle: Settle, registry: Registry, project: Path
) -> None:
    settle()
    final = (project / "artifacts/resolve/final/system_prompt.md").read_bytes()
    assert final != (project / "artifacts/best/system_prompt.md").read_bytes() == CLUSTERED.encode()
    assert registry.store.client.get_prompt_version_by_alias("pld-mail-prompt", "production").template == final.decode()
    served = mlflow.artifacts.download_artifacts(
        "models:/pld-mail/1/artifacts/system_prompt.md", tracking_uri=registry.store.uri
    )
    assert Path(served).read_bytes() == final
    assert of(registry, 1).prompt_sha256 == sha256(final.decode())


def test_the_same_content_is_the_same_version(settle: Settle, registry: Registry) -> None:
    settle()
    assert str(settle(p95_ms=33.0)) == "pld-mail version 1 is production: the same prompt as before"
    assert [version.number for version in registry.versions()] == [1]
    assert aliases(registry) == {"production": 1}


def test_a_candidate_that_fails_a_gate_stays_candidate_and_its_figures_are_kept(
    settle: Settle, registry: Registry
) -> None:
    settle()
    standing = settle(prompt=BETTER, right=0.4)
    line = str(standing)
    assert line.startswith("pld-mail version 2 stays candidate: better_than_zero_shot failed: macro-F1 ")
    assert "not_worse_than_production failed: macro-F1 -0." in line
    assert aliases(registry) == {"production": 1, "candidate": 2}
    assert {verdict.gate: verdict.holds for verdict in of(registry, 2).verdicts} == {
        "better_than_zero_shot": False,
        "not_worse_than_production": False,
    }


def test_a_better_candidate_replaces_production_which_becomes_previous(settle: Settle, registry: Registry) -> None:
    settle(right=0.7)
    settle(prompt=BETTER)
    assert aliases(registry) == {"production": 2, "previous": 1}
    settle(prompt=BETTER)
    assert aliases(registry) == {"production": 2, "previous": 1}, "when it is production already nothing moves"


def test_another_calibration_is_another_version_of_the_same_prompt(settle: Settle, registry: Registry) -> None:
    config = write_artifacts(Path("artifacts"))
    settle()
    calibrated = config.calibration.model_copy(update={"method": "batch"})
    settle(config=config.model_copy(update={"calibration": calibrated}))
    assert [version.number for version in registry.versions()] == [2, 1]
    assert len(list(registry.store.client.search_prompt_versions("pld-mail-prompt"))) == 1


def test_production_measured_on_another_test_set_cannot_be_compared(settle: Settle) -> None:
    settle()
    assert "production was evaluated on another test set" in str(settle(prompt=BETTER, test_size=63))


def test_production_whose_measurement_is_lost_fails_the_gate_and_says_so(settle: Settle, registry: Registry) -> None:
    import shutil

    settle()
    for folder in Path("mlartifacts").rglob("evaluation"):
        shutil.rmtree(folder)
    assert "found it deleted or incomplete" in str(settle(prompt=BETTER))
    assert aliases(registry) == {"production": 1, "candidate": 2}


def test_the_limits_of_the_settings_are_gates(settle: Settle, registry: Registry) -> None:
    settle(right=0.4)
    config = with_gates(better_than_zero_shot=False, max_p95_ms=10, max_prompt_tokens=10)
    failed = str(registry.promote(config))
    assert "max_p95_ms failed: p95 20.0 ms on a test, limit 10 ms" in failed
    assert "max_prompt_tokens failed: 60 tokens, limit 10" in failed
    assert registry.promote(with_gates(better_than_zero_shot=False)).alias == "production"
    gates = {verdict.gate for verdict in of(registry, 1).verdicts}
    assert gates == {"not_worse_than_production"}, "verdicts of gates that are no longer asked for are gone"


def test_a_rolled_back_version_comes_back_only_by_hand(settle: Settle, registry: Registry) -> None:
    settle(right=0.7)
    settle(prompt=BETTER)
    assert registry.rollback() == (1, 2)
    assert aliases(registry) == {"production": 1, "previous": 2}
    assert "pld promote --version 2` takes that back" in str(settle(prompt=BETTER)), "the next repro must not undo it"
    assert aliases(registry) == {"production": 1, "previous": 2, "candidate": 2}
    assert registry.promote(load_config(), 2).alias == "production"
    assert aliases(registry) == {"production": 2, "previous": 1}
    assert of(registry, 2).notes == ()


def test_rolling_back_twice_is_where_it_began(settle: Settle, registry: Registry) -> None:
    settle(right=0.7)
    settle(prompt=BETTER)
    registry.rollback()
    assert registry.rollback() == (2, 1)
    assert aliases(registry) == {"production": 2, "previous": 1}


def test_without_a_previous_version_there_is_nothing_to_roll_back_to(settle: Settle, registry: Registry) -> None:
    settle()
    with pytest.raises(RegistryError, match="wanted a previous version to roll back to, found none"):
        registry.rollback()


def test_force_passes_over_a_failed_gate_and_keeps_the_reason(settle: Settle, registry: Registry) -> None:
    settle(right=0.4)
    assert aliases(registry) == {"candidate": 1}
    standing = registry.promote(load_config(), force="the demo is today")
    assert "is production: forced (the demo is today) although better_than_zero_shot failed" in str(standing)
    assert aliases(registry) == {"production": 1}
    assert of(registry, 1).notes == ("forced: the demo is today",)


@pytest.mark.parametrize("force", [None, "because"])
def test_a_prompt_that_is_not_the_evaluated_one_is_never_promoted(
    settle: Settle, registry: Registry, force: str | None
) -> None:
    settle(right=0.4)
    registry.store.client.set_prompt_version_tag("pld-mail-prompt", "1", "mlflow.prompt.text", "tampered with")
    with pytest.raises(RegistryError, match="prompt pld-mail-prompt, for version 1: wanted the evaluated prompt"):
        registry.promote(load_config(), force=force)
    assert aliases_of_model(registry) == {"candidate": 1}


def aliases_of_model(registry: Registry) -> dict[str, int]:
    return {alias: version.number for version in registry.versions() for alias in version.aliases}


def test_a_version_that_is_not_there_is_named_with_those_that_are(settle: Settle, registry: Registry) -> None:
    with pytest.raises(RegistryError, match="wanted a candidate, found no version; run `make repro`"):
        registry.promote(load_config() if Path("artifacts").exists() else write_artifacts(Path("artifacts")))
    settle()
    with pytest.raises(RegistryError, match="wanted version 7, found 1"):
        registry.promote(load_config(), 7)


@pytest.mark.parametrize("variable", ["DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"])
def test_inside_a_dvc_experiment_no_alias_moves(
    settle: Settle, registry: Registry, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    settle(right=0.7)
    settle(prompt=BETTER)
    monkeypatch.setenv(variable, "brave-newt")
    for move in (lambda: settle(), lambda: registry.promote(load_config(), 1), registry.rollback):
        with pytest.raises(RegistryError, match="brave-newt"):
            move()
    assert aliases(registry) == {"production": 2, "previous": 1}


def test_promotions_at_once_leave_one_production_and_one_previous(
    settle: Settle, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle(right=0.4)
    for n in range(2):
        settle(prompt=f"{PROMPT}{n}\n", right=0.4)
    config = with_gates(better_than_zero_shot=False, not_worse_than_production=False)
    ready = threading.Barrier(3)

    def slow(*arguments: Any) -> Any:
        time.sleep(0.3)  # aliases were read before, and are written after
        return judge(*arguments)

    monkeypatch.setattr("pld.adapters.tracking.registry.judge", slow)
    failures = []

    def promote(number: int) -> None:
        own = Registry(connect(None), "mail")
        ready.wait()
        try:
            own.promote(config, number)
        except Exception as error:
            failures.append(error)

    workers = [threading.Thread(target=promote, args=(number,)) for number in (1, 2, 3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []
    left = aliases(registry)
    assert set(left) == {"production", "previous"}
    assert left["production"] != left["previous"]


def test_a_task_name_that_can_not_name_a_model_is_refused(store: Store) -> None:
    with pytest.raises(RegistryError, match=r"task.name: wanted letters.*found 'a/b'"):
        Registry(store, "a/b")
