"""The label tree for a server that speaks in texts: which beginnings of an answer are asked what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass

from pld.adapters.students.engine.label_tree import Ids, with_end
from pld.adapters.students.openai_server import OpenAIServer
from pld.records import Message

_TURN = Message(role="user", content="a")


@dataclass(frozen=True)
class Place:
    """After `text` of the answer, one of the tokens `next` leads on to a label."""

    text: str
    next: Ids


@dataclass(frozen=True)
class LabelWalk:
    """`steps[label]` are the label's tokens as (place, token); `names` are what the server calls the tokens."""

    places: tuple[Place, ...]
    steps: tuple[tuple[tuple[int, int], ...], ...]
    names: dict[int, str]

    @classmethod
    def of(cls, labels: Sequence[str], server: OpenAIServer) -> "LabelWalk":
        """Raises StudentError for a label that can't be reached: the server must make the label's own tokens of every
        beginning of it, or what is asked there would belong to another text."""
        opening = server.chat_ids([_TURN], "answer")
        whole = [_answer_ids(server, opening, label) for label in labels]
        for label, ids in zip(labels, whole, strict=True):
            if not ids:
                _unreachable(server, label)
        closed = with_end(whole, -1)
        if closed != tuple(whole):
            closed = with_end(whole, _end_of_turn(server, labels[0], opening + whole[0]))
        texts = {(): ""} | dict(zip(whole, labels, strict=True))
        beginnings = sorted({ids[:end] for ids in closed for end in range(len(ids))})
        for label, ids in zip(labels, whole, strict=True):
            wanted = {ids[:end] for end in range(1, len(ids))} - set(texts)
            texts |= _texts_of(server, opening, label, wanted)
        number = {ids: at for at, ids in enumerate(beginnings)}
        places = tuple(
            Place(texts[start], tuple(sorted({ids[len(start)] for ids in closed if _continues(ids, start)})))
            for start in beginnings
        )
        tokens = sorted({token for place in places for token in place.next})
        return cls(
            places=places,
            steps=tuple(tuple((number[ids[:at]], token) for at, token in enumerate(ids)) for ids in closed),
            names=dict(zip(tokens, server.token_names(tokens), strict=True)),
        )


def _continues(ids: Ids, start: Ids) -> bool:
    return len(ids) > len(start) and ids[: len(start)] == start


def _answer_ids(server: OpenAIServer, opening: Ids, text: str) -> Ids:
    """The tokens of `text` as the beginning of an answer; none where it changes what stands before it."""
    ids = server.chat_ids([_TURN, Message(role="assistant", content=text)], "continued")
    return ids[len(opening) :] if ids[: len(opening)] == opening else ()


def _end_of_turn(server: OpenAIServer, label: str, before: Ids) -> int:
    ids = server.chat_ids([_TURN, Message(role="assistant", content=label), _TURN], "answer")
    if not _continues(ids, before):
        _unreachable(server, label)
    return ids[len(before)]


def _texts_of(server: OpenAIServer, opening: Ids, label: str, wanted: set[Ids]) -> dict[Ids, str]:
    """For each of the tokens `wanted` the beginning of `label` that the server makes them of."""
    found: dict[Ids, str] = {}
    for end in range(1, len(label)):
        if wanted <= set(found):
            break
        ids = _answer_ids(server, opening, label[:end])
        if ids in wanted:
            found.setdefault(ids, label[:end])
    if not wanted <= set(found):
        _unreachable(server, label)
    return found


def _unreachable(server: OpenAIServer, label: str) -> None:
    server.refuse(
        f"the tokens of the label {label!r} as an answer",
        "that the server makes other ones of its beginnings",
        "set student.choice=constrained, or name the label otherwise",
    )
