"""The label tree for a server whose API takes text: which beginnings of an answer to ask for the next token."""

from collections.abc import Sequence
from dataclasses import dataclass

from pld.adapters.students.engine.label_tree import Ids, LabelTree, with_end
from pld.adapters.students.openai_server import OpenAIServer
from pld.records import Message

_TURN = Message(role="user", content="a")


@dataclass(frozen=True)
class ServerLabelTree:
    """`texts`: the beginning of an answer at each place of `tree`; `next`: the tokens that lead on from there to a
    label; `names`: the server's names of those tokens."""

    tree: LabelTree
    texts: tuple[str, ...]
    next: tuple[Ids, ...]
    names: dict[int, str]

    @classmethod
    def of(cls, labels: Sequence[str], server: OpenAIServer) -> "ServerLabelTree":
        """Raises StudentError for a label of which the server splits some beginning into other tokens than the label:
        a request for that beginning would be about another text."""
        opening = server.chat_ids([_TURN], "answer")
        whole = [_answer_ids(server, opening, label) for label in labels]
        for label, ids in zip(labels, whole, strict=True):
            if not ids:
                _unreachable(server, label)
        closed = with_end(whole, -1)
        if closed != tuple(whole):
            turns = [_TURN, Message(role="assistant", content=labels[0]), _TURN]
            ids, start = server.chat_ids(turns, "answer"), len(opening) + len(whole[0])
            if len(ids) <= start or ids[:start] != opening + whole[0]:
                _unreachable(server, labels[0])
            closed = with_end(whole, ids[start])
        texts = {(): ""} | dict(zip(whole, labels, strict=True))
        for label, ids in zip(labels, whole, strict=True):
            missing = {ids[:end] for end in range(1, len(ids))} - set(texts)
            for end in range(1, len(label)):
                if not missing:
                    break
                beginning = _answer_ids(server, opening, label[:end])
                if beginning in missing:
                    texts[beginning] = label[:end]
                    missing.remove(beginning)
            if missing:
                _unreachable(server, label)
        tree = LabelTree.of(closed)
        # sorted as the tree numbers its places
        places = sorted({ids[:end] for ids in closed for end in range(len(ids))})
        following: list[set[int]] = [set() for _ in places]
        for steps in tree.steps:
            for place, token in steps:
                following[place].add(token)
        tokens = sorted(set().union(*following))
        return cls(
            tree=tree,
            texts=tuple(texts[place] for place in places),
            next=tuple(tuple(sorted(one)) for one in following),
            names=dict(zip(tokens, server.token_names(tokens), strict=True)),
        )


def _answer_ids(server: OpenAIServer, opening: Ids, text: str) -> Ids:
    """The tokens of `text` as the beginning of an answer; none where it changes the tokens before it."""
    ids = server.chat_ids([_TURN, Message(role="assistant", content=text)], "continued")
    return ids[len(opening) :] if ids[: len(opening)] == opening else ()


def _unreachable(server: OpenAIServer, label: str) -> None:
    server.refuse(
        f"the label {label!r} to extend the tokens of its own beginnings",
        "other tokens",
        "set student.choice=constrained, or rename the label",
    )
