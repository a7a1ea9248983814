"""Macro-F1 with its intervals: of the systems on test, of the trials and the loop's lists on validation."""

from collections.abc import Sequence

import altair as alt

from pld.records import CALIBRATED, Interval
from pld.reporting.chart import F1, TOOLTIPS, Chart, figures_of, spec_of
from pld.reporting.rows import SystemRow, TrialPoint, all_timed
from pld.resolve.ablation import FrontPoint
from pld.resolve.resolution import CAME_IN, LEFT


def systems_chart(rows: Sequence[SystemRow], n: int, task: str, shipped: str) -> Chart:
    """Every system's macro-F1 on test with its interval; calibrated variants hollow."""
    marks = []
    for row in rows:
        name = row.name if row.report.n == n else f"{row.name} (n = {row.report.n})"
        variants = ((row.name, row.report, "as it answers"), (row.name + CALIBRATED, row.calibrated, "calibrated"))
        for full, report, variant in variants:
            if report is not None:
                marks.append(
                    {"system": name, "variant": variant, "ships": full == shipped, **figures_of(report.macro_f1)}
                )
    order = list(dict.fromkeys(row["system"] for row in marks))
    title = f"{F1} on test [95 %]"
    x = alt.X("macro_f1:Q", title=title, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=6, format=".1f"))
    base = alt.Chart().encode(
        y=alt.Y("system:N", sort=order, title=None),
        yOffset=alt.YOffset("variant:N", sort=["as it answers", "calibrated"], scale=alt.Scale(paddingOuter=0.4)),
        tooltip=[
            alt.Tooltip("system:N"),
            alt.Tooltip("variant:N"),
            *TOOLTIPS,
        ],
    )
    layers = []
    for ships, plain, hollow in ((False, "plain", "hollow"), (True, "accent", "hollow-accent")):
        own = base.transform_filter(f"datum.ships === {str(ships).lower()}")
        layers.append(own.mark_rule(strokeWidth=1.5, style=plain).encode(x=alt.X("low:Q", title=title), x2="high:Q"))
        for variant, style in (("as it answers", plain), ("calibrated", hollow)):
            filtered = own.transform_filter(f"datum.variant === '{variant}'")
            layers.append(
                filtered.mark_point(size=64, filled=True, strokeWidth=1.5, opacity=1, style=style).encode(x=x)
            )
    return Chart(
        name="systems",
        about=f"{task}: every system on {n} test examples (hollow: calibrated; coloured: ships)",
        description=f"{F1} with 95 % interval of {len(order)} systems. The figures stand in the table below.",
        spec=spec_of(layers, height=36 * len(order)),
        rows=marks,
    )


def trials_chart(points: Sequence[TrialPoint]) -> Chart:
    """Every trial's macro-F1 on validation against tokens, by latency where all were timed; the front ringed."""
    timed = all_timed(points)
    marks = [
        {
            "trial": point.trial.trial_id,
            "tokens": point.trial.report.prompt_tokens,
            "latency": None if point.p50_ms is None else round(point.p50_ms, 1),
            "front": point.on_front,
            "won": point.won,
            "settings": ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in point.trial.settings.items()),
            **figures_of(point.trial.report.macro_f1),
        }
        for point in points
    ]
    tooltip = [
        alt.Tooltip("trial:N"),
        *TOOLTIPS,
        alt.Tooltip("tokens:Q"),
        *([alt.Tooltip("latency:Q", title="p50 ms")] if timed else []),
        alt.Tooltip("settings:N"),
    ]
    base = alt.Chart().encode(
        x=alt.X(
            "tokens:Q",
            title="prompt tokens",
            scale=alt.Scale(zero=False, padding=40, nice=False),
            axis=alt.Axis(grid=False, tickCount=6),
        ),
        tooltip=tooltip,
    )
    f1, low = _on_validation("macro_f1"), _on_validation("low")
    dots = base.mark_point(filled=True, size=80, opacity=1, style="plain")
    if timed:
        dots = dots.encode(
            color=alt.Color("latency:Q", title="p50 ms", legend=alt.Legend(orient="top", gradientLength=140))
        )
    won = base.transform_filter("datum.won")
    layers = [
        base.mark_rule(strokeWidth=1, style="pale").encode(y=low, y2="high:Q"),
        dots.encode(y=f1),
        base.transform_filter("datum.front").mark_point(size=210, strokeWidth=1.6, style="ring").encode(y=f1),
        won.mark_text(dy=-17, style="words", text="won").encode(y=f1),
    ]
    front = "macro-F1, tokens and latency" if timed else "macro-F1 and tokens"
    return Chart(
        name="trials",
        about=f"Trials of the sweep (ringed: Pareto front of {front})",
        description=f"{F1} on validation against prompt tokens of {len(marks)} trials; the table below has them all.",
        spec=spec_of(layers, height=320),
        rows=marks,
    )


def lists_chart(points: Sequence[FrontPoint]) -> Chart:
    """Every list of the loop that was measured on all of validation."""
    ends = (LEFT, CAME_IN)
    marks = [
        {
            "list": point.what,
            "tokens": point.tokens,
            "front": point.on_front,
            "end": point.what if point.what in ends else None,
            **figures_of(Interval(value=point.macro_f1, low=point.low, high=point.high)),
        }
        for point in points
    ]
    base = alt.Chart().encode(
        x=alt.X(
            "tokens:Q",
            title="prompt tokens",
            scale=alt.Scale(zero=False, padding=40, nice=False),
            axis=alt.Axis(grid=False, tickCount=6),
        ),
        tooltip=[
            alt.Tooltip("list:N"),
            *TOOLTIPS,
            alt.Tooltip("tokens:Q"),
        ],
    )
    f1, low = _on_validation("macro_f1"), _on_validation("low")
    named = base.transform_filter("datum.end !== null")
    layers = [
        base.mark_rule(strokeWidth=1, style="pale").encode(y=low, y2="high:Q"),
        base.transform_filter("datum.end === null")
        .mark_point(size=64, filled=True, opacity=1, style="plain")
        .encode(y=f1),
        named.mark_point(size=90, filled=True, opacity=1, style="accent").encode(y=f1),
        base.transform_filter("datum.front").mark_point(size=210, strokeWidth=1.6, style="ring").encode(y=f1),
        named.mark_text(dy=-17, style="words").encode(y=f1, text="end:N"),
    ]
    return Chart(
        name="lists",
        about="Lists of the loop (ringed: Pareto front of macro-F1 and tokens)",
        description=f"{F1} on validation against prompt tokens of {len(marks)} lists; the table below has them all.",
        spec=spec_of(layers, height=280),
        rows=marks,
    )


def _on_validation(field: str) -> alt.Y:
    return alt.Y(
        f"{field}:Q",
        title=f"{F1} on validation [95 %]",
        scale=alt.Scale(zero=False),
        axis=alt.Axis(tickCount=6),
    )
