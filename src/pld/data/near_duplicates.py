"""Find near-duplicate texts: MinHash over word bigrams, with banding (Broder 1997; Indyk and Motwani 1998).

In scripts without spaces (Chinese, Japanese, Thai) each character counts as a word. Time and memory are linear in the
number of words, even if all texts are alike.
"""

import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pld.ports import OnProgress

THRESHOLD = 0.8
"""Jaccard similarity of two texts' word bigrams from which on they are near-duplicates."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")
# 12 bands of 5: a pair with 0.8 in common becomes a candidate with probability 99 %, with 0.5: 32 %, with 0.3: 3 %
_BANDS, _ROWS = 12, 5
_LEAST_EQUAL = 0.65  # share of equal minima below which a pair has hardly 0.8 in common (three standard deviations)
_CHUNK = 1024
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_DRAWN = np.random.default_rng(0).integers(1, 2**63, (2, _BANDS * _ROWS), np.uint64)
_FACTORS, _SUMMANDS = _DRAWN[0] | np.uint64(1), _DRAWN[1]


def near_duplicates(texts: Sequence[str], on_progress: OnProgress | None = None) -> list[tuple[int, int, float]]:
    """Pairs (earlier, later, similarity) that link near-duplicates: k texts that are all alike form a tree of k - 1
    pairs. A few near-duplicates may be missed; every pair returned is one."""
    from scipy.cluster.hierarchy import DisjointSet

    minima = np.concatenate([*_minima(texts, on_progress), np.empty((0, _BANDS * _ROWS), np.uint32)])
    links, sets = [], DisjointSet(range(len(texts)))
    for first, second in _candidates(minima):
        if not sets.connected(first, second):
            common = jaccard(texts[first], texts[second])
            if common >= THRESHOLD:
                sets.merge(first, second)
                links.append((first, second, common))
    return links


def jaccard(first: str, second: str) -> float:
    """Jaccard similarity of two texts' word bigrams."""
    one, other = set(_bigrams(first).tolist()), set(_bigrams(second).tolist())
    return len(one & other) / max(len(one | other), 1)


def _bigrams(text: str) -> npt.NDArray[np.uint64]:
    """A number for each word bigram (for the word, if there is only one)."""
    words = _WORD.findall(text.lower())
    numbers = np.fromiter((zlib.crc32(word.encode()) for word in words), np.uint64, len(words))
    return numbers if len(words) < 2 else (numbers[:-1] * _MULTIPLIER + numbers[1:]) * _MULTIPLIER >> np.uint64(32)


def _minima(texts: Sequence[str], on_progress: OnProgress | None) -> Iterator[npt.NDArray[np.uint32]]:
    """The minimum for each text [n] under each hash function [60], in chunks."""
    for start in range(0, len(texts), _CHUNK):
        bigrams = [_bigrams(text) for text in texts[start : start + _CHUNK]]
        bigrams = [found if len(found) else np.zeros(1, np.uint64) for found in bigrams]  # no words: nothing in common
        starts = np.cumsum([0, *map(len, bigrams[:-1])])
        every = np.concatenate(bigrams)
        least = np.empty((len(bigrams), _BANDS * _ROWS), np.uint32)
        for column, (factor, summand) in enumerate(zip(_FACTORS, _SUMMANDS, strict=True)):
            least[:, column] = np.minimum.reduceat((every * factor + summand) >> np.uint64(32), starts)
        yield least
        if on_progress is not None:
            on_progress(len(bigrams))


def _candidates(minima: npt.NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Candidate pairs: of the texts that share a band, each with the one before it and with the first."""
    found = []
    for band in range(_BANDS):
        key = np.zeros(len(minima), np.uint64)
        for column in range(band * _ROWS, (band + 1) * _ROWS):
            key = (key + minima[:, column]) * _MULTIPLIER
            key ^= key >> np.uint64(29)
        order = np.argsort(key, kind="stable")
        begins = np.flatnonzero(np.diff(key[order], prepend=key[order][:1] + np.uint64(1)) != 0)
        first = np.repeat(order[begins], np.diff(begins, append=len(order)))
        shared = first != order
        before = np.roll(order, 1)
        found += [np.stack([first, order])[:, shared], np.stack([before, order])[:, shared]]
    pairs = np.unique(np.concatenate(found, axis=1), axis=1)
    for start in range(0, pairs.shape[1], _CHUNK):
        first, second = pairs[:, start : start + _CHUNK]
        likely = (minima[first] == minima[second]).mean(axis=1) >= _LEAST_EQUAL
        yield from zip(first[likely].tolist(), second[likely].tolist(), strict=True)
