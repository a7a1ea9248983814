"""`pld promote`, `pld rollback`, `pld status`, `pld history`: the model registry from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # MLflow takes seconds to import: not when the CLI starts
    from collections.abc import Sequence

    from rich.table import Table

    from pld.registry.promotion import Move
    from pld.registry.registry import Registry

_WIDTH = 160  # off a terminal; rich would cut lines at 80 columns


@click.command()
@click.option("--version", "number", type=int, help="Version to promote (default: the candidate).")
@click.option("--force", is_flag=True, help="Promote although a gate fails; needs --reason.")
@click.option("--reason", help="Reason for ignoring failed gates; kept in the history.")
def promote(number: int | None, force: bool, reason: str | None) -> None:
    """Make a version production if the gates hold; the former one becomes previous.

    A version that was measured on another test set or Student than the present one is measured again first.
    """
    from pld.config.settings import load_config
    from pld.errors import RegistryError
    from pld.registry.promotion_gates import REVIEWED
    from pld.registry.registry import open_registry
    from pld.registry.versions import PRODUCTION

    if force != bool(reason and reason.strip()):
        raise click.UsageError("expected --force and --reason TEXT together, got one of them")
    config = load_config()
    outcome = open_registry(config).promote(config, number, reason if force else None)
    if outcome.alias != PRODUCTION:
        unreviewed = any(verdict.gate == REVIEWED and not verdict.holds for verdict in outcome.verdicts)
        way = "--force can't override the review" if unreviewed else "`--force --reason TEXT` promotes it all the same"
        raise RegistryError(f"{outcome}; {way}")
    click.echo(str(outcome))


@click.command()
@click.option("--reason", default="", help="Reason; kept in the history.")
def rollback(reason: str) -> None:
    """Swap production and previous; only `pld promote --version` brings back the version that leaves."""
    from pld.config.settings import load_config
    from pld.registry.registry import open_registry

    config = load_config()
    registry = open_registry(config)
    now, former = registry.rollback(reason, require_review=config.promotion.require_review)
    click.echo(f"{registry.model} version {now} is production again, version {former} is previous")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def status(as_json: bool) -> None:
    """List the versions: aliases, prompt, macro-F1 on test, gates, and whether people approved every instruction."""
    registry = _registry()
    rows = _rows(registry)
    if as_json:
        whole = {"model": registry.model, "store": registry.store.shown, "versions": rows}
        click.echo(json.dumps(whole, ensure_ascii=False, indent=2))
        return
    if not rows:
        click.echo(f"{registry.model} has no version yet; `make repro` registers one")
    else:
        _show(registry.model, rows)
    click.echo(f"look at the runs: {registry.store.how_to_open()}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list instead of text.")
def history(as_json: bool) -> None:
    """Every move of production, the newest first: when (UTC), from which version to which, by whom, and why."""
    registry = _registry()
    moves = registry.history()[::-1]
    if as_json:
        click.echo(json.dumps([_line(move) for move in moves], ensure_ascii=False, indent=2))
    elif not moves:
        click.echo(f"{registry.model}: production was never moved")
    else:
        _show_history(registry.model, moves)


def _rows(registry: Registry) -> list[dict[str, Any]]:
    from pld.registry.promotion import history

    versions = registry.versions()
    promoted_at = {move.to: move.at for move in history(versions)}
    rows = []
    for version in versions:
        review = registry.review_of(version)
        rows.append(
            {
                "version": version.number,
                "aliases": sorted(version.aliases),
                "prompt_sha256": version.prompt_sha256,
                "macro_f1": version.macro_f1,
                "prompt_tokens": version.prompt_tokens,
                "gates": [verdict.model_dump() for verdict in version.verdicts],
                "reviewed": review.approved,
                "review": review.words if review.entries else None,
                "promoted_at": promoted_at.get(version.number),
                "decision": version.decision,
            }
        )
    return rows


def _line(move: Move) -> dict[str, Any]:
    found = move.model_dump()
    order = ("number", "at", "kind", "was", "to", "previous", "by", "reason", "prompt_sha256", "commit")
    return {"from" if key == "was" else key: found[key] for key in order}


def _show(model: str, rows: Sequence[dict[str, Any]]) -> None:
    from rich.markup import escape

    table = _table(
        model, "version", "aliases", "prompt", "macro-F1 (test)", "tokens", "gates", "reviewed", "promoted (UTC)"
    )
    for row in rows:
        failed = [gate["gate"] for gate in row["gates"] if not gate["holds"]]
        table.add_row(
            str(row["version"]),
            ", ".join(row["aliases"]),
            row["prompt_sha256"][:12],
            escape(row["macro_f1"]),
            str(row["prompt_tokens"]),
            f"failed: {', '.join(failed)}" if failed else "hold" if row["gates"] else "not asked",
            "yes" if row["reviewed"] else "no",
            _minute(row["promoted_at"] or ""),
        )
    _print(table)
    for row in rows:
        if row["aliases"]:
            lines = [f"{g['gate']} {'holds' if g['holds'] else 'failed'}: {g['figures']}" for g in row["gates"]]
            lines += filter(None, [row["decision"], row["review"] and f"review: {row['review']}"])
            for line in lines:
                click.echo(f"version {row['version']}: {line}")


def _show_history(model: str, moves: Sequence[Move]) -> None:
    from rich.markup import escape

    title = f"{model}: moves of production"
    table = _table(title, "", "when (UTC)", "from", "to", "kind", "by", "why", "prompt", "commit")
    for move in moves:
        table.add_row(
            str(move.number),
            _minute(move.at),
            "none" if move.was is None else str(move.was),
            str(move.to),
            move.kind,
            escape(move.by),
            escape(move.reason),
            move.prompt_sha256[:12],
            move.commit[:10],
        )
    _print(table)
    missing = sorted(set(range(1, moves[0].number)) - {move.number for move in moves})
    if missing:
        click.echo(f"deleted from the history: {', '.join(map(str, missing))}")


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    Console(width=None if Console().is_terminal else _WIDTH).print(table)


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")


def _registry() -> Registry:
    from pld.config.settings import load_config
    from pld.registry.registry import open_registry

    return open_registry(load_config())
