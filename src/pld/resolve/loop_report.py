"""Writes the loop's report as a Markdown page: artifacts/resolve/report.md."""

from collections.abc import Iterator, Sequence

from pld.resolve.ablation import FrontPoint
from pld.resolve.loop import Round
from pld.resolve.records import EditResult, Effect
from pld.resolve.resolution import Resolution

_LONGEST = 160  # characters of a text in a table


def loop_report(done: Resolution, rounds: Sequence[Round]) -> str:
    """Markdown: how it ended, rounds, Edits that met the gate, the effect of each instruction, the Pareto front."""
    return "\n\n".join(_parts(done, rounds)) + "\n"


def _parts(done: Resolution, rounds: Sequence[Round]) -> Iterator[str]:
    report = done.report
    yield "# The conflict loop"
    before, after = report.came_in.macro_f1.value, report.result.macro_f1.value
    yield (
        f"Resolver `{report.resolver}`, failures `{report.sampler}`. Ended: {report.ended}. {report.candidates} lists "
        f"were tried on validation, {len(report.accepted)} Edits accepted. Macro-F1 there: {before:.3f} before, "
        f"{after:.3f} after, {report.gain.macro_f1_delta.signed}. That gain is chosen on validation; the one to quote "
        "is on test (`pld summary`)."
    )
    if report.alarms or report.pruned:
        yield "\n".join(
            [*(f"- ALARM: {alarm}" for alarm in report.alarms), *(f"- pruned {it}" for it in report.pruned)]
        )
    if rounds:
        yield "## Rounds"
        yield _table(
            ("round", "pool macro-F1", "failures", "Edits", "refused", "raced", "accepted", "validation", "tokens"),
            [_round_row(played) for played in rounds],
        )
        yield from (f"Round {found.report.round}: {found.report.trouble}" for found in rounds if found.report.trouble)
        met = [edit for played in rounds for edit in played.edits if edit.gate is not None]
        if met:
            yield "## Edits that met the gate"
            yield _table(
                ("round", "Edit", "proposer", "reason", "what became of it"), [_edit_row(edit) for edit in met]
            )
    yield "## What each instruction does on validation, with it minus without it"
    if done.effects is None:
        yield "Not measured (`resolution.ablation`); `pld ablate` does it now."
    else:
        texts = {own.id: own.text for own in done.instructions}
        labels = list(done.effects[0].per_label) if done.effects else []
        changes = (f"F1 of {label}" for label in labels)
        yield _table(
            ("id", "label", "macro-F1 [95 %]", *changes, "tokens", "fixed", "broken", "text"),
            [_effect_row(effect, labels, texts[effect.instruction_id]) for effect in done.effects],
        )
    yield "## Quality against length"
    yield _table(
        ("list", "tokens", "macro-F1 on validation [95 %]", "on the Pareto front"),
        [(point.what, str(point.tokens), _figure(point), "yes" if point.on_front else "") for point in done.points],
    )


def _round_row(played: Round) -> tuple[str, ...]:
    found = played.report
    return (
        str(found.round),
        f"{found.pool.macro_f1.value:.3f}",
        f"{found.failures} of {found.pool.n}",
        str(found.proposed),
        str(found.refused),
        str(found.raced),
        ", ".join(edit.edit.op for edit in played.edits if edit.outcome == "accepted") or "none",
        f"{found.validation.macro_f1.value:.3f}",
        str(found.validation.prompt_tokens),
    )


def _effect_row(effect: Effect, labels: Sequence[str], text: str) -> tuple[str, ...]:
    changes = (f"{effect.per_label[label]:+.3f}" for label in labels)
    counts = (str(effect.tokens), str(len(effect.fixed)), str(len(effect.broken)))
    return (f"`{effect.instruction_id}`", effect.label, effect.macro_f1.signed, *changes, *counts, text)


def _figure(point: FrontPoint) -> str:
    return f"{point.macro_f1:.3f} [{point.low:.3f}, {point.high:.3f}]"


def _edit_row(edit: EditResult) -> tuple[str, ...]:
    words = getattr(edit.edit, "text", None) or getattr(edit.edit, "id", "")
    said = f"{edit.outcome}: {edit.why}"
    return str(edit.round), f"{edit.edit.op}: {words}", edit.proposer, edit.edit.reason, said


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(map(_cell, cells)) + " |" for cells in [columns, *rows]]
    return "\n".join([lines[0], "|" + "---|" * len(columns), *lines[1:]])


def _cell(text: str) -> str:
    """Any text as a table cell, with the markup of Markdown and HTML escaped."""
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return short.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
