"""Which served inputs a person should label next: those whose answer was a close call."""

from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest

from pld.records import ServedAnswer
from pld.serving.drift import check_labels, margin_of, one_each, time_of


def candidates(
    served: Sequence[ServedAnswer], labels: Sequence[str], known: Collection[str]
) -> tuple[list[ServedAnswer], int]:
    """The last answer to each input that is not `known` (input ids), and how many lines of other prompts were left out.

    Only the prompt that answered last counts: margins of two prompts can't be compared. Raises DataError for answers
    that no version with these `labels` gave.
    """
    if not served:
        return [], 0
    last = max(served, key=lambda answer: (time_of(answer), answer.prompt_sha256)).prompt_sha256
    own = [answer for answer in served if answer.prompt_sha256 == last]
    check_labels(own, labels)
    found = [answers[0] for identity, answers in one_each(own).items() if identity not in known]
    return found, len(served) - len(own)


def least_certain(
    answers: Iterable[ServedAnswer], labels: Sequence[str], count: int, per_label: bool
) -> list[ServedAnswer]:
    """At most `count`: inputs without an answer first, then the smallest margin (ties by id); `per_label`: as many of
    each answered label as there are, in turn."""
    ordered = sorted(answers, key=lambda answer: (*_certainty(answer), answer.id))
    if not per_label:
        return ordered[:count]
    columns = [[answer for answer in ordered if answer.label == label] for label in (None, *labels)]
    in_turn = [answer for row in zip_longest(*columns) for answer in row if answer is not None]
    return in_turn[:count]


def _certainty(answer: ServedAnswer) -> tuple[bool, float]:
    return (False, 0.0) if answer.label is None else (True, margin_of(answer.scores))
