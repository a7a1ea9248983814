"""All charts of a run: macro-F1 of systems, trials and the loop's lists, the confusion matrix, and the rules."""

from collections.abc import Sequence

import altair as alt

from pld.adapters.clusterers.condensed_tree import TreeClusterer
from pld.config.build import build
from pld.records import CALIBRATED, Rule
from pld.reporting.chart import F1, LIGHT, TOOLTIPS, Chart, figures_of, spec_of
from pld.reporting.outputs import Outputs
from pld.reporting.rows import SystemRow, TrialPoint, all_timed, system_rows, trial_points
from pld.reporting.rule_charts import map_chart, map_of, tree_chart
from pld.reports import EvaluationReport, Interval
from pld.resolve.ablation import FrontPoint
from pld.resolve.records import CAME_IN, LEFT


def charts_of(outputs: Outputs, shown: Sequence[Rule]) -> tuple[list[Chart], str | None]:
    """The charts of the page, with the `shown` rules on the map, and why there is no tree, if there is none."""
    result, report = outputs.result, outputs.result.report
    rows = system_rows(report, result.latency, outputs.costs)
    charts = [systems_chart(rows, report.n, report.task, report.shipped)]
    at = {rule.id: place for place, rule in enumerate(outputs.rules)}
    places = map_of(outputs.vectors[[at[rule.id] for rule in shown]], outputs.config.evaluation.seed)
    if places is not None:
        charts.append(map_chart(shown, places, outputs.cluster_of, report.labels))
    clusterer = build(outputs.config.clusterer, "clusterer")
    tree = clusterer.tree(outputs.vectors) if isinstance(clusterer, TreeClusterer) else None
    if tree is not None:
        charts.append(tree_chart(tree, outputs.rules, outputs.cluster_of))
    charts.append(trials_chart(trial_points(result.trials, result.latency.trials, result.best.trial_id)))
    if outputs.lists:
        charts.append(lists_chart(outputs.lists))
    return charts, None if tree else _no_tree(clusterer)


def systems_chart(rows: Sequence[SystemRow], n: int, task: str, shipped: str) -> Chart:
    """Macro-F1 on test of every system, with intervals; calibrated variants are hollow."""
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
        tooltip=[alt.Tooltip("system:N"), alt.Tooltip("variant:N"), *TOOLTIPS],
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
        description=f"{F1} with 95 % interval of {len(order)} systems. The figures are in the table below.",
        spec=spec_of(layers, height=36 * len(order)),
        rows=marks,
    )


def trials_chart(points: Sequence[TrialPoint]) -> Chart:
    """Macro-F1 on validation against prompt tokens of every trial, coloured by latency if all were timed; the Pareto
    front has rings. Trials that a race dropped are pale: they answered fewer examples."""
    timed = all_timed(points)
    marks = [
        {
            "trial": point.trial.trial_id,
            "tokens": point.trial.report.prompt_tokens,
            "latency": None if point.p50_ms is None else round(point.p50_ms, 1),
            "front": point.on_front,
            "won": point.won,
            "n": point.trial.report.n,
            "whole": point.whole,
            "settings": ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in point.trial.settings.items()),
            **figures_of(point.trial.report.macro_f1),
        }
        for point in points
    ]
    latency = [alt.Tooltip("latency:Q", title="p50 ms")] if timed else []
    answered = alt.Tooltip("n:Q", title="examples"), alt.Tooltip("tokens:Q")
    tooltips = alt.Tooltip("trial:N"), *TOOLTIPS, *answered, *latency, alt.Tooltip("settings:N")
    base, f1 = _against_tokens(*tooltips), _on_validation("macro_f1")
    pale = alt.when("datum.whole").then(alt.value(1)).otherwise(alt.value(0.35))
    dots = base.mark_point(filled=True, size=80, style="plain").encode(opacity=pale)
    if timed:
        dots = dots.encode(
            color=alt.Color("latency:Q", title="p50 ms", legend=alt.Legend(orient="top", gradientLength=140))
        )
    won = base.transform_filter("datum.won")
    layers = [
        _intervals(base.transform_filter("datum.whole")),
        dots.encode(y=f1),
        _front(base),
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
    """Macro-F1 against prompt tokens of the loop's lists that were measured on all of validation."""
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
    base, f1 = _against_tokens(alt.Tooltip("list:N"), *TOOLTIPS, alt.Tooltip("tokens:Q")), _on_validation("macro_f1")
    named = base.transform_filter("datum.end !== null")
    layers = [
        _intervals(base),
        base.transform_filter("datum.end === null")
        .mark_point(size=64, filled=True, opacity=1, style="plain")
        .encode(y=f1),
        named.mark_point(size=90, filled=True, opacity=1, style="accent").encode(y=f1),
        _front(base),
        named.mark_text(dy=-17, style="words").encode(y=f1, text="end:N"),
    ]
    return Chart(
        name="lists",
        about="Lists of the loop (ringed: Pareto front of macro-F1 and tokens)",
        description=f"{F1} on validation against prompt tokens of {len(marks)} lists; the table below has them all.",
        spec=spec_of(layers, height=280),
        rows=marks,
    )


def confusion_chart(report: EvaluationReport) -> Chart:
    """What ships on test: gold labels down, answers across, shaded by the share of the gold label. A PNG file only: the
    page has it as a table."""
    shipped = report.systems[report.shipped]
    marks = [
        {
            "gold": gold,
            "answered": answered,
            "examples": cell,
            "share": round(cell / max(1, shipped.per_label[gold].support), 4),
        }
        for gold, row in zip(report.labels, shipped.confusion, strict=True)
        for answered, cell in zip(report.labels, row, strict=True)
    ]
    order = list(report.labels)
    base = alt.Chart().encode(
        x=alt.X("answered:N", sort=order, title="answered", axis=alt.Axis(labelAngle=-30)),
        y=alt.Y("gold:N", sort=order, title="gold label"),
    )
    share = alt.Color("share:Q", title="share of the gold label", scale=alt.Scale(domain=[0, 1], range="ramp"))
    layers = [
        base.mark_rect().encode(color=share),
        base.transform_filter("datum.share <= 0.6").mark_text(style="words").encode(text="examples:Q"),
        base.transform_filter("datum.share > 0.6").mark_text(color=LIGHT.ground).encode(text="examples:Q"),
    ]
    return Chart(
        name="confusion",
        about=f"{report.task}: {report.shipped} on test",
        description=f"Confusion matrix of {report.shipped} over {len(order)} labels.",
        spec=spec_of(layers, height=44 * len(order)),
        rows=marks,
    )


def _against_tokens(*tooltips: alt.Tooltip) -> alt.Chart:
    scale, axis = alt.Scale(zero=False, padding=40, nice=False), alt.Axis(grid=False, tickCount=6)
    chart: alt.Chart = alt.Chart().encode(
        x=alt.X("tokens:Q", title="prompt tokens", scale=scale, axis=axis), tooltip=list(tooltips)
    )
    return chart


def _intervals(base: alt.Chart) -> alt.Chart:
    chart: alt.Chart = base.mark_rule(strokeWidth=1, style="pale").encode(y=_on_validation("low"), y2="high:Q")
    return chart


def _front(base: alt.Chart) -> alt.Chart:
    ring = base.transform_filter("datum.front").mark_point(size=210, strokeWidth=1.6, style="ring")
    chart: alt.Chart = ring.encode(y=_on_validation("macro_f1"))
    return chart


def _on_validation(field: str) -> alt.Y:
    return alt.Y(
        f"{field}:Q",
        title=f"{F1} on validation [95 %]",
        scale=alt.Scale(zero=False),
        axis=alt.Axis(tickCount=6),
    )


def _no_tree(clusterer: object) -> str:
    if isinstance(clusterer, TreeClusterer):
        return "too few rules, all embedded alike, or never clustered together"
    return f"{type(clusterer).__name__} makes none (conf/clusterer/umap_hdbscan.yaml does)"
