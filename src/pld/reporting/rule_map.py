"""Where each rule lies among the others: its embedding in two dimensions (UMAP; McInnes et al. 2018)."""

import warnings

import numpy as np
import numpy.typing as npt

from pld.ports import Vectors

FEWEST = 6
"""Rows; UMAP's spectral start needs some more than it makes dimensions."""
_NEIGHBOURS = 15


def map_of(vectors: Vectors, seed: int) -> npt.NDArray[np.float64] | None:
    """`vectors` [n, d] → [n, 2]; the same seed repeats. None for fewer than `FEWEST` rows, or rows that are all
    alike: no map can be drawn."""
    if len(vectors) < FEWEST or np.allclose(vectors, vectors[0], atol=1e-6):
        return None
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # n_jobs is set to 1 by random_state, which is what is wanted
        places = UMAP(
            n_neighbors=min(_NEIGHBOURS, len(vectors) - 1),
            n_components=2,
            metric="cosine",
            min_dist=0.1,
            random_state=seed,
            n_jobs=1,
        ).fit_transform(vectors)
    return np.asarray(places, dtype=np.float64)
