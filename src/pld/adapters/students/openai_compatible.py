"""A Student behind an OpenAI-compatible server: vLLM, SGLang or llama.cpp's, with their own prefix caches."""

import contextlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pld.adapters.students.openai_server import TooLongError
from pld.adapters.students.server_kinds import SERVERS, ServerKind
from pld.adapters.students.server_label_tree import ServerLabelTree
from pld.ports import Generation, OnProgress, Scores, Student
from pld.records import Message

Choice = Literal["logprobs", "constrained"]
Chat = tuple[Message, ...]
T = TypeVar("T")
R = TypeVar("R")
# servers report values like -9999 or -3.4e38 for a probability that underflows; float32 holds none below this logarithm
_LEAST = -103.0
_BIAS = 1000.0  # added to a token's logit, so that no other token is sampled


class _LogProb(NamedTuple):
    """A token's log-probability, or an upper bound on it."""

    value: float
    exact: bool


class OpenAICompatibleStudent:
    """`choice: logprobs` asks for the log-probabilities of the next token at every place where labels diverge: one
    request per place, which share their beginning and so the server's prefix cache. `choice: constrained` asks once,
    with constrained decoding to one of the labels.

    logprobs: a score is the model's own log-likelihood, summed over the label's tokens. A token outside the server's
    `top_logprobs` is requested separately where the server can (vLLM, llama.cpp). Elsewhere the list gives an upper
    bound, and a row whose best label depends on a bound is NaN, because its choice isn't proved.
    constrained: 0 for the answered label and -1 for every other: a ranking, no probabilities.

    Unlike in process, the server reads special tokens in an input as special tokens.
    """

    def __init__(
        self,
        *,
        name: str,
        server: ServerKind,
        base_url: str | None,
        model: str,
        api_key_variable: str,
        choice: Choice,
        top_logprobs: PositiveInt,
        max_concurrency: PositiveInt,
        max_retries: NonNegativeInt,
        timeout_s: PositiveFloat,
        extra_body: dict[str, Any],
    ) -> None:
        self.name = name
        self._choice: Choice = choice
        self._top_logprobs = top_logprobs
        self._max_concurrency = max_concurrency
        self._server = SERVERS[server](
            student=name,
            base_url=base_url,
            model=model,
            api_key_variable=api_key_variable,
            max_retries=max_retries,
            timeout_s=timeout_s,
            extra_body=extra_body,
        )
        self._trees: dict[tuple[str, ...], ServerLabelTree] = {}

    def score(
        self,
        messages: Sequence[Message],
        inputs: Sequence[str],
        labels: Sequence[str],
        on_progress: OnProgress | None = None,
    ) -> Scores:
        return self.score_chats([(*messages, _user(text)) for text in inputs], labels, on_progress)

    def score_chats(
        self, chats: Sequence[Sequence[Message]], labels: Sequence[str], on_progress: OnProgress | None = None
    ) -> Scores:
        scores = np.full((len(chats), len(labels)), np.nan)
        if not scores.size:
            return scores
        rows: dict[Chat, list[int]] = {}
        for at, chat in enumerate(chats):
            rows.setdefault(tuple(chat), []).append(at)
        score_row = self._by_logprobs if self._choice == "logprobs" else self._by_constraint
        advance = on_progress or (lambda _finished: None)
        for chat, row in self._concurrently(score_row(tuple(labels)), list(rows)):
            scores[rows[chat]] = row
            advance(len(rows[chat]))
        return scores

    def generate(
        self, chats: Sequence[Sequence[Message]], max_tokens: int, on_progress: OnProgress | None = None
    ) -> list[Generation]:
        advance = on_progress or (lambda _finished: None)
        answers = [Generation("", 0, False)] * len(chats)
        for at, answer in self._concurrently(lambda at: self._generated(chats[at], max_tokens), range(len(chats))):
            answers[at] = answer
            advance(1)
        return answers

    def prefill(self, messages: Sequence[Message]) -> None:
        """One request for which the server computes the whole prompt. One client can't empty a server's cache: vLLM and
        SGLang compute the prompt under a new salt, so the next requests compute it once more."""
        with contextlib.suppress(TooLongError):
            self._server.complete((*messages, _user("a")), **self._server.uncached())

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As the server counts; SGLang includes the assistant's header."""
        return self._server.count_chat(messages) if messages else 0

    def count_text_tokens(self, text: str) -> int:
        return self._server.count_text(text)

    def label_tokens(self, labels: Sequence[str]) -> None:  # noqa: ARG002
        return None  # the API doesn't say

    def for_search(self) -> Student:
        return self

    def describe(self) -> Mapping[str, str]:
        """Without the address: it doesn't determine scores, and should not be published."""
        choice = f"logprobs, top {self._top_logprobs}" if self._choice == "logprobs" else self._choice
        return {"model": self._server.model, "sha256": "unknown", "server": self._server.kind, "choice": choice}

    def _by_logprobs(self, labels: tuple[str, ...]) -> Callable[[Chat], Scores]:
        if labels not in self._trees:
            self._trees[labels] = ServerLabelTree.of(labels, self._server)
        tree = self._trees[labels]

        def score(chat: Chat) -> Scores:
            """[k]. Sequential requests: the first leaves the chat in the server's prefix cache."""
            try:
                found = [self._next_tokens(chat, tree, place) for place in range(len(tree.texts))]
            except TooLongError:
                return np.full(len(labels), np.nan)
            steps = [[found[place][token] for place, token in one] for one in tree.tree.steps]
            row = np.array([sum(step.value for step in one) for one in steps])
            exact = [all(step.exact for step in one) for one in steps]
            if not all(exact):
                self._warn_of_bounds()
            return row if exact[int(row.argmax())] else np.full(len(row), np.nan)

        return score

    def _next_tokens(self, chat: Chat, tree: ServerLabelTree, place: int) -> dict[int, _LogProb]:
        """The log-probabilities of the tokens that continue a label at the place. Raises TooLongError."""
        server, text, tokens = self._server, tree.texts[place], tree.next[place]
        fields = {server.token_ids_field: list(tokens)} if server.token_ids_field else {}
        entry = self._first_token(chat, text, self._top_logprobs, fields)
        listed = {server.token_name(item): item.logprob for item in (*entry.top_logprobs, entry)}
        found: dict[int, _LogProb] = {}
        for token in tokens:
            name = tree.names[token]
            if name in listed:
                found[token] = _measured(listed[name])
            elif server.unbiased_logprobs:
                found[token] = self._forced(chat, text, token, name)
            else:
                found[token] = self._bound(entry)
        return found

    def _forced(self, chat: Chat, answer: str, token: int, name: str) -> _LogProb:
        """The token's own log-probability, from a request in which only this token can be sampled."""
        entry = self._first_token(chat, answer, 1, {"logit_bias": {str(token): _BIAS}})
        if self._server.token_name(entry) != name:
            self._server.refuse(f"the token {name} because of logit_bias", f"{entry.token!r}", "check student.server")
        return _measured(entry.logprob)

    def _bound(self, entry: Any) -> _LogProb:
        """An upper bound for a token outside the list: the last listed probability, and what the list leaves of 1."""
        listed: list[float] = [item.logprob for item in entry.top_logprobs]
        if len(listed) < self._top_logprobs:
            got = f"{len(listed)}, without some label's token"
            self._server.refuse(f"{self._top_logprobs} top_logprobs", got, "lower student.top_logprobs to that number")
        left = 1.0 - math.fsum(math.exp(value) for value in listed)
        return _LogProb(max(_LEAST, min([*listed, math.log(left) if left > 0 else math.inf])), exact=False)

    def _first_token(self, chat: Chat, answer: str, count: int, fields: Mapping[str, Any]) -> Any:
        """The server's `logprobs` entry of the first token after the beginning of an answer."""
        completion = self._server.complete(chat, answer=answer, top_logprobs=count, **fields)
        logprobs = completion.choices[0].logprobs
        if logprobs is None or not logprobs.content or logprobs.content[0].top_logprobs is None:
            self._server.refuse("log-probabilities", "none", "set student.choice=constrained")
        return logprobs.content[0]

    def _by_constraint(self, labels: tuple[str, ...]) -> Callable[[Chat], Scores]:
        constraint = self._server.constrained(labels)
        # a token has at least one byte, and one more token ends the answer
        longest = 1 + max(len(label.encode()) for label in labels)

        def score(chat: Chat) -> Scores:
            """[k]."""
            try:
                completion = self._server.complete(chat, max_tokens=longest, **constraint)
            except TooLongError:
                return np.full(len(labels), np.nan)
            answer = (completion.choices[0].message.content or "").strip()
            if answer not in labels:
                got = f"{answer!r:.80}, against the constraint"
                self._server.refuse(f"one of {', '.join(labels)}", got, "check student.server")
            return np.array([0.0 if label == answer else -1.0 for label in labels])

        return score

    def _generated(self, chat: Sequence[Message], max_tokens: int) -> Generation:
        no_room = Generation("", 0, False)
        try:
            completion = self._server.complete(tuple(chat), max_tokens=max_tokens)
        except TooLongError:
            return no_room
        usage, context = completion.usage, self._server.context
        if usage is None:
            self._server.refuse("token usage in the answer", "none", "check student.server")
        if context is not None and usage.prompt_tokens + max_tokens > context:
            return no_room
        choice = completion.choices[0]
        finished = choice.finish_reason == "stop"
        # the server also counts the token that ends the turn
        return Generation(choice.message.content or "", usage.completion_tokens - finished, finished)

    def _concurrently(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Each item with its result as they finish, `max_concurrency` at a time. The first error cancels what waits."""
        if not items:
            return
        self._server.connect()
        pool = ThreadPoolExecutor(self._max_concurrency, thread_name_prefix="student")
        try:
            futures = {pool.submit(work, item): item for item in items}
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _warn_of_bounds(self) -> None:
        warnings.warn(  # which Python prints once
            f"expected all label tokens among the top {self._top_logprobs}, got fewer (student {self.name}); raise "
            "student.top_logprobs: now such scores are upper bounds, and rows whose best label depends on one count as "
            "unparsable",
            stacklevel=2,
        )


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _measured(logprob: float) -> _LogProb:
    return _LogProb(max(float(logprob), _LEAST), exact=logprob > _LEAST)
