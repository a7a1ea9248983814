"""A registry of made-up versions, without the hundred runs that `track` logs beside them."""

from pathlib import Path
from typing import Any
from unittest import mock

from pld.artifacts import SHIPS, read_record, write_json
from pld.config.settings import load_config
from pld.params import Config
from pld.records import EvaluationReport, sha256
from pld.registry import packaging
from pld.registry.registry import Outcome, Registry
from pld.registry.result import PipelineResult, read_result
from pld.registry.store import Store, experiment_id
from pld.registry.versions import Version
from support.artifact_tree import PROMPT, write_artifacts

# what registry_fixtures.filled_shelf makes
AS_FILLED = {"production": 2, "previous": 1, "candidate": 3}
BETTER, WORSE = PROMPT + "- thanks: praise\n", PROMPT + "- anything: praise\n"


def register(store: Store, engine: str = "", **changes: Any) -> Outcome:
    """Write artifacts with some changes (`engine`: of the Student), and ask for promotion, as `track` does.

    The copy of the package that travels with a model is replaced by a small folder: nobody loads the model.
    """
    write_tree(engine, **changes)
    result = read_result(load_config())
    with mock.patch.object(packaging, "_PACKAGE", Path(__file__).parent / "no_network"):
        return Registry(store, result.report.task).register_and_promote(result, measured(store, result))


def write_tree(engine: str = "", **changes: Any) -> None:
    write_artifacts(Path("artifacts"), **changes)
    path = Path("artifacts/evaluation/report.json")
    if engine:
        write_json(path, read_record(path, EvaluationReport).model_copy(update={"student": {"engine": engine}}))


def measured(store: Store, result: PipelineResult) -> str:
    """A run with the part of a result's run that the registry reads."""
    run = str(store.client.create_run(experiment_id(store, result.report.task)).info.run_id)
    store.client.log_artifacts(run, str(result.folder / "evaluation"), "evaluation")
    store.client.log_artifact(run, str(result.folder / SHIPS / "instructions.jsonl"))
    return run


def aliases(registry: Registry) -> dict[str, int]:
    """The model's, after the repair that opens the registry; the prompt's must be the same versions."""
    versions = {version.number: version for version in registry.versions()}
    found = {alias: version.number for version in versions.values() for alias in version.aliases}
    client = registry.store.client
    for alias, number in found.items():
        prompt = client.get_prompt_version_by_alias(registry.prompt, alias)
        assert sha256(prompt.template) == versions[number].prompt_sha256, "the prompt's aliases are in step"
    return found


def raw_aliases(registry: Registry) -> dict[str, int]:
    """The model's, without opening the registry, which would finish an interrupted move."""
    found = registry.store.client.get_registered_model(registry.model).aliases
    return {alias: int(number) for alias, number in found.items()}


def of(registry: Registry, number: int) -> Version:
    return next(version for version in registry.versions() if version.number == number)


def with_gates(**changes: Any) -> Config:
    config = load_config()
    return config.model_copy(update={"promotion": config.promotion.model_copy(update=changes)})


def any_gates() -> Config:
    """Without the gates that compare figures."""
    return with_gates(better_than_zero_shot=False, not_worse_than_production=False)
