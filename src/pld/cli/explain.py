"""`pld explain`: where an instruction comes from and what it does, or which instructions an example led to."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from pld.records import Instruction
from pld.reporting.provenance import ExampleUse, InstructionOrigin, Provenance
from pld.resolve.lineage import describe_step
from pld.resolve.records import Effect

ARTIFACTS = Path("artifacts")
_FEW = 10


@click.command()
@click.argument("id")
@click.option("--all", "everything", is_flag=True, help=f"Print all examples, not only {_FEW}.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, with all examples, instead of text.")
def explain(id: str, everything: bool, as_json: bool) -> None:
    """Print where an instruction comes from, what changed it, and what it does; or what an example led to.

    ID is that of an instruction of the prompt that ships, of a rule, or of a training or validation example; four or
    more characters of its beginning are enough if nothing else begins with them.
    """
    provenance = Provenance.read(ARTIFACTS)
    found = provenance.look_up(id)
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), ensure_ascii=False, indent=2))
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    if isinstance(found, InstructionOrigin):
        lines = _instruction_lines(found, None if everything else _FEW)
    else:
        lines = _example_lines(found, provenance.final)
    console = Console(width=None if Console().is_terminal else 120)
    console.print()
    for at, (indent, line) in enumerate(lines):
        console.print(Padding(Text(line, style="" if at else "bold"), (0, 0, 0, 2 * indent), expand=False))


def _instruction_lines(found: InstructionOrigin, few: int | None) -> Iterator[tuple[int, str]]:
    """Lines to print, each with its indent; of long lists the first `few` (None: all)."""
    yield 0, f"{found.id}: instruction {found.place} of {found.of}, leads to {found.label}"
    yield 1, found.text
    clusters = f", cluster {', '.join(map(str, found.clusters))}" if found.clusters else ", no cluster"
    less = ", doubtful ones counted less" if isinstance(found.support, float) else ""
    yield 0, f"origin: {found.origin}; {found.support:g} rules behind it{less}{clusters}"
    yield 0, "Edits: none" if not found.edits else "Edits:"
    yield from ((1, describe_step(step)) for step in found.edits)
    yield from _effect_lines(found.effect, few)
    yield 0, f"examples that it comes from: {len(found.examples)}"
    for source in found.examples[:few]:
        doubtful = " (doubtful)" if source.doubtful else ""
        shown = f" (example turn {source.turn})" if source.turn else ""
        yield 1, f"{source.example_id} ({source.label}){doubtful}{shown}: {source.rule}"
    if few is not None and len(found.examples) > few:
        yield 1, f"and {len(found.examples) - few} more (--all)"


def _effect_lines(effect: Effect | None, few: int | None) -> Iterator[tuple[int, str]]:
    if effect is None:
        yield 0, "effect: not measured (resolution.ablation); run `pld ablate`"
        return
    changes = ", ".join(f"{label} {change:+.3f}" for label, change in effect.per_label.items())
    where = f"effect on {effect.examples} validation examples, with it minus without it"
    yield 0, f"{where}: macro-F1 {effect.macro_f1.signed}; F1 of {changes}"
    yield 1, f"turns right {len(effect.fixed)}: {_few(effect.fixed, few)}"
    yield 1, f"turns wrong {len(effect.broken)}: {_few(effect.broken, few)}"
    yield 1, f"costs {effect.tokens:,} tokens"


def _example_lines(found: ExampleUse, final: Mapping[str, Instruction]) -> Iterator[tuple[int, str]]:
    shown = f", shown in the prompt as example turn {found.turn}" if found.turn else ""
    yield 0, f"{found.id}: {found.split} example, label {found.label}{shown}"
    if found.rule is None:
        yield 0, f"rule: {found.no_rule}"
    else:
        cluster = "noise" if found.cluster is None else f"cluster {found.cluster}"
        yield 0, f"rule {found.rule.id} ({cluster}{', doubtful' if found.rule.doubtful else ''}):"
        yield 1, found.rule.text
    kinds: dict[str, tuple[str, ...] | None] = {"come from it": found.instructions}
    if found.split == "validation":
        kinds = {"turn it right": found.fixed_by, "turn it wrong": found.broken_by}
    for words, ids in kinds.items():
        yield 0, f"instructions that {words}: {'not measured' if ids is None else len(ids) or 'none'}"
        yield from ((1, f"{id} ({final[id].label}): {final[id].text}") for id in ids or ())


def _few(ids: Sequence[str], few: int | None) -> str:
    if few is None or len(ids) <= few:
        return ", ".join(ids) or "none"
    return f"{', '.join(ids[:few])} and {len(ids) - few} more"
