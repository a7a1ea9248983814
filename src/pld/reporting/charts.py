"""All charts that a run can have."""

from collections.abc import Sequence

from pld.adapters.clusterers.condensed_tree import TreeClusterer
from pld.config.build import build
from pld.records import Rule
from pld.reporting.chart import Chart
from pld.reporting.outputs import Outputs
from pld.reporting.quality_charts import lists_chart, systems_chart, trials_chart
from pld.reporting.rows import system_rows, trial_points
from pld.reporting.rule_charts import map_chart, tree_chart
from pld.reporting.rule_map import map_of


def drawn(outputs: Outputs, shown: Sequence[Rule]) -> tuple[list[Chart], str | None]:
    """All charts of a run, the `shown` rules in the map; without a tree, why there is none."""
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


def _no_tree(clusterer: object) -> str:
    if isinstance(clusterer, TreeClusterer):
        return "too few rules, or all embedded alike"
    return f"{type(clusterer).__name__} makes none (conf/clusterer/umap_hdbscan.yaml does)"
