"""`pld promote`, `pld rollback`, `pld status`: the registry by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:  # MLflow takes seconds to import: not when the CLI starts
    from collections.abc import Sequence

    from pld.adapters.tracking.registry import Registry, Version
    from pld.params import Config


@click.command()
@click.option("--version", "number", type=int, help="The version to promote (default: the candidate).")
@click.option("--force", is_flag=True, help="Promote although a gate fails; needs --reason.")
@click.option("--reason", help="Why a failed gate is passed over; kept as a tag of the version.")
def promote(number: int | None, force: bool, reason: str | None) -> None:
    """Make a version production if the gates hold; the former one becomes previous."""
    from pld.adapters.tracking.registry import PRODUCTION
    from pld.errors import RegistryError
    from pld.params import load_config

    if force != bool(reason and reason.strip()):
        raise click.UsageError("wanted --force and --reason TEXT together, found one of them")
    config = load_config()
    standing = _registry(config).promote(config, number, reason if force else None)
    if standing.alias != PRODUCTION:
        raise RegistryError(f"{standing}; `--force --reason TEXT` promotes it all the same")
    click.echo(str(standing))


@click.command()
def rollback() -> None:
    """Swap production and previous; the version that leaves comes back only by `pld promote --version`."""
    from pld.params import load_config

    registry = _registry(load_config())
    now, former = registry.rollback()
    click.echo(f"{registry.model} version {now} is production again, version {former} is previous")


@click.command()
def status() -> None:
    """List the versions: aliases, prompt, macro-F1 on test, and what the gates said."""
    from pld.params import load_config

    registry = _registry(load_config())
    versions = registry.versions()
    if not versions:
        click.echo(f"{registry.model} has no version yet; `make repro` registers one")
    else:
        _show(registry.model, versions)
    click.echo(f"look at the runs: {registry.store.how_to_open()}")


def _show(model: str, versions: Sequence[Version]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=model, title_justify="left")
    for column in ("version", "aliases", "prompt", "macro-F1 (test)", "tokens", "gates"):
        table.add_column(column)
    for version in versions:
        failed = [verdict.gate for verdict in version.verdicts if not verdict.holds]
        table.add_row(
            str(version.number),
            ", ".join(sorted(version.aliases)),
            version.prompt_sha256[:12],
            escape(version.macro_f1),
            str(version.prompt_tokens),
            f"failed: {', '.join(failed)}" if failed else "hold" if version.verdicts else "not asked",
        )
    # off a terminal rich would cut lines at 80 columns
    Console(width=None if Console().is_terminal else 160).print(table)
    for version in versions:
        for line in (*map(str, version.verdicts), *version.notes) if version.aliases else ():
            click.echo(f"version {version.number}: {line}")


def _registry(config: Config) -> Registry:
    from pld.adapters.tracking.registry import Registry
    from pld.adapters.tracking.store import connect

    return Registry(connect(config.tracking.uri), config.task.name)
