"""Renders the report as one HTML file that contains its styles, scripts and data.

Rules and instructions are the Teacher's text and labels are the user's, so everything is escaped, and the page's
Content-Security-Policy forbids foreign scripts and all requests.
"""

import base64
import hashlib
import platform
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import vl_convert
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pld.artifacts import SHIPS
from pld.pricing import dollars, tokens_read, tokens_written, total_usd
from pld.records import DISTILLED, Rule
from pld.reporting import rows
from pld.reporting.chart import DARK, LIGHT, Chart
from pld.reporting.diff import turns_of
from pld.reporting.importances import EVALUATOR, Importances
from pld.reporting.outputs import Outputs
from pld.reporting.rule_charts import FEWEST_FOR_MAP, coloured_clusters, shape_of
from pld.reports import Interval
from pld.resolve.lineage import describe_result, describe_step

MOST_IDS = 60
MOST_CLUSTERS = 60
# those that a result may depend on
_PACKAGES = (
    "pld",
    "torch",
    "transformers",
    "sentence-transformers",
    "umap-learn",
    "hdbscan",
    "scikit-learn",
    "numpy",
    "scipy",
    "optuna",
    "altair",
    "vl-convert-python",
)
_TEMPLATES = Path(__file__).with_name("templates")


def page(
    outputs: Outputs, charts: Sequence[Chart], rules: Sequence[Rule], mattered: Importances, no_tree: str | None
) -> str:
    """`rules`: the part of `outputs.rules` to show; a missing chart is explained in words."""
    script = _script()
    return (
        _environment()
        .get_template("page.j2")
        .render(
            **_evaluation(outputs),
            **_instructions(outputs, rules),
            **_rules(outputs, charts, rules, no_tree),
            **_search(outputs, mattered),
            **_loop(outputs),
            **_cost(outputs),
            **_reproduction(outputs),
            charts={chart.name: chart for chart in charts} | dict.fromkeys(_ABSENT - {chart.name for chart in charts}),
            payload=_payload(charts),
            script=script,
            policy=_policy(script),
            css=(_TEMPLATES / "page.css").read_text(encoding="utf-8"),
            light=LIGHT.css(),
            dark=DARK.css(),
        )
    )


_ABSENT = {"rules", "tree", "lists"}
"""Charts that some runs don't have."""


def _evaluation(outputs: Outputs) -> dict[str, Any]:
    report, latency = outputs.result.report, outputs.result.latency
    confusions = rows.confusions(report)
    return {
        "report": report,
        "config": outputs.config,
        "verdict": report.verdict,
        "in_figures": rows.in_figures(report),
        "own": report.systems[report.shipped],
        "readable": outputs.costs.systems[DISTILLED].readable,
        "student": outputs.config.student.get("name", report.student.get("model", "")),
        "systems": rows.system_rows(report, latency, outputs.costs),
        "machine": latency.machine,
        "splits": outputs.splits,
        "on_data": rows.data_findings(outputs.splits),
        "confusions": confusions,
        "unparsable": any(found.report.unparsable for found in confusions),
        "validation_n": outputs.result.best.report.n,
    }


def _instructions(outputs: Outputs, rules: Sequence[Rule]) -> dict[str, Any]:
    effects = outputs.effects or []
    ends = [0.0, *(end for own in effects for end in (own.macro_f1.low, own.macro_f1.high))]
    return {
        "instructions": rows.instruction_views(outputs.result.instructions, outputs.descents, effects, rules),
        "prompt": outputs.result.messages[0].content,
        "turns": list(zip(outputs.turn_examples, turns_of(outputs.result.messages), strict=True)),
        "describe_step": describe_step,
        "measured_on": effects[0].examples if effects else 0,
        "scale": (min(ends), max(ends)),
    }


def _rules(outputs: Outputs, charts: Sequence[Chart], rules: Sequence[Rule], no_tree: str | None) -> dict[str, Any]:
    coloured, ships = coloured_clusters(outputs.clusters), outputs.result.instructions
    clusters = rows.cluster_rows(outputs.clusters, ships)
    return {
        "extraction": outputs.extraction,
        "of_rules": outputs.of_rules,
        "clustered": len(outputs.rules),
        "by_size": ", ".join(f"{name} {value}" for name, value in outputs.result.best.by_size.items()),
        "stability": outputs.result.best.stability,
        "shown": len(rules),
        "fewest": FEWEST_FOR_MAP,
        "no_tree": no_tree,
        "coloured": coloured,
        "shapes": shape_of(outputs.result.report.labels),
        "pale": any(row["cluster"] not in coloured for chart in charts if chart.name == "rules" for row in chart.rows),
        "clusters": clusters[:MOST_CLUSTERS],
        "of_clusters": len(clusters),
        "left_over": rows.behind_none(rules, ships),
    }


def _search(outputs: Outputs, mattered: Importances) -> dict[str, Any]:
    result, timed = outputs.result, outputs.result.latency.trials
    points = rows.trial_points(result.trials, timed, result.best.trial_id)
    return {
        "trials": points,
        "timed": rows.all_timed(points),
        "trial_requests": ", ".join(map(str, sorted({found.requests for found in timed.values()}))),
        "winner": result.best,
        "failed": result.failed_trials,
        "mattered": mattered,
        "evaluator": EVALUATOR,
    }


def _loop(outputs: Outputs) -> dict[str, Any]:
    result = outputs.result
    return {
        "resolution": result.resolution,
        "met": [edit for edit in outputs.edits if edit.gate is not None],
        "outcomes": dict(Counter(edit.outcome for edit in outputs.edits).most_common()),
        "describe_result": describe_result,
        "lists": [(own, Interval(value=own.macro_f1, low=own.low, high=own.high)) for own in outputs.lists],
        "reviewed": outputs.reviewed,
        "changes": rows.review_changes(outputs.left, result.instructions, outputs.descents),
        "review_status": _review_status(outputs),
    }


def _review_status(outputs: Outputs) -> str:
    sheets = outputs.reviewed.sheets
    if not sheets:
        return "not edited by a reviewer"
    return f"edited by sheet{'s' if len(sheets) > 1 else ''} {', '.join(map(str, sheets))}"


def _cost(outputs: Outputs) -> dict[str, Any]:
    roles = [(stage.stage, role) for stage in outputs.result.spending for role in stage.roles]
    return {
        "spending": roles,
        "usd": dollars(total_usd(role for _, role in roles)),
        "recorded": any(cost.training.recorded for cost in outputs.costs.systems.values()),
        "dollars": dollars,
        "tokens_read": tokens_read,
        "tokens_written": tokens_written,
    }


def _reproduction(outputs: Outputs) -> dict[str, Any]:
    result = outputs.result
    settings = yaml.safe_dump(result.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return {
        "ships": SHIPS.as_posix(),
        "datasets": result.datasets,
        "key": result.key,
        "versions": _versions(),
        "settings": settings,
    }


def _versions() -> dict[str, str]:
    """Name → version, Python's first; packages that are not installed are left out."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _on(value: float, scale: tuple[float, float]) -> str:
    """The x coordinate of `value` on `scale`, of 200."""
    low, high = scale
    return f"{200 * (value - low) / (high - low):.1f}" if high > low else "0"


def _payload(charts: Sequence[Chart]) -> dict[str, Any]:
    return {
        "charts": {
            chart.name: {
                "spec": chart.spec,
                "rows": chart.rows,
                "renderer": chart.renderer,
                "legend": chart.legend,
            }
            for chart in charts
        },
        "themes": {"light": LIGHT.vega(), "dark": DARK.vega()},
    }


@cache
def _script() -> str:
    """The page's script bundled with Vega, which vl-convert contains."""
    snippet = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    return str(vl_convert.javascript_bundle(snippet))


def _policy(script: str) -> str:
    """Content-Security-Policy: no request, and no script but this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "figure": "{:.3f}".format,
        "interval": lambda found: f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]",
        "ms": lambda value: f"{value:,.0f}" if value >= 10 else f"{value:.1f}",
        "minus": lambda text: text.replace("-", "−"),  # of figures, not of words
        "on": _on,
        "quantity": lambda number, noun: f"{number:,} {noun}{'' if number == 1 else 's'}",
        "thousands": "{:,}".format,
    }
    made.globals |= {"most_ids": MOST_IDS}
    return made
