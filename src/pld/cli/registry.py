"""`pld promote`, `pld rollback`, `pld status`, `pld history`: the registry by hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:  # MLflow takes seconds to import: not when the CLI starts
    from collections.abc import Mapping, Sequence

    from pld.registry.promotion_log import Turn
    from pld.registry.registry import Registry
    from pld.registry.versions import Version

_WIDTH = 160  # off a terminal; rich would cut lines at 80 columns


@click.command()
@click.option("--version", "number", type=int, help="The version to promote (default: the candidate).")
@click.option("--force", is_flag=True, help="Promote although a gate fails; needs --reason.")
@click.option("--reason", help="Why a failed gate is passed over; kept in the history.")
def promote(number: int | None, force: bool, reason: str | None) -> None:
    """Make a version production if the gates hold; the former one becomes previous.

    Where production (or the version) was measured on another test set or Student than the present one, it is first
    measured again.
    """
    from pld.errors import RegistryError
    from pld.params import load_config
    from pld.registry.promotion_gates import REVIEWED
    from pld.registry.registry import open_registry
    from pld.registry.versions import PRODUCTION

    if force != bool(reason and reason.strip()):
        raise click.UsageError("wanted --force and --reason TEXT together, found one of them")
    config = load_config()
    standing = open_registry(config).promote(config, number, reason if force else None)
    if standing.alias != PRODUCTION:
        unreviewed = any(verdict.gate == REVIEWED and not verdict.holds for verdict in standing.verdicts)
        way = "no force passes over the review" if unreviewed else "`--force --reason TEXT` promotes it all the same"
        raise RegistryError(f"{standing}; {way}")
    click.echo(str(standing))


@click.command()
@click.option("--reason", default="", help="Why; kept in the history.")
def rollback(reason: str) -> None:
    """Swap production and previous; the version that leaves comes back only by `pld promote --version`."""
    from pld.params import load_config
    from pld.registry.registry import open_registry

    config = load_config()
    registry = open_registry(config)
    now, former = registry.rollback(reason, require_review=config.promotion.require_review)
    click.echo(f"{registry.model} version {now} is production again, version {former} is previous")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one object instead, for a program.")
def status(as_json: bool) -> None:
    """List the versions: aliases, prompt, macro-F1 on test, what the gates said, whether people approved every line."""
    registry = _registry()
    versions = registry.versions()
    rows = _rows(registry, versions)
    if as_json:
        whole = {"model": registry.model, "store": registry.store.shown, "versions": rows}
        click.echo(json.dumps(whole, ensure_ascii=False, indent=2))
        return
    if not versions:
        click.echo(f"{registry.model} has no version yet; `make repro` registers one")
    else:
        _show(registry.model, rows)
    click.echo(f"look at the runs: {registry.store.how_to_open()}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead, for a program.")
def history(as_json: bool) -> None:
    """Every move of production, the newest first: when (UTC), from which version to which, by whom, and why."""
    registry = _registry()
    turns = registry.turns()[::-1]
    if as_json:
        click.echo(json.dumps([_line(turn) for turn in turns], ensure_ascii=False, indent=2))
    elif not turns:
        click.echo(f"{registry.model}: production was never moved")
    else:
        _show_history(registry.model, turns)


def _rows(registry: Registry, versions: Sequence[Version]) -> list[dict[str, Any]]:
    from pld.registry.promotion_log import decisions, promoted_at

    turns = registry.turns() if versions else []
    decided = decisions(turns)
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
                "promoted_at": promoted_at(turns, version.number),
                "decision": decided.get(version.number),
            }
        )
    return rows


def _line(turn: Turn) -> dict[str, Any]:
    move = turn.move.model_dump()
    order = ("at", "kind", "was", "to", "previous", "by", "reason", "prompt_sha256", "commit")
    return {"number": turn.number, "void": turn.void} | {"from" if key == "was" else key: move[key] for key in order}


def _show(model: str, rows: Sequence[Mapping[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=model, title_justify="left")
    for column in ("version", "aliases", "prompt", "macro-F1 (test)", "tokens", "gates", "reviewed", "promoted (UTC)"):
        table.add_column(column)
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
    Console(width=None if Console().is_terminal else _WIDTH).print(table)
    for row in rows:
        if row["aliases"]:
            verdicts = [f"{g['gate']} {'holds' if g['holds'] else 'failed'}: {g['figures']}" for g in row["gates"]]
            notes = [row["decision"], row["review"] and f"review: {row['review']}"]
            for line in (*verdicts, *filter(None, notes)):
                click.echo(f"version {row['version']}: {line}")


def _show_history(model: str, turns: Sequence[Turn]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{model}: moves of production", title_justify="left")
    for column in ("", "when (UTC)", "from", "to", "kind", "by", "why", "prompt", "commit"):
        table.add_column(column, overflow="fold")
    for turn in turns:
        move = turn.move
        table.add_row(
            str(turn.number),
            _minute(move.at),
            _number(move.was),
            _number(move.to),
            f"{move.kind}, void: another was first" if turn.void else move.kind,
            escape(move.by),
            escape(move.reason),
            move.prompt_sha256[:12],
            move.commit[:10],
        )
    Console(width=None if Console().is_terminal else _WIDTH).print(table)
    missing = sorted(set(range(1, turns[0].number)) - {turn.number for turn in turns})
    if missing:
        click.echo(f"deleted from the history: {', '.join(map(str, missing))}")


def _number(version: int | None) -> str:
    return "none" if version is None else str(version)


def _minute(at: str) -> str:
    return at[:16].replace("T", " ")


def _registry() -> Registry:
    from pld.params import load_config
    from pld.registry.registry import open_registry

    return open_registry(load_config())
