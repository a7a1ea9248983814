"""DBSCAN on cosine distance: the published method's clusterer."""

import numpy as np
import numpy.typing as npt

from pld.ports import Vectors


class DbscanClusterer:
    """`eps` is a cosine distance (0…2), `min_samples` counts the point itself (Ester et al. 1996)."""

    def __init__(self, *, eps: float, min_samples: int) -> None:
        self._eps = eps
        self._min_samples = min_samples

    def cluster(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        from sklearn.cluster import DBSCAN

        if len(vectors) == 0:
            return np.empty(0, dtype=np.int64)
        found = DBSCAN(eps=self._eps, min_samples=self._min_samples, metric="cosine").fit_predict(vectors)
        return np.asarray(found, dtype=np.int64)
