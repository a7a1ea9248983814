"""The four roles that conf/ can swap (`_target_` inside `pld.adapters`), as contracts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pld.records import Message

Vectors = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]
OnProgress = Callable[[int], object]
"""Called with the number of items just finished."""


EXTRACT = "extract"
"""The Teacher's role that explains one example."""
ONE_AT_A_TIME = ("resolve", "optimise")
"""Roles of the Teacher whose next question hangs on the answer before: nothing to hand in together."""


@dataclass(frozen=True)
class TeacherRequest:
    """One structured question. `key` is unique in a batch (an example id, a cluster's key); `role` is
    extract | consolidate | resolve | optimise; `system` is the same for all requests of a role; `schema` is the JSON
    schema that the answer must fit; the same question is answered anew for every `draw`."""

    key: str
    role: str
    system: str
    prompt: str
    schema: Mapping[str, Any]
    draw: int = 0


@dataclass(frozen=True)
class TeacherAnswer:
    """`content` fits the request's schema, or is None and `error` says why (a short code, then words)."""

    key: str
    content: Mapping[str, Any] | None
    error: str | None = None
    recorded: bool = False
    usage: Mapping[str, int] = field(default_factory=dict)


class Teacher(Protocol):
    """A strong model that explains examples, merges rules and mends instructions."""

    name: str

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        """Yield one answer per request, in any order, each durable before it is yielded.

        A request that can't be answered yields an answer with `error`; a teacher that plays back recordings
        leaves out what it has no recording of. Raises TeacherError for systemic faults only (no key, quota,
        unreachable), after every answer that was paid for is safe.
        """
        ...


class Embedder(Protocol):
    def embed(self, texts: Sequence[str], on_progress: OnProgress | None = None) -> Vectors:
        """`texts` [n] → [n, d] float32, rows L2-normalised."""
        ...


class Clusterer(Protocol):
    def cluster(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        """`vectors` [n, d] L2-normalised → cluster number per row [n], 0…k-1, or -1 for noise. Never raises for
        degenerate input (n of 1 or 2, all rows alike): it answers all noise or one cluster."""
        ...


@dataclass(frozen=True)
class Generation:
    """What a Student wrote freely: `text` without control tokens, its `tokens`, and whether it `finished` its turn by
    itself (otherwise it was cut at the limit)."""

    text: str
    tokens: int
    finished: bool


class Student(Protocol):
    """A small model that classifies by the log-likelihood of each label after a chat prompt."""

    name: str

    def score(
        self,
        messages: Sequence[Message],
        inputs: Sequence[str],
        labels: Sequence[str],
        on_progress: OnProgress | None = None,
    ) -> Scores:
        """Log-likelihood of every label as the assistant's answer to each input.

        `messages` is the shared beginning (system prompt, few-shot turns), `inputs` [n] the final user turns,
        `labels` [k] → [n, k] float64: the sum of the label's token log-probabilities. A row that can't be
        scored (longer than the context) is NaN.
        Raises StudentError when the model can't be loaded.
        """
        ...

    def score_chats(
        self, chats: Sequence[Sequence[Message]], labels: Sequence[str], on_progress: OnProgress | None = None
    ) -> Scores:
        """`score` for chats [n] that have beginnings of their own; each ends in a user's turn."""
        ...

    def generate(
        self, chats: Sequence[Sequence[Message]], max_tokens: int, on_progress: OnProgress | None = None
    ) -> list[Generation]:
        """What the Student answers freely (greedy) to each chat [n], which ends in a user's turn.

        A chat that leaves no room for `max_tokens` in the context gets an empty text that is not finished.
        """
        ...

    def prefill(self, messages: Sequence[Message]) -> None:
        """Drop every held cache, then compute the one of `messages`."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered `messages`, chat markup included (0 for none)."""
        ...

    def count_text_tokens(self, text: str) -> int:
        """Tokens of bare text, without markup."""
        ...

    def for_search(self) -> "Student":
        """The same model at the precision for searching (bf16 where the CPU has it), or itself."""
        ...

    def describe(self) -> Mapping[str, str]:
        """What determines the scores: model, its hash where known, dtype, quantisation, device."""
        ...
