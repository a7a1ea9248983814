"""What of a long text is shown: which of its passages, in its own order, with a mark where something is left out."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Span = tuple[int, int]
"""Where a passage begins and ends in its text, in characters; each begins where the one before it ends, or later."""

GAP = "\n[...]\n"


@dataclass(frozen=True)
class Shown:
    """`places` of the passages shown, ascending; `cut`: not all that was wanted had room."""

    text: str
    places: tuple[int, ...]
    cut: bool


def nearness_in(text: str, spans: Sequence[Span]) -> Callable[[str], list[float]]:
    """A question → how near each passage is [spans]: the cosine of TF-IDF over characters in threes to fives, to which
    "disclose" and "disclosure" are alike. It knows this text alone: no other one moves what is shown of it."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True)
    passages = vectorizer.fit_transform(text[start:end] for start, end in spans)

    def near(question: str) -> list[float]:
        cosines = (passages @ vectorizer.transform([question]).T).toarray()[:, 0]
        return [round(float(cosine), 9) for cosine in cosines]  # the last bits may differ between machines

    return near


def nearest_first(near: Sequence[float], first: Sequence[int] = ()) -> list[int]:
    """Places of all passages: those of `first` before the others, the nearer before the farther, ties by place."""
    preferred = set(first)
    return sorted(range(len(near)), key=lambda place: (place not in preferred, -near[place], place))


def show(text: str, spans: Sequence[Span], wanted: Sequence[int], max_words: int | None) -> Shown:
    """The passages of `text` at the places `wanted`, the first of them first, while there is room for a whole one in
    `max_words` (None: no limit); a longer one is passed over. Where none has room: the beginning of the first.

    They stand in the text's order: neighbours as they stand there, others with `GAP` between them.
    """
    kept: list[int] = []
    room = max_words
    for place in wanted:
        words = len(_passage(text, spans[place]).split())
        if room is None or words <= room:
            kept.append(place)
            room = None if room is None else room - words
    if not kept:
        return Shown(_beginning(_passage(text, spans[wanted[0]]), max_words or 0), (wanted[0],), cut=True)
    kept.sort()
    runs = [spans[kept[0]]]
    for place in kept[1:]:
        start, end = spans[place]
        if text[runs[-1][1] : start].strip():
            runs.append((start, end))
        else:
            runs[-1] = (runs[-1][0], end)
    return Shown(GAP.join(_passage(text, run).strip() for run in runs), tuple(kept), cut=len(kept) < len(wanted))


def _passage(text: str, span: Span) -> str:
    return text[span[0] : span[1]]


def _beginning(passage: str, words: int) -> str:
    """The first `words` words, with what stands between them."""
    found = re.match(rf"(?:\s*\S+){{0,{words}}}", passage)
    return found[0].strip() if found else ""
