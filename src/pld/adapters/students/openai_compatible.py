"""A Student behind an OpenAI-compatible server: vLLM, SGLang or llama.cpp's, with their own prefix caches."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from pld.adapters.students.label_walk import LabelWalk, Place
from pld.adapters.students.openai_server import OpenAIServer, TooLongError
from pld.adapters.students.server_dialects import ServerKind
from pld.ports import Generation, OnProgress, Scores, Student
from pld.records import Message

Choice = Literal["logprobs", "constrained"]
Chat = tuple[Message, ...]
T = TypeVar("T")
R = TypeVar("R")
# what a server reports for a probability that float32 holds as 0 (-9999, -3.4e38) is no measurement; below this
# logarithm float32 holds none
_LEAST = -103.0
_BIAS = 1000.0  # so much more likely that the server samples no other token
# requests handed to the threads ahead of time, per thread
_AHEAD = 4


@dataclass(frozen=True)
class _LogProb:
    """Of a token; not `exact`: it is at most this."""

    value: float
    exact: bool


class OpenAICompatibleStudent:
    """`choice: logprobs` asks for the log-probabilities of the next token at every place where labels part (one
    request per place, all with the same beginning: what the server's prefix cache is for); `choice: constrained` asks
    once, for an answer that the server's constrained decoding holds to the labels.

    logprobs: scores are the model's own, summed over the label's tokens. A token that is not among the server's
    `top_logprobs` is asked for by itself where the dialect can (vLLM, llama.cpp); else its score is the upper bound
    that the list gives, and a row whose best label rests on a bound is NaN: its choice is not proved.
    constrained: 0 for the answered label and -1 for every other one: an order, no probabilities.

    Unlike in process, the server reads control tokens in an input as control tokens.
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
        self._kind = server
        self._model = model
        self._choice: Choice = choice
        self._top_logprobs = top_logprobs
        self._max_concurrency = max_concurrency
        self._server = OpenAIServer(
            student=name,
            kind=server,
            base_url=base_url,
            model=model,
            api_key_variable=api_key_variable,
            max_retries=max_retries,
            timeout_s=timeout_s,
            extra_body=extra_body,
        )
        self._walks: dict[tuple[str, ...], LabelWalk] = {}
        self._warned = False

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
        answer = self._walked if self._choice == "logprobs" else self._constrained
        advance = on_progress or (lambda _finished: None)
        for chat, row in answer(list(rows), tuple(labels)):
            scores[rows[chat]] = row
            advance(len(rows[chat]))
        return scores

    def generate(
        self, chats: Sequence[Sequence[Message]], max_tokens: int, on_progress: OnProgress | None = None
    ) -> list[Generation]:
        answers: dict[int, Generation] = {}
        for at, answer in self._concurrently(lambda at: self._generated(chats[at], max_tokens), range(len(chats))):
            answers[at] = answer
            if on_progress is not None:
                on_progress(1)
        return [answers[at] for at in range(len(chats))]

    def prefill(self, messages: Sequence[Message]) -> None:
        """One request for which the server computes the whole prompt. A server's cache can't be emptied for one
        client: vLLM and SGLang compute it under a salt, so the requests that follow fill the cache once more."""
        try:
            self._server.complete((*messages, _user("a")), **self._server.dialect.uncached())
        except TooLongError:
            return

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """As the server counts; SGLang's includes the opening of the assistant's turn."""
        return self._server.count_chat(messages) if messages else 0

    def count_text_tokens(self, text: str) -> int:
        return self._server.count_text(text)

    def for_search(self) -> Student:
        return self

    def describe(self) -> Mapping[str, str]:
        """No address: where a replica stands does not determine scores, and is nobody else's business."""
        choice = f"logprobs, top {self._top_logprobs}" if self._choice == "logprobs" else self._choice
        return {"model": self._model, "sha256": "unknown", "server": self._kind, "choice": choice}

    def _walked(self, chats: Sequence[Chat], labels: tuple[str, ...]) -> Iterator[tuple[Chat, Scores]]:
        if labels not in self._walks:
            self._walks[labels] = LabelWalk.of(labels, self._server)
        walk = self._walks[labels]
        yield from self._concurrently(lambda chat: self._row(chat, walk), chats)

    def _row(self, chat: Chat, walk: LabelWalk) -> Scores:
        """[k]. One place after the other: the first request leaves the chat's own text in the server's cache."""
        try:
            found = [self._next_tokens(chat, walk, place) for place in walk.places]
        except TooLongError:
            return np.full(len(walk.steps), np.nan)
        row = np.array([sum(found[place][token].value for place, token in steps) for steps in walk.steps])
        exact = [all(found[place][token].exact for place, token in steps) for steps in walk.steps]
        if not all(exact):
            self._warn_of_bounds()
        return row if exact[int(row.argmax())] else np.full(len(row), np.nan)

    def _next_tokens(self, chat: Chat, walk: LabelWalk, place: Place) -> dict[int, _LogProb]:
        """What each of the place's tokens has. Raises TooLongError."""
        dialect, names = self._server.dialect, walk.names
        asked = {dialect.asks_for: list(place.next)} if dialect.asks_for else {}
        entry = self._first_token(chat, place.text, self._top_logprobs, asked)
        listed = {dialect.token_name(item): item.logprob for item in (*entry.top_logprobs, entry)}
        found: dict[int, _LogProb] = {}
        for token in place.next:
            if names[token] in listed:
                found[token] = _measured(listed[names[token]])
            elif dialect.reports_unbiased:
                found[token] = self._forced(chat, place.text, token, names[token])
            else:
                found[token] = self._bound(entry)
        return found

    def _forced(self, chat: Chat, answer: str, token: int, name: str) -> _LogProb:
        """The token's own log-probability, from a request in which it is the only one that can be sampled."""
        entry = self._first_token(chat, answer, 1, {"logit_bias": {str(token): _BIAS}})
        if self._server.dialect.token_name(entry) != name:
            self._server.refuse(f"the token {name}, by logit_bias", f"{entry.token!r}", "check student.server")
        return _measured(entry.logprob)

    def _bound(self, entry: Any) -> _LogProb:
        """The most that a token outside of the listed ones can have: no more than the last of them, and no more than
        they leave."""
        listed: list[float] = [item.logprob for item in entry.top_logprobs]
        if len(listed) < self._top_logprobs:
            found = f"{len(listed)}, without all that was expected"
            self._server.refuse(f"{self._top_logprobs} top_logprobs", found, "lower student.top_logprobs to that")
        left = 1.0 - math.fsum(math.exp(value) for value in listed)
        return _LogProb(max(_LEAST, min([*listed, math.log(left) if left > 0 else math.inf])), exact=False)

    def _first_token(self, chat: Chat, answer: str, count: int, more: Mapping[str, Any]) -> Any:
        """What the server says of the next token after the beginning of an answer."""
        completion = self._server.complete(chat, answer=answer, top_logprobs=count, **more)
        logprobs = completion.choices[0].logprobs
        if logprobs is None or not logprobs.content or logprobs.content[0].top_logprobs is None:
            self._server.refuse("log-probabilities", "none", "set student.choice=constrained")
        return logprobs.content[0]

    def _constrained(self, chats: Sequence[Chat], labels: tuple[str, ...]) -> Iterator[tuple[Chat, Scores]]:
        constraint = self._server.dialect.constrained(labels)
        # a token is at least one byte, and one more ends the answer
        longest = 1 + max(len(label.encode()) for label in labels)

        def ask(chat: Chat) -> Scores:
            try:
                completion = self._server.complete(chat, max_tokens=longest, **constraint)
            except TooLongError:
                return np.full(len(labels), np.nan)
            answer = (completion.choices[0].message.content or "").strip()
            if answer not in labels:
                found = f"{answer!r:.80}: the constraint was not obeyed"
                self._server.refuse(f"one of {', '.join(labels)}", found, "check student.server")
            return np.array([0.0 if label == answer else -1.0 for label in labels])

        yield from self._concurrently(ask, chats)

    def _generated(self, chat: Sequence[Message], max_tokens: int) -> Generation:
        nothing = Generation("", 0, False)
        try:
            completion = self._server.complete(tuple(chat), max_tokens=max_tokens)
        except TooLongError:
            return nothing
        usage, context = completion.usage, self._server.context
        if usage is None:
            self._server.refuse("usage with the answer", "none", "check student.server")
        if context is not None and usage.prompt_tokens + max_tokens > context:
            return nothing
        choice = completion.choices[0]
        finished = choice.finish_reason == "stop"
        # the token that ends the turn is counted by the server
        return Generation(choice.message.content or "", usage.completion_tokens - finished, finished)

    def _concurrently(self, work: Callable[[T], R], items: Sequence[T]) -> Iterator[tuple[T, R]]:
        """Each item with its result as they come, `max_concurrency` at a time. The first fault ends it: what waits is
        dropped, what is under way is awaited."""
        if not items:
            return
        self._server.connect()
        pool = ThreadPoolExecutor(self._max_concurrency, thread_name_prefix="student")
        running: dict[Future[R], T] = {}
        try:
            for item in items:
                running[pool.submit(work, item)] = item
                if len(running) >= _AHEAD * self._max_concurrency:
                    yield from _finished(running)
            while running:
                yield from _finished(running)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _warn_of_bounds(self) -> None:
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"student {self.name}: some labels' tokens are not among the server's top {self._top_logprobs}: their "
                "scores are upper bounds, and a row whose best label rests on one counts as unparsable; "
                "raise student.top_logprobs",
                stacklevel=2,
            )


def _finished(running: dict[Future[R], T]) -> list[tuple[T, R]]:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    return [(running.pop(future), future.result()) for future in done]


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _measured(logprob: float) -> _LogProb:
    return _LogProb(max(float(logprob), _LEAST), exact=logprob > _LEAST)
