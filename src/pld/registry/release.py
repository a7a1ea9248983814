"""Loads a registered version, or the prompt that artifacts/ ships now, as a Release, and its test predictions."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pld.artifacts import MESSAGES_FILE, SHIPS, read_jsonl, read_prompt, read_record
from pld.errors import ArtifactError, RegistryError
from pld.params import Config
from pld.records import Calibration, Instruction, Prediction, Reviewed, prompt_sha256
from pld.registry.registry import open_registry
from pld.registry.store import Store, translated
from pld.reports import EvaluationReport
from pld.serving.model import Release, ServedSpec


def fetch_release(config: Config, alias_or_number: str) -> Release:
    """The registered version with the alias (`production`) or number (`3`).

    Its instructions or predictions are () where the run that holds them is gone. Raises RegistryError where there is no
    such version, or where what it answers with is gone or is not what was evaluated.
    """
    registry = open_registry(config)
    version = registry.find(alias_or_number)
    with translated(registry.store.uri):
        spec, messages = registry.read(version)
    instructions: list[Instruction] = []
    predictions: list[Prediction] = []
    download = registry.store.client.download_artifacts
    with tempfile.TemporaryDirectory() as folder:
        with _ignore_absent(registry.store):
            instructions = read_jsonl(Path(download(version.evidence_run, "instructions.jsonl", folder)), Instruction)
        with _ignore_absent(registry.store):
            _, predictions = read_evaluation(Path(download(*version.measured_in, folder)))
    return Release(
        spec=spec,
        messages=messages,
        model=registry.model,
        number=version.number,
        aliases=version.aliases,
        instructions=tuple(instructions),
        predictions=tuple(predictions),
        test_digest=version.test_digest,
        prompt_tokens=version.prompt_tokens,
    )


def read_release(config: Config, folder: Path) -> Release:
    """What `folder` (artifacts/) ships now.

    Raises ArtifactError where the prompt is not the one that the stage `review` passed, or that was evaluated.
    """
    messages = read_prompt(folder / SHIPS)
    own = prompt_sha256(messages)
    expected = {"review/review.json": read_record(folder / "review/review.json", Reviewed).ships}
    if (folder / "evaluation/report.json").exists():
        report = read_record(folder / "evaluation/report.json", EvaluationReport)
        expected["evaluation/report.json"] = report.prompt_sha256
    for name, digest in expected.items():
        if own != digest:
            raise ArtifactError(
                f"expected the prompt of {folder / name} (sha256 {digest[:12]}), got another one ({own[:12]}) "
                f"({folder / SHIPS / MESSAGES_FILE}); run `dvc repro`"
            )
    calibrated = config.calibration.method != "none"
    spec = ServedSpec(
        task=config.task.bare,
        student=config.student,
        calibration=read_record(folder / SHIPS / "calibration.json", Calibration) if calibrated else None,
        prompt_sha256=own,
    )
    return Release(spec, messages)


@dataclass(frozen=True)
class Reference:
    """What `pld monitor` compares a serving log with: the shipped system's predictions on test."""

    name: str
    labels: tuple[str, ...]
    prompt_sha256: str
    predictions: Sequence[Prediction]


def read_reference(folder: Path) -> Reference:
    """The evaluation in `folder` (artifacts/evaluation/), without a registry. Raises ArtifactError."""
    report, rows = read_evaluation(folder)
    return Reference(str(folder), report.labels, report.prompt_sha256, rows)


def fetch_reference(config: Config, alias_or_number: str) -> Reference:
    """The version with this alias or number. Raises RegistryError if it or its predictions are gone."""
    release = fetch_release(config, alias_or_number)
    name = f"{release.model} version {release.number}"
    if aliases := ", ".join(sorted(release.aliases)):
        name += f" ({aliases})"
    if not release.predictions:
        raise RegistryError(
            f"expected its predictions on the test set, got a run that is deleted or incomplete ({name}); name an "
            "evaluation of the same prompt with --evaluation"
        )
    return Reference(name, release.spec.task.labels, release.spec.prompt_sha256, release.predictions)


def read_evaluation(folder: Path) -> tuple[EvaluationReport, list[Prediction]]:
    """The report and the shipped system's predictions in an evaluation's `folder`. Raises ArtifactError."""
    report = read_record(folder / "report.json", EvaluationReport)
    rows = [row for row in read_jsonl(folder / "predictions.jsonl", Prediction) if row.system == report.shipped]
    if not rows:
        raise ArtifactError(
            f"expected predictions of {report.shipped!r}, got none ({folder}/predictions.jsonl); run `dvc repro`"
        )
    return report, rows


@contextmanager
def _ignore_absent(store: Store) -> Iterator[None]:
    """Continue if an artifact is gone, but raise if the store itself is unreachable."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except (MlflowException, ArtifactError, OSError):
        with translated(store.uri):
            store.must_answer()
