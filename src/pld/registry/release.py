"""A registered version read back: what it answers with, and what was measured of it."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pld.artifacts import read_jsonl, read_record
from pld.errors import ArtifactError
from pld.params import Config
from pld.records import EvaluationReport, Instruction, Prediction
from pld.registry.registry import open_registry
from pld.registry.runs import EVALUATION
from pld.registry.store import Store, translated
from pld.registry.versions import Version
from pld.serving.model import ServedSpec


@dataclass(frozen=True)
class Release:
    """A registered version. `prompt` has the sha256 that `spec` names; `instructions` are those of the run that it
    comes from, `predictions` those of the shipped system on the test set (md5 `test_digest`) on which it was measured
    last; () where a run is gone."""

    model: str
    number: int
    aliases: frozenset[str]
    spec: ServedSpec
    prompt: str
    instructions: tuple[Instruction, ...]
    predictions: tuple[Prediction, ...]
    test_digest: str
    prompt_tokens: int


def fetch_release(config: Config, wanted: str) -> Release:
    """`wanted`: an alias (`production`) or a version's number (`3`).

    Raises RegistryError where there is no such version, or what it answers with is gone or is not what was evaluated.
    """
    registry = open_registry(config)
    version = registry.find(wanted)
    with translated(registry.store.uri):
        spec, prompt = registry.read(version)
    with tempfile.TemporaryDirectory() as temporary:
        return Release(
            model=registry.model,
            number=version.number,
            aliases=version.aliases,
            spec=spec,
            prompt=prompt,
            instructions=_instructions(registry.store, version, Path(temporary)),
            predictions=_predictions(registry.store, version, Path(temporary)),
            test_digest=version.test_digest,
            prompt_tokens=version.prompt_tokens,
        )


def _instructions(store: Store, version: Version, folder: Path) -> tuple[Instruction, ...]:
    with _absent_is_empty(store):
        path = store.client.download_artifacts(version.evidence_run, "instructions.jsonl", str(folder))
        return tuple(read_jsonl(Path(path), Instruction))
    return ()


def _predictions(store: Store, version: Version, folder: Path) -> tuple[Prediction, ...]:
    with _absent_is_empty(store):
        found = Path(store.client.download_artifacts(version.measured_run, EVALUATION, str(folder)))
        shipped = read_record(found / "report.json", EvaluationReport).shipped
        return tuple(row for row in read_jsonl(found / "predictions.jsonl", Prediction) if row.system == shipped)
    return ()


@contextmanager
def _absent_is_empty(store: Store) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, ArtifactError, OSError):
        with translated(store.uri):
            store.must_answer()
