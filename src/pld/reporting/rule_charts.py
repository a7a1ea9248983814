"""Charts of the Teacher's rules: a two-dimensional map of their embeddings, and the cluster tree of the winner's
clusterer."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import numpy.typing as npt

from pld.adapters.clusterers.condensed_tree import CondensedTree
from pld.ports import Vectors
from pld.records import Cluster, Rule
from pld.reporting.chart import Chart, spec_of

FEWEST_FOR_MAP = 6
"""Rules. UMAP's spectral initialisation needs more rows than dimensions."""
COLOURED = 8
"""The largest clusters have colours of their own; the others share a pale one."""

_FEW = 1_000  # marks on the map up to which they are drawn large
_NEIGHBOURS = 15

# one for each label; paths in a box from -1 to 1, which the page's legend draws too
SHAPES = (
    "M-1,0A1,1,0,1,0,1,0A1,1,0,1,0,-1,0Z",
    "M-0.87,-0.87H0.87V0.87H-0.87Z",
    "M0,-1.1L1.1,0.9H-1.1Z",
    "M-0.35,-1.1H0.35V-0.35H1.1V0.35H0.35V1.1H-0.35V0.35H-1.1V-0.35H-0.35Z",
    "M0,-1.2L1,0L0,1.2L-1,0Z",
    "M0,1.1L1.1,-0.9H-1.1Z",
    "M-1.1,-0.7L-0.7,-1.1L0,-0.4L0.7,-1.1L1.1,-0.7L0.4,0L1.1,0.7L0.7,1.1L0,0.4L-0.7,1.1L-1.1,0.7L-0.4,0Z",
    "M1.1,0L-0.9,1.1V-1.1Z",
    "M0,-1.2L0.3,-0.4L1.15,-0.37L0.48,0.15L0.7,0.97L0,0.5L-0.7,0.97L-0.48,0.15L-1.15,-0.37L-0.3,-0.4Z",
    "M-1.1,0L0.9,1.1V-1.1Z",
    "M0.5,-0.9L1,0L0.5,0.9H-0.5L-1,0L-0.5,-0.9Z",
    "M-1.1,-0.4H1.1V0.4H-1.1Z",
)


def shape_of(labels: Sequence[str]) -> dict[str, str]:
    return {label: SHAPES[place % len(SHAPES)] for place, label in enumerate(labels)}


def map_of(vectors: Vectors, seed: int) -> npt.NDArray[np.float64] | None:
    """Project `vectors` [n, d] to [n, 2] by UMAP (McInnes et al. 2018); deterministic for a seed. None for fewer than
    `FEWEST_FOR_MAP` rows, or rows that are all equal."""
    if len(vectors) < FEWEST_FOR_MAP or np.allclose(vectors, vectors[0], atol=1e-6):
        return None
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # random_state sets n_jobs to 1, as intended
        places = UMAP(
            n_neighbors=min(_NEIGHBOURS, len(vectors) - 1),
            n_components=2,
            metric="cosine",
            min_dist=0.1,
            random_state=seed,
            n_jobs=1,
        ).fit_transform(vectors)
    return np.asarray(places, dtype=np.float64)


def map_chart(
    rules: Sequence[Rule],
    places: npt.NDArray[np.float64],
    cluster_of: Mapping[str, Cluster],
    labels: Sequence[str],
) -> Chart:
    """Each of `rules` [n] at its place [n, 2]: colour by cluster, shape by label. The page's script adds the rules'
    texts, which the page holds anyway, and the filter of its legend."""
    marks = [
        {
            "x": round(float(x), 3),
            "y": round(float(y), 3),
            "cluster": _cluster_name(cluster_of.get(rule.id)),
            "label": rule.label,
            "example": rule.example_id,
            "rule": rule.id,
        }
        for rule, (x, y) in zip(rules, places, strict=True)
    ]
    shape = alt.Shape("label:N", scale=alt.Scale(domain=list(labels), range=list(shape_of(labels).values())))
    chosen = (
        "(chosen_cluster === null || datum.cluster === chosen_cluster)"
        " && (chosen_label === null || datum.label === chosen_label)"
    )
    scale = alt.Scale(zero=False, nice=False, padding=12)
    size = 70 if len(marks) <= _FEW else 28
    encoded: dict[str, Any] = {
        "x": alt.X("x:Q", axis=None, scale=scale),
        "y": alt.Y("y:Q", axis=None, scale=scale),
        "shape": shape,
        # small besides pale: many pale marks over one another make a strong one
        "opacity": alt.when(chosen).then(alt.value(0.85)).otherwise(alt.value(0.2)),
        "size": alt.when(chosen).then(alt.value(size)).otherwise(alt.value(4)),
        "tooltip": [
            alt.Tooltip("text:N", title="title"),  # the tooltip's own heading
            alt.Tooltip("label:N"),
            alt.Tooltip("cluster:N"),
            alt.Tooltip("example:N"),
            alt.Tooltip("rule:N"),
        ],
    }

    def dots(style: list[str]) -> alt.Chart:
        chart: alt.Chart = alt.Chart().mark_point(filled=True, strokeWidth=0, style=style).encode(**encoded)
        return chart

    spec = spec_of(_by_cluster(dots, marks, _coloured(list(cluster_of.values()))), height=420)
    spec["params"] = [{"name": "chosen_cluster", "value": None}, {"name": "chosen_label", "value": None}]
    return Chart(
        name="rules",
        about=f"{len(marks)} rules of the Teacher; nearby rules say similar things",
        description=(
            f"Map of {len(marks)} rules in two dimensions, coloured by cluster, shaped by label. "
            "Clusters and labels are counted in the table below; all rules are listed as text."
        ),
        spec=spec,
        rows=marks,
        renderer="canvas",
        legend=False,
    )


def tree_chart(tree: CondensedTree, rules: Sequence[Rule], cluster_of: Mapping[str, Cluster]) -> Chart:
    """The condensed tree over `rules` [n], or some of them; its branches are coloured by the cluster cut there."""
    named = {number: _cluster_name(cluster_of.get(rule.id)) for rule, number in zip(rules, tree.numbers, strict=True)}
    marks = [
        {
            "left": round(bar.left, 2),
            "right": round(bar.left + bar.size, 2),
            "top": round(bar.top, 4),
            "bottom": round(bar.bottom, 4),
            "rules": bar.size,
            "cluster": named[bar.number] if bar.number is not None else "above all clusters",
        }
        for bar in tree.bars
    ]
    encoded: dict[str, Any] = {
        "x": alt.X("left:Q", axis=None, scale=alt.Scale(zero=False, nice=False)),
        "x2": alt.X2("right:Q"),
        "y": alt.Y("top:Q", title="share of runs together", scale=alt.Scale(reverse=True, nice=False)),
        "y2": alt.Y2("bottom:Q"),
        "tooltip": [alt.Tooltip("cluster:N"), alt.Tooltip("rules:Q"), alt.Tooltip("top:Q", title="from share of runs")],
    }

    def bars(style: list[str]) -> alt.Chart:
        chart: alt.Chart = alt.Chart().mark_rect(strokeWidth=0.5, opacity=0.8, style=style).encode(**encoded)
        return chart

    return Chart(
        name="tree",
        about="Consensus tree of the rules: as wide as the rules that are together in a share of the clusterer's runs",
        description=(
            f"Consensus tree of {tree.bars[0].size} rules, {len(set(named) - {-1})} clusters cut from it; "
            "their sizes are in the table below."
        ),
        spec=spec_of(_by_cluster(bars, marks, _coloured(list(cluster_of.values())), "edge"), height=260),
        rows=marks,
    )


def coloured_clusters(clusters: Sequence[Cluster]) -> dict[str, int]:
    """Name of each cluster that has a colour → index of the colour."""
    return {name: place for place, name in enumerate(_coloured(clusters))}


def _coloured(clusters: Sequence[Cluster]) -> list[str]:
    ids = sorted({cluster.id for cluster in clusters if not cluster.noise})[:COLOURED]  # numbered by size
    return [str(identity) for identity in ids]


def _cluster_name(cluster: Cluster | None) -> str:
    return "none" if cluster is None or cluster.noise else str(cluster.id)


def _by_cluster(
    styled: Callable[[list[str]], alt.Chart], marks: Sequence[Mapping[str, Any]], names: Sequence[str], *edge: str
) -> list[alt.Chart]:
    """Layers of `styled`, coloured by the field `cluster`; clusters without a colour are pale, below the others."""
    present = {mark["cluster"] for mark in marks}
    own = f"indexof({list(names)!r}, datum.cluster) >= 0"
    colour = alt.Color("cluster:N", scale=alt.Scale(domain=list(names)), title="cluster")
    pale = styled(["pale", *edge]).transform_filter(f"!({own})")
    coloured = styled([*edge]).transform_filter(own).encode(color=colour)
    # Vega warns of a layer without a mark
    return [
        *([pale] if any(name not in names for name in present) else []),
        *([coloured] if any(name in names for name in present) else []),
    ]
