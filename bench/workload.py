"""Seeded synthetic work: a long list of rules as the system prompt, short sentences as inputs."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Ids = tuple[int, ...]

# kinds of labels: one token each, or several tokens that share a prefix
LABELS = {
    "4 of one token": ("A", "B", "C", "D"),
    "3 of several": ("partly supported", "partly refuted", "not mentioned"),
}


def _of(text: str) -> list[str]:
    return [part.strip() for part in text.split("|")]


_WHEN = _of("""Yesterday | Last winter | On Monday | After lunch | Before dawn | In early spring | At the harbour |
    During the storm | Once again | Near the old mill | Without a word | For three weeks | Late at night |
    Against all advice | By mistake | Two hours later""")
_KIND = _of("""careful | tired | cheerful | stubborn | young | retired | famous | shy | hungry | polite | reckless |
    patient | clumsy | wealthy""")
_WHO = _of("""gardener | pilot | baker | surveyor | violinist | plumber | archivist | fisherman | tailor | geologist |
    nurse | referee | carpenter | librarian | astronomer | locksmith | beekeeper | translator | potter | conductor""")
_DID = _of("""returned | repaired | forgot | painted | measured | sold | borrowed | described | weighed | dropped |
    polished | collected | mislaid | examined | wrapped | lent""")
_WHAT = _of("""lantern | kettle | map | violin | bicycle | ladder | carpet | telescope | basket | mirror | compass |
    umbrella | clock | suitcase | boat | camera | saddle | notebook | teapot | rope""")
_WHERE = _of("""market | station | museum | workshop | lighthouse | orchard | library | bakery | quarry | stadium |
    chapel | ferry | theatre | courtyard""")
_WHY = _of("""the invoice came late | nobody had asked | the roof was leaking | the weather had changed |
    a neighbour complained | the lock was broken | the price had doubled | the key was missing | the train was early |
    the lights went out | the guests had left | the paint was still wet | the deadline had passed |
    the road was closed""")
_MENTIONS = _of("mentions | hints at | denies | only supposes | repeats | ends with | opens with | compares")


@dataclass(frozen=True)
class Item:
    """One input: its text, and the tokens of the whole prompt."""

    text: str
    ids: Ids


@dataclass(frozen=True)
class Job:
    """A system prompt, labels, and the prompts' shared prefix in tokens. `kind`: a key of LABELS."""

    kind: str
    system: str
    labels: tuple[str, ...]
    label_ids: tuple[Ids, ...]
    prefix: Ids

    @property
    def rows_per_label(self) -> bool:
        """Whether labels have several tokens, so that each needs its own row."""
        return any(len(ids) > 1 for ids in self.label_ids)


def sentences(seed: int) -> Iterator[str]:
    """An endless stream of distinct sentences."""
    choose = random.Random(seed).choice
    seen: set[str] = set()
    while True:
        sentence = (
            f"{choose(_WHEN)} the {choose(_KIND)} {choose(_WHO)} {choose(_DID)} the {choose(_WHAT)} at the "
            f"{choose(_WHERE)} because {choose(_WHY)}.\nWhich label fits?"
        )
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


def system_prompt(tokens: int, count: Callable[[str], int], labels: Sequence[str], seed: int) -> str:
    """Rules of `tokens` tokens together, the last one cut short."""
    draw = random.Random(seed)
    text = f"Label the sentence with one of: {', '.join(labels)}. Answer with the label only. Follow these rules."
    number = 0
    while count(text) < tokens:
        number += 1
        text += (
            f"\n{number}. If the sentence {draw.choice(_MENTIONS)} a {draw.choice(_KIND)} {draw.choice(_WHO)} or the "
            f"{draw.choice(_WHAT)} at the {draw.choice(_WHERE)}, and {draw.choice(_WHY)}, answer {draw.choice(labels)}."
        )
    words = text.split(" ")
    while count(" ".join(words)) > tokens:
        words.pop()
    return " ".join(words)


class Builder:
    """Makes jobs and items with the tokenizer of one Student; chats are rendered by the tokenizer's own template."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def job(self, kind: str, tokens: int, seed: int) -> Job:
        """A job whose shared beginning has about `tokens` tokens, chat markup included."""
        labels = LABELS[kind]
        markup = len(self._ids("", "", "")) // 2
        system = system_prompt(tokens - markup, lambda text: len(self._encode(text)), labels, seed)
        one, other = self._ids(system, "a", ""), self._ids(system, "0", "")
        label_ids = tuple(self._ids(system, "a", label)[len(one) :] for label in labels)
        prefix = one[: next(at for at, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)]
        return Job(kind=kind, system=system, labels=labels, label_ids=label_ids, prefix=prefix)

    def items(self, job: Job, texts: Sequence[str]) -> list[Item]:
        items = [Item(text, self._ids(job.system, text, "")) for text in texts]
        if any(item.ids[: len(job.prefix)] != job.prefix for item in items):
            raise ValueError(
                "expected prompts with a shared prefix, got a tokenizer that merges text across the chat markup; "
                "choose another student"
            )
        return items

    def _ids(self, system: str, text: str, answer: str) -> Ids:
        turns = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        return self._encode(
            self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) + answer
        )

    def _encode(self, text: str) -> Ids:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)


@dataclass(frozen=True)
class Work:
    """The least work to score some items, each token after the prefix computed once: `tokens` through the decoder,
    query-key `pairs`, `rows` through the LM head."""

    tokens: int
    pairs: int
    rows: int

    @classmethod
    def of(cls, job: Job, items: Sequence[Item]) -> "Work":
        label_nodes = {label[:end] for label in job.label_ids for end in range(1, len(label))}
        start = len(job.prefix)
        nodes = {item.ids[start:end] for item in items for end in range(start + 1, len(item.ids) + 1)}
        depths = [start + len(node) for node in nodes]
        depths += [len(item.ids) + len(node) for item in items for node in label_nodes]
        return cls(tokens=len(depths), pairs=sum(depths), rows=len(items) * (1 + len(label_nodes)))
