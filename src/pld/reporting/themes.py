"""The report's colours, light and dark, in one place: CSS takes them as variables, charts as a Vega configuration.

Clusters take Paul Tol's `muted` and `light` schemes, which colour-blind readers tell apart; what else is coloured is
the accent, or one hue by its lightness.
"""

from dataclasses import asdict, dataclass
from typing import Any

SANS = '"Helvetica Neue", Arial, "Liberation Sans", sans-serif'


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
        """Its colours as CSS variables."""
        named = {name: value for name, value in asdict(self).items() if isinstance(value, str)}
        numbered = {f"cluster-{place}": colour for place, colour in enumerate(self.clusters)}
        return " ".join(f"--{name}: {value};" for name, value in {**named, **numbered}.items())

    def vega(self) -> dict[str, Any]:
        """The configuration that a chart, which names no colour itself, is drawn with."""
        text = {"labelColor": self.ink, "titleColor": self.quiet, "labelFontSize": 12, "titleFontSize": 12}
        return {
            "background": self.ground,
            "font": SANS,
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
