"""Interfaces of the four swappable roles: Teacher, Embedder, Clusterer and Student (`_target_` in conf/)."""

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
CONSOLIDATE = "consolidate"
"""The Teacher's role that writes instructions from rules, and a checklist from instructions."""
ONE_AT_A_TIME = ("resolve", "optimise")
"""Roles of the Teacher whose next question depends on the previous answer, so they can't be batched."""


@dataclass(frozen=True)
class TeacherRequest:
    """One structured question. `key` is unique in a batch (an example id, a cluster's key); `role` is extract |
    consolidate | resolve | optimise; `system` is the same for all requests of a role; `schema` is the JSON schema of
    the answer; each `draw` of the same question gets its own answer."""

    key: str
    role: str
    system: str
    prompt: str
    schema: Mapping[str, Any]
    draw: int = 0


@dataclass(frozen=True)
class TeacherAnswer:
    """`content` fits the request's schema, or is None with an `error` (`code: details`). `source`: who gave a recorded
    or imported answer, and when ("": this Teacher, when it was asked)."""

    key: str
    content: Mapping[str, Any] | None
    error: str | None = None
    recorded: bool = False
    usage: Mapping[str, int] = field(default_factory=dict)
    source: str = ""


class Teacher(Protocol):
    """A strong model that explains examples, merges rules and edits instructions."""

    name: str

    def ask(self, requests: Sequence[TeacherRequest]) -> Iterator[TeacherAnswer]:
        """Yield one answer per request, in any order, each stored durably before it is yielded.

        A request that can't be answered yields an answer with `error`; a Teacher that replays recordings skips what it
        has no recording of. Raises TeacherError only for systemic faults (no key, quota, unreachable), after every paid
        answer is stored.
        """
        ...


class Embedder(Protocol):
    def embed(self, texts: Sequence[str], on_progress: OnProgress | None = None) -> Vectors:
        """Embed `texts` [n] as float32 [n, d] with L2-normalized rows; a text that exceeds the window is embedded
        whole, by parts."""
        ...

    def exceed_window(self, texts: Sequence[str]) -> list[bool]:
        """For each of `texts` [n] whether it is longer than what the model reads at once."""
        ...


class Clusterer(Protocol):
    def cluster(self, vectors: Vectors) -> npt.NDArray[np.int64]:
        """Cluster L2-normalized `vectors` [n, d]; returns a cluster number 0…k-1 per row [n], or -1 for noise. Never
        raises for degenerate input (n of 1 or 2, equal rows): the result is all noise or one cluster."""
        ...


@dataclass(frozen=True)
class Generation:
    """Generated `text` without control tokens, its number of `tokens`, and whether it `finished` (False: cut off at the
    limit)."""

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

        `messages` is the shared prefix (system prompt, few-shot turns), `inputs` [n] the final user turns, `labels`
        [k]. Returns float64 [n, k]: the sum of each label's token log-probabilities. Rows longer than the context are
        NaN. Raises StudentError when the model can't be loaded.
        """
        ...

    def score_chats(
        self, chats: Sequence[Sequence[Message]], labels: Sequence[str], on_progress: OnProgress | None = None
    ) -> Scores:
        """`score` for chats [n] without a shared prefix; each ends in a user turn."""
        ...

    def generate(
        self, chats: Sequence[Sequence[Message]], max_tokens: int, on_progress: OnProgress | None = None
    ) -> list[Generation]:
        """Greedy generation for each chat [n], which ends in a user turn.

        A chat that leaves no room for `max_tokens` in the context gets an empty, unfinished text.
        """
        ...

    def prefill(self, messages: Sequence[Message]) -> None:
        """Drop all prefix caches, then compute that of `messages`."""
        ...

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of the rendered `messages`, chat markup included (0 for none)."""
        ...

    def count_text_tokens(self, text: str) -> int:
        """Tokens of plain text, without chat markup."""
        ...

    def label_tokens(self, labels: Sequence[str]) -> tuple[int, ...] | None:
        """The id of each label's token as an answer; None if a label isn't a token of its own, or ids are unknown."""
        ...

    def for_search(self) -> "Student":
        """The same model at the precision for searching (bf16 where the CPU supports it), or this one."""
        ...

    def describe(self) -> Mapping[str, str]:
        """What determines the scores: model, its hash where known, dtype, quantization, device."""
        ...
