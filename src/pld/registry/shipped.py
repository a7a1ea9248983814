"""What can be exported: the prompt that ships, or that of a registered version, with what its answers depend on."""

from pathlib import Path

from pld.artifacts import SHIPS, read_record, read_text
from pld.errors import ArtifactError
from pld.params import Config
from pld.records import Calibration, EvaluationReport, Reviewed, sha256
from pld.registry.release import Release
from pld.serving.export import Shipment


def read_shipped(config: Config, folder: Path) -> Shipment:
    """Of `folder` (artifacts/).

    Raises ArtifactError where the prompt is not the one that the stage `review` let pass, or that was evaluated.
    """
    path = folder / SHIPS / "system_prompt.md"
    prompt = read_prompt(path)
    wanted = {"review/review.json": read_record(folder / "review/review.json", Reviewed).ships}
    evaluated = folder / "evaluation/report.json"
    if evaluated.exists():
        wanted["evaluation/report.json"] = read_record(evaluated, EvaluationReport).prompt_sha256
    for name, digest in wanted.items():
        if sha256(prompt) != digest:
            raise ArtifactError(
                f"{path}: wanted the text of {folder / name} (sha256 {digest[:12]}), found another one "
                f"({sha256(prompt)[:12]}); run `dvc repro`"
            )
    calibrated = config.calibration.method == "batch"
    return Shipment(
        prompt=prompt,
        task=config.task.bare,
        student=config.student,
        calibration=read_record(folder / SHIPS / "calibration.json", Calibration) if calibrated else None,
    )


def shipment_of(release: Release) -> Shipment:
    """Of a registered version, whose prompt was checked when it was fetched."""
    spec = release.spec
    return Shipment(
        prompt=release.prompt,
        task=spec.task,
        student=spec.student,
        calibration=spec.calibration,
        model=release.model,
        number=release.number,
        prompt_version=spec.prompt_version,
    )


def read_prompt(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        raise ArtifactError(f"{path}: wanted UTF-8, found {error}; run `dvc repro` to make it again") from None
