"""Choose the passages of a long text that are shown, in the text's order, with a mark where something is left out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""Start and end of a passage in its text, in characters; passages don't overlap."""

GAP = "\n[...]\n"


@dataclass(frozen=True)
class Shown:
    """`places` of the passages shown, ascending; `cut`: some chosen ones did not fit."""

    text: str
    places: tuple[int, ...]
    cut: bool


def nearness_in(text: str, spans: Sequence[Span]) -> Callable[[str], list[float]]:
    """A question → its similarity to each passage [spans]: the cosine of TF-IDF over character 3- to 5-grams, so that
    "disclose" is close to "disclosure". Fitted on this text alone, so other texts don't change the choice."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    passages = vectorizer.fit_transform(text[start:end] for start, end in spans)

    def near(question: str) -> list[float]:
        cosines = (passages @ vectorizer.transform([question]).T).toarray()[:, 0]
        return [round(float(cosine), 9) for cosine in cosines]  # the last bits may differ between machines

    return near


def nearest_first(near: Sequence[float], first: Sequence[int] = ()) -> list[int]:
    """Places of all passages: those of `first` before the others, each by descending similarity, ties by place."""
    preferred = set(first)
    return sorted(range(len(near)), key=lambda place: (place not in preferred, -near[place], place))


def show(text: str, spans: Sequence[Span], chosen: Sequence[int], max_words: int | None) -> Shown:
    """Take the passages of `text` in the order of `chosen`, skipping those that don't fit in `max_words` (None: no
    limit). If none fits: the beginning of the first.

    They are shown in the text's order, with `GAP` between those that are not neighbours.
    """
    kept: list[int] = []
    room = max_words
    for place in chosen:
        words = len(_passage(text, spans[place]).split())
        if room is None or words <= room:
            kept.append(place)
            room = None if room is None else room - words
    if not kept:
        return Shown(_beginning(_passage(text, spans[chosen[0]]), max_words or 0), (chosen[0],), cut=True)
    kept.sort()
    runs = [spans[kept[0]]]
    for place in kept[1:]:
        start, end = spans[place]
        if text[runs[-1][1] : start].strip():
            runs.append((start, end))
        else:
            runs[-1] = (runs[-1][0], end)
    return Shown(GAP.join(_passage(text, run).strip() for run in runs), tuple(kept), cut=len(kept) < len(chosen))


def _passage(text: str, span: Span) -> str:
    return text[span[0] : span[1]]


def _beginning(passage: str, words: int) -> str:
    """The first `words` words and the space between them."""
    found = re.match(rf"(?:\s*\S+){{0,{words}}}", passage)
    return found[0].strip() if found else ""
