"""The charts as PNG files, the same bytes for the same figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import vl_convert

from pld.artifacts import atomic_path
from pld.reporting.chart import Chart
from pld.reporting.themes import LIGHT

WIDTH = 720
SCALE = 1.5


def draw(folder: Path, charts: Sequence[Chart]) -> None:
    for chart in charts:
        picture = vl_convert.vegalite_to_png(_whole(chart), scale=SCALE, allowed_base_urls=[])
        with atomic_path(folder / f"{chart.name}.png") as temporary:
            temporary.write_bytes(picture)


def _whole(chart: Chart) -> dict[str, Any]:
    return {
        **chart.spec,
        "width": WIDTH,
        "padding": 16,
        "title": chart.about,
        "datasets": {chart.spec["data"]["name"]: chart.rows},
        "config": LIGHT.vega(),
    }
