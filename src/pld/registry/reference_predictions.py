"""What `pld monitor` compares a serving log with: the shipped system's predictions on test, from the registry or from
the evaluation in this folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pld.artifacts import read_jsonl, read_record
from pld.errors import ArtifactError, RegistryError
from pld.params import Config
from pld.records import EvaluationReport, Prediction

EVALUATION = Path("artifacts/evaluation")


@dataclass(frozen=True)
class Measured:
    """A prompt as it was measured. `name`: for people; `predictions`: of what ships, on test."""

    name: str
    labels: tuple[str, ...]
    prompt_sha256: str
    predictions: Sequence[Prediction]


def measured_release(config: Config, wanted: str, folder: Path = EVALUATION) -> Measured:
    """The version with the alias or number `wanted`; where its run is gone, what `folder` has of the same prompt.

    Raises RegistryError.
    """
    from pld.registry.release import fetch_release

    release = fetch_release(config, wanted)
    name = f"{release.model} version {release.number}"
    if aliases := ", ".join(sorted(release.aliases)):
        name += f" ({aliases})"
    predictions: Sequence[Prediction] = release.predictions
    if not predictions:
        predictions = _same_prompt(release.spec.prompt_sha256, folder)
    if not predictions:
        raise RegistryError(
            f"{name}: wanted its predictions on the test set, found neither its run nor an evaluation of the same "
            f"prompt in {folder}; run `dvc repro` on the commit that made it"
        )
    return Measured(name, release.spec.task.labels, release.spec.prompt_sha256, predictions)


def measured_here(folder: Path) -> Measured:
    """What the evaluation in `folder` found, without a registry. Raises ArtifactError."""
    report = read_record(folder / "report.json", EvaluationReport)
    rows = read_jsonl(folder / "predictions.jsonl", Prediction)
    own = [row for row in rows if row.system == report.shipped]
    if not own:
        raise ArtifactError(
            f"{folder}/predictions.jsonl: wanted rows of {report.shipped!r}, found none; run `dvc repro`"
        )
    return Measured(str(folder), report.labels, report.prompt_sha256, own)


def _same_prompt(prompt_sha256: str, folder: Path) -> Sequence[Prediction]:
    try:
        found = measured_here(folder)
    except ArtifactError:
        return ()
    return found.predictions if found.prompt_sha256 == prompt_sha256 else ()
