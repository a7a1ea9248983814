"""`pld classify`: label the rows of a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # MLflow takes seconds to import: not when the CLI starts
    from pld.params import Config
    from pld.serving.batch import Done
    from pld.serving.model import Release


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--alias", help="Version by alias (default: production).")
@click.option("--version", "number", type=int, help="Version by number.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="CSV file to write; must not exist yet.")
@click.option("--prefix", default="", help="Prefix for the names of the added columns.")
@click.option("--skip-bad", is_flag=True, help="Skip rows without a text; a column `reason` says why.")
def classify(file: Path, alias: str | None, number: int | None, out: Path, prefix: str, skip_bad: bool) -> None:
    """Classify the rows of FILE (.csv, .jsonl or .parquet) by a registered version.

    The input is in the columns that the task's reader names in conf/task/. OUT holds FILE's own columns, then label,
    score_<label> of every label, margin (best score minus the second), prompt_sha256 and prompt_version, in FILE's
    order. After an interruption, the same command continues from the last finished chunk, which OUT.partial keeps.
    """
    if alias is not None and number is not None:
        raise click.UsageError("expected --alias or --version, got both")
    if out.suffix.lower() != ".csv":
        raise click.UsageError(f"expected a name that ends in .csv, got {out.name} (--out)")
    from pld.config.settings import load_config
    from pld.registry.release import fetch_release
    from pld.serving.batch import Batch, classify_file
    from pld.serving.batch_rows import check_file
    from pld.serving.model import PromptClassifier

    config = load_config()
    release = fetch_release(config, str(number) if number is not None else alias or "production")
    batch = Batch(check_file(file, _columns(config, release)), out, prefix, skip_bad)
    try:
        done = classify_file(batch, release, PromptClassifier(release.spec, release.messages))
    except KeyboardInterrupt:
        click.echo(
            f"interrupted; {batch.partial} keeps what is finished, the same command continues from there", err=True
        )
        sys.exit(130)
    prompt = release.spec.prompt_sha256[:12]
    click.echo(f"{out}: {_counts(done)}, by {release.model} version {release.number} (prompt {prompt})")


def _columns(config: Config, release: Release) -> dict[str, str]:
    """Input field of the version → its column: what the task's reader names, or the field's own name."""
    from pld.task_params import RecordsReader

    reader = config.task.reader
    named = reader.fields if isinstance(reader, RecordsReader) else {}
    return {field: named.get(field, field) for field in release.spec.task.fields}


def _counts(done: Done) -> str:
    counts = [
        f"{label} {count:,}" for label, count in sorted(done.labels.items(), key=lambda item: (-item[1], item[0]))
    ]
    if done.too_long:
        counts.append(f"without a label, longer than the Student's context {done.too_long:,}")
    if done.skipped:
        counts.append(f"skipped {done.skipped:,}")
    resumed = f", {done.resumed:,} of them from before" if done.resumed else ""
    return f"{done.rows:,} rows{resumed} ({', '.join(counts)})"
