"""`pld ablate`: the effect of each shipped instruction on validation, and which ones could be dropped."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pld.artifacts import SHIPS, read_jsonl, read_text
from pld.records import Instruction
from pld.resolve.ablation import FrontPoint, read_pareto_csv
from pld.resolve.records import Effect

if TYPE_CHECKING:
    from rich.table import Table

ARTIFACTS = Path("artifacts")
FINAL = ARTIFACTS / SHIPS
_SHOWN = 8  # characters of an id; `pld explain` takes four


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def ablate(as_json: bool) -> None:
    """Print the effect of each instruction: figures on validation with it minus those without it.

    If the stage `resolve` did not measure it (resolution.ablation is false), measure it now, which takes one pass over
    validation per instruction; nothing is written.
    """
    instructions = read_jsonl(FINAL / "instructions.jsonl", Instruction)
    points = read_pareto_csv(read_text(ARTIFACTS / "resolve/pareto.csv"))
    known = _known(instructions)
    effects = _measured(instructions) if known is None else known
    if as_json:
        found = {
            "measured_now": known is None,
            "effects": [effect.model_dump(mode="json") for effect in effects],
            "could_go": [effect.instruction_id for effect in could_go(effects)],
            "pareto": [point.model_dump(mode="json") for point in points],
        }
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
        return
    from rich.console import Console

    console = Console(width=None if Console().is_terminal else 120)
    console.print()
    console.print(_table(instructions, effects))
    for line in (*summary_lines(effects), front(points)):
        console.print(line, highlight=False, markup=False)
    if known is None:
        console.print("measured now: the stage resolve did not (resolution.ablation)", highlight=False)


def summary_lines(effects: Sequence[Effect]) -> list[str]:
    """Sentences on which instructions could be dropped."""
    lines = []
    if idle := could_go(effects):
        lines.append(
            f"could go, each alone: {_ids(idle)} ({sum(effect.tokens for effect in idle):,} tokens together): the "
            "effect is not clearly above 0; resolution.pruning=ablation drops what the gate's terms allow"
        )
        lines.append("of two instructions that say the same, each looks idle here: the other one is still there")
    if alone := [effect for effect in effects if _idle(effect) and effect not in idle]:
        lines.append(f"not clearly above 0 either, but the only one of its label: {_ids(alone)}")
    if not idle and not alone:
        lines.append("each instruction is missed: without it macro-F1 is clearly lower")
    if harmful := [effect for effect in effects if effect.macro_f1.high < 0]:
        lines.append(f"harmful: {_ids(harmful)}: without it macro-F1 is clearly higher")
    return lines


def could_go(effects: Sequence[Effect]) -> list[Effect]:
    """Instructions whose effect is not clearly above 0, and whose label has another instruction."""
    count = Counter(effect.label for effect in effects)
    return [effect for effect in effects if _idle(effect) and count[effect.label] > 1]


def front(points: Sequence[FrontPoint]) -> str:
    """One sentence on the lists that no other beats on both tokens and macro-F1."""
    on_front = [f"{point.tokens:,} tokens {point.macro_f1:.3f} ({point.what})" for point in points if point.on_front]
    return f"Pareto front of {len(points)} lists, macro-F1 on validation: {', '.join(on_front)}"


def _known(instructions: Sequence[Instruction]) -> list[Effect] | None:
    """What the stage measured, if it measured the shipped list."""
    path = FINAL / "ablation.jsonl"
    effects = read_jsonl(path, Effect) if path.exists() else []
    covered = [effect.instruction_id for effect in effects] == [instruction.id for instruction in instructions]
    return effects if covered else None


def _measured(instructions: Sequence[Instruction]) -> list[Effect]:
    from pld.config.settings import load_config
    from pld.progress import progress
    from pld.resolve import ablation
    from pld.resolve.inputs import load_inputs

    inputs = load_inputs(load_config(), ARTIFACTS)
    scorer = inputs.scorer
    scorer.check_prompt(instructions, FINAL)
    with progress("ablate", (len(instructions) + 1) * len(inputs.validation)) as advance:
        scorer.on_progress = advance
        return ablation.ablate(instructions, scorer, inputs.validation)


def _table(instructions: Sequence[Instruction], effects: Sequence[Effect]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=f"with each instruction minus without it, on {effects[0].examples} validation examples",
        title_justify="left",
        expand=True,
    )
    for column in ("id", "label", "tokens", "macro-F1 [95 %]", "fixed", "broken", "F1 changes most"):
        table.add_column(column, justify="left" if column in ("id", "label") else "right", no_wrap=True)
    table.add_column("text", no_wrap=True, overflow="ellipsis", ratio=1, min_width=12)
    for instruction, effect in zip(instructions, effects, strict=True):
        most = max(effect.per_label, key=lambda label: abs(effect.per_label[label]))
        cells = (
            instruction.id[:_SHOWN],
            instruction.label,
            f"{effect.tokens:,}",
            effect.macro_f1.signed,
            str(len(effect.fixed)),
            str(len(effect.broken)),
            f"{most} {effect.per_label[most]:+.3f}",
            instruction.text,
        )
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _idle(effect: Effect) -> bool:
    return effect.macro_f1.low <= 0


def _ids(effects: Sequence[Effect]) -> str:
    return ", ".join(effect.instruction_id[:_SHOWN] for effect in effects)
