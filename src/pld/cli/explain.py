"""`pld explain`: where an instruction comes from and what it does; and the other way round, from an example."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click

from pld.distill.text_checks import one_line
from pld.reporting.provenance import Book, Decided, Gone, Present, Story, Tried
from pld.resolve.lineage import BY_A_REVIEWER
from pld.resolve.lineage import told as said
from pld.resolve.records import Descent, Effect

ARTIFACTS = Path("artifacts")
_FEW = 10


@click.command()
@click.argument("id")
@click.option("--all", "everything", is_flag=True, help=f"Print all examples, not only {_FEW}.")
@click.option("--json", "as_json", is_flag=True, help="Print one object instead, for a program; it holds everything.")
def explain(id: str, everything: bool, as_json: bool) -> None:
    """Print where an instruction comes from, what changed it, and what it does; or what became of an example.

    ID is that of an instruction (of the final list, or of an earlier one), of an Edit, of a rule, or of a training or
    validation example; a beginning of at least four characters is enough where it is the only one.
    """
    book = Book.read(ARTIFACTS)
    found = book.look_up(id)
    if as_json:
        click.echo(json.dumps(found.model_dump(mode="json"), ensure_ascii=False, indent=2))
        return
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(width=None if Console().is_terminal else 120)
    console.print()
    for at, (indent, line) in enumerate(told(found, None if everything else _FEW, book.descents)):
        console.print(Padding(Text(line, style="" if at else "bold"), (0, 0, 0, 2 * indent), expand=False))


def told(
    found: Present | Gone | Tried | Story, few: int | None, descents: Mapping[str, Descent]
) -> Iterator[tuple[int, str]]:
    """Lines to print, each with its indent; of long lists the first `few` (None: all). `descents` of the final list."""
    if isinstance(found, Present):
        return _told_present(found, few)
    if isinstance(found, Tried):
        return _told_edit(found, few)
    return _told_gone(found) if isinstance(found, Gone) else _told_story(found, few, descents)


def _told_present(found: Present, few: int | None) -> Iterator[tuple[int, str]]:
    yield 0, f"{found.id}: instruction {found.place} of {found.of}, leads to {found.label}"
    yield 1, found.text
    clusters = f", cluster {', '.join(map(str, found.clusters))}" if found.clusters else ", no cluster"
    less = ", doubtful ones counted less" if isinstance(found.support, float) else ""
    yield 0, f"origin: {found.origin}; {found.support:g} rules behind it{less}{clusters}"
    yield 0, "Edits: none" if not found.edits else "Edits:"
    for step in found.edits:
        yield 1, said(step)
    yield from _told_decisions(found.decisions)
    yield from _told_effect(found.effect, few)
    yield 0, f"examples that it comes from: {len(found.examples)}"
    for source in found.examples[:few]:
        doubtful = " (doubtful)" if source.doubtful else ""
        yield 1, f"{source.example_id} ({source.label}){doubtful}: {source.rule}"
    if few is not None and len(found.examples) > few:
        yield 1, f"and {len(found.examples) - few} more (--all)"


def _told_decisions(decisions: Sequence[Decided]) -> Iterator[tuple[int, str]]:
    if decisions:
        yield 0, "decided by people:"
    for own in decisions:
        why = f" because: {one_line(own.note)}" if own.note else ""
        of = "this prompt" if own.of_what_ships else "an earlier prompt"
        yield 1, f"sheet {own.sheet} of {own.at}, of {of}: {own.verdict} by {own.reviewer}{why}"


def _told_effect(effect: Effect | None, few: int | None) -> Iterator[tuple[int, str]]:
    if effect is None:
        yield 0, "effect: not measured (resolution.ablation); `pld ablate` does it now"
        return
    changes = ", ".join(f"{label} {change:+.3f}" for label, change in effect.per_label.items())
    yield 0, f"effect on validation, with it less without it: macro-F1 {effect.macro_f1.signed}; F1 of {changes}"
    yield 1, f"turns right {len(effect.fixed)}: {_few(effect.fixed, few)}"
    yield 1, f"turns wrong {len(effect.broken)}: {_few(effect.broken, few)}"
    yield 1, f"costs {effect.tokens:,} tokens"


def _told_gone(found: Gone) -> Iterator[tuple[int, str]]:
    yield 0, f"{found.id}: not in the final list any more; last in {found.seen}, led to {found.label}"
    yield 1, found.text
    yield 0, f"origin: {found.origin}"
    if found.taken_by is None:
        yield 0, f"gone: {found.why}"
        return
    yield 0, "taken away by a person:" if found.taken_by.round == BY_A_REVIEWER else "taken away by an Edit:"
    yield 1, said(found.taken_by)
    if found.became:
        yield 0, f"became: {', '.join(found.became)}"


def _told_edit(found: Tried, few: int | None) -> Iterator[tuple[int, str]]:
    verdict = found.found
    yield 0, f"{found.id}: an Edit; {said(found.step)}"
    for text in (*getattr(verdict.edit, "texts", ()), getattr(verdict.edit, "text", None)):
        if text:
            yield 1, text
    if verdict.pool:
        yield 0, f"on the pool: macro-F1 {verdict.pool.macro_f1:.4f}, the present list {verdict.pool.present:.4f}"
    for rung in verdict.race:
        yield 0, f"in the race, on {rung.examples}: macro-F1 {rung.macro_f1:.4f}, the present list {rung.present:.4f}"
    if verdict.gate:
        yield 0, f"the list that met the gate fixes {len(verdict.gate.fixed)}: {_few(verdict.gate.fixed, few)}"
        yield 1, f"and breaks {len(verdict.gate.broken)}: {_few(verdict.gate.broken, few)}"
    yield 0, f"failures that it answers: {_few(verdict.example_ids, few)}"


def _told_story(found: Story, few: int | None, descents: Mapping[str, Descent]) -> Iterator[tuple[int, str]]:
    yield 0, f"{found.id}: {found.split} example, label {found.label}"
    if found.rule is None:
        yield 0, f"rule: {found.no_rule}"
    else:
        cluster = "noise" if found.cluster is None else f"cluster {found.cluster}"
        yield 0, f"rule {found.rule.id} ({cluster}{', doubtful' if found.rule.doubtful else ''}):"
        yield 1, found.rule.text
    if found.split == "train":
        yield 0, f"instructions of the final list that come from it: {len(found.instructions) or 'none'}"
        yield from ((1, _line(descents[identity])) for identity in found.instructions)
    if found.split == "validation":
        for words, ids in (("right", found.fixed_by), ("wrong", found.broken_by)):
            told = "not measured" if ids is None else len(ids) or "none"
            yield 0, f"instructions that turn it {words}: {told}"
            yield from ((1, _line(descents[identity])) for identity in ids or ())
    if found.edits:
        yield 0, "Edits:"
    for touched in found.edits[:few]:
        yield 1, f"{touched.how} it: {said(touched.edit)}"
    if few is not None and len(found.edits) > few:
        yield 1, f"and {len(found.edits) - few} more (--all)"


def _line(own: Descent) -> str:
    return f"{own.instruction_id} ({own.label}): {own.text}"


def _few(ids: Sequence[str], few: int | None) -> str:
    if few is None or len(ids) <= few:
        return ", ".join(ids) or "none"
    return f"{', '.join(ids[:few])} and {len(ids) - few} more"
