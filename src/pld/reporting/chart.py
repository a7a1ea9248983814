"""A chart as Vega-Lite, drawn alike in the page and as a PNG file, and the report's light and dark colours.

CSS takes the colours as variables, charts as a Vega configuration: a chart names styles and ranges, never a colour.
Clusters take Paul Tol's `muted` and `light` schemes, which colour-blind readers can tell apart; everything else has the
accent colour, or one hue by lightness.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import altair as alt
import vl_convert

from pld.artifacts import atomic_path
from pld.reports import Interval

ROWS = "rows"
F1 = "macro-F1"
TOOLTIPS = (
    alt.Tooltip("macro_f1:Q", title=F1, format=".3f"),
    alt.Tooltip("interval:N", title="95 % interval"),
)
_PICTURE_WIDTH = 720
_PICTURE_SCALE = 1.5
_SANS = '"Helvetica Neue", Arial, "Liberation Sans", sans-serif'


@dataclass(frozen=True)
class Chart:
    """`spec` names its data `rows`; `description` is its text alternative; `about` is the title of the PNG file.
    `renderer`: canvas for many marks; `legend` False: the page has its own."""

    name: str
    about: str
    description: str
    spec: dict[str, Any]
    rows: list[dict[str, Any]]
    renderer: Literal["svg", "canvas"] = "svg"
    legend: bool = True


def spec_of(layers: Sequence[alt.Chart], height: int) -> dict[str, Any]:
    """`layers` on top of each other, as wide as their container; `height` of the plot area in pixels."""
    fit = alt.AutoSizeParams(type="fit-x", contains="padding")
    chart = alt.layer(*layers).properties(data=alt.NamedData(ROWS), width="container", height=height, autosize=fit)
    spec: dict[str, Any] = chart.to_dict()
    return {key: value for key, value in spec.items() if key not in ("$schema", "config")}


def figures_of(found: Interval) -> dict[str, Any]:
    """The fields of a mark that `TOOLTIPS` and the axes read."""
    return {
        "macro_f1": round(found.value, 4),
        "low": round(found.low, 4),
        "high": round(found.high, 4),
        "interval": f"{found.low:.3f} to {found.high:.3f}",
    }


def draw_pictures(folder: Path, charts: Sequence[Chart]) -> None:
    """Write `folder`/<name>.png for each chart; the same figures give the same bytes."""
    for chart in charts:
        spec = {
            **chart.spec,
            "width": _PICTURE_WIDTH,
            "padding": 16,
            "title": chart.about,
            "datasets": {chart.spec["data"]["name"]: chart.rows},
            "config": LIGHT.vega(),
        }
        picture = vl_convert.vegalite_to_png(spec, scale=_PICTURE_SCALE, allowed_base_urls=[])
        with atomic_path(folder / f"{chart.name}.png") as temporary:
            temporary.write_bytes(picture)


@dataclass(frozen=True)
class Theme:
    ground: str
    raised: str
    ink: str
    quiet: str
    line: str
    accent: str
    pale: str
    clusters: tuple[str, ...]
    ramp: tuple[str, str]

    def css(self) -> str:
        """The colours as CSS variables."""
        named = {name: value for name, value in asdict(self).items() if isinstance(value, str)}
        numbered = {f"cluster-{place}": colour for place, colour in enumerate(self.clusters)}
        return " ".join(f"--{name}: {value};" for name, value in {**named, **numbered}.items())

    def vega(self) -> dict[str, Any]:
        """The Vega configuration of every chart."""
        text = {"labelColor": self.ink, "titleColor": self.quiet, "labelFontSize": 12, "titleFontSize": 12}
        return {
            "background": self.ground,
            "font": _SANS,
            "view": {"stroke": None},
            "axis": {
                **text,
                "titleFontWeight": "normal",
                "gridColor": self.line,
                "domain": False,
                "tickColor": self.line,
                "labelLimit": 170,
            },
            "axisX": {"labelBound": True},
            "legend": {**text, "titleFontWeight": "normal", "symbolStrokeColor": self.quiet},
            "title": {"color": self.ink, "anchor": "start", "fontWeight": "bold", "fontSize": 14, "offset": 12},
            "range": {"category": list(self.clusters), "ramp": list(self.ramp)},
            "style": {
                "plain": {"color": self.quiet},
                "hollow": {"color": self.ground, "stroke": self.quiet},
                "accent": {"color": self.accent},
                "hollow-accent": {"color": self.ground, "stroke": self.accent},
                "pale": {"color": self.pale},
                "ring": {"color": self.ink},
                "words": {"color": self.ink, "fontSize": 12},
                "edge": {"stroke": self.ground},
            },
        }


LIGHT = Theme(
    ground="#ffffff",
    raised="#f5f6f7",
    ink="#1c2127",
    quiet="#59626d",
    line="#dde1e6",
    accent="#0b5c93",
    pale="#c3c9d0",
    clusters=("#332288", "#cc6677", "#117733", "#b39b2c", "#5bb4dd", "#882255", "#44aa99", "#999933"),
    ramp=("#9cc4e2", "#08304f"),
)
DARK = Theme(
    ground="#15181c",
    raised="#1e2227",
    ink="#e3e6e9",
    quiet="#a0aab5",
    line="#30363d",
    accent="#70b7ec",
    pale="#4b535c",
    clusters=("#77aadd", "#ee8866", "#44bb99", "#eedd88", "#99ddff", "#ffaabb", "#bbcc33", "#aaaa00"),
    ramp=("#2f6d9c", "#d9edfb"),
)
