"""A chart as Vega-Lite, drawn alike in the page and as a picture; its colours (styles and ranges) are the theme's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from pld.records import Interval

ROWS = "rows"
F1 = "macro-F1"
TOOLTIPS = (
    alt.Tooltip("macro_f1:Q", title=F1, format=".3f"),
    alt.Tooltip("interval:N", title="95 % interval"),
)


@dataclass(frozen=True)
class Chart:
    """`spec` names its data `rows`; `description` says for those who don't see it what is drawn; `about` stands above
    it as a picture. A canvas is for many marks; without a `legend` of the chart's own the page has one beside it."""

    name: str
    about: str
    description: str
    spec: dict[str, Any]
    rows: list[dict[str, Any]]
    renderer: Literal["svg", "canvas"] = "svg"
    legend: bool = True


def spec_of(layers: Sequence[alt.Chart], height: int) -> dict[str, Any]:
    """`layers` over one another, as wide as what they stand in; `height` of the plot alone, in pixels."""
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    chart = alt.layer(*layers).properties(data=alt.NamedData(ROWS), width="container", height=height, autosize=fit)
    spec: dict[str, Any] = chart.to_dict()
    return {key: value for key, value in spec.items() if key not in ("$schema", "config")}


def figures_of(found: Interval) -> dict[str, Any]:
    """The fields of a mark that `TOOLTIPS` and the axes name."""
    return {
        "macro_f1": round(found.value, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "interval": f"{found.low:.3f} to {found.high:.3f}",
    }
