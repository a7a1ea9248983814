"""A Student that transformers runs: labels are scored by their log-likelihood."""

import itertools
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pld.adapters.students.engine.chat import Chat, Prompt
from pld.adapters.students.engine.generation import continue_greedily
from pld.adapters.students.engine.label_tree import Ids, common_length, with_end
from pld.adapters.students.engine.machine import choose_device, has_bfloat16
from pld.adapters.students.engine.plain_scorer import PlainScorer
from pld.adapters.students.engine.stopwatch import Stopwatch
from pld.adapters.students.engine.token_trie import WORTH_A_BRANCH
from pld.adapters.students.engine.trie_scorer import Scorer, UnsupportedArchitectureError
from pld.adapters.students.engine.weights import Quantization, Source, load_model, load_tokenizer, locate
from pld.ports import Generation, OnProgress, Scores, Student
from pld.records import Message

Dtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]


class TransformersStudent:
    """`model` is `asset:<name>`, a local folder or a Hugging Face id, with `gguf_file` a GGUF file in it.

    `dtype` is that of reported scores, `search_dtype` that of `for_search()`. `pack_tokens`: tokens of one forward,
    None for what the machine bears; `batch_size`: chats that are generated together. Loaded on first use.
    The same calls in the same order give the same bits in every process of one machine, in float32 in any order.
    """

    def __init__(
        self,
        *,
        name: str,
        model: str,
        gguf_file: str | None,
        dtype: Dtype,
        search_dtype: Dtype,
        quantization: Quantization,
        device: Device,
        pack_tokens: Annotated[int, Field(gt=0)] | None,
        batch_size: Annotated[int, Field(gt=0)],
    ) -> None:
        self.name = name
        self._model = model
        self._gguf_file = gguf_file
        self._dtype: Dtype = dtype
        self._search_dtype: Dtype = search_dtype
        self._quantization: Quantization = quantization
        self._device: Device = device
        self._pack_tokens = pack_tokens
        self._batch_size = batch_size
        self._watch = Stopwatch()
        # a server's threads share one Student: its held prefixes, and torch's number of threads
        self._alone = threading.RLock()
        self._source: Source | None = None
        self._chat: Chat | None = None
        self._model_loaded: Any = None
        self._scorer: Scorer | PlainScorer | None = None
        self._for_search: Student | None = None

    def score(
        self,
        messages: Sequence[Message],
        inputs: Sequence[str],
        labels: Sequence[str],
        on_progress: OnProgress | None = None,
    ) -> Scores:
        with self._alone:
            return self._score([(messages, inputs)], labels, on_progress)

    def score_chats(
        self, chats: Sequence[Sequence[Message]], labels: Sequence[str], on_progress: OnProgress | None = None
    ) -> Scores:
        with self._alone:
            return self._score(_by_beginning(chats), labels, on_progress)

    def generate(
        self, chats: Sequence[Sequence[Message]], max_tokens: int, on_progress: OnProgress | None = None
    ) -> list[Generation]:
        with self._alone:
            return self._generate(chats, max_tokens, on_progress or (lambda _finished: None))

    def prefill(self, messages: Sequence[Message]) -> None:
        with self._alone:
            scorer = self._ready_scorer()
            scorer.forget()
            ids = self._ready_chat().shared_ids(messages)[: scorer.context]
            with self._watch.measure("prefill"):
                scorer.prefill(ids)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self._ready_chat().count(messages)

    def count_text_tokens(self, text: str) -> int:
        return self._ready_chat().count_text(text)

    def for_search(self) -> Student:
        if self._for_search is None:
            dtype = self._search_dtype
            if dtype == "auto":
                dtype = "bfloat16" if has_bfloat16(choose_device(self._device)) else "float32"
            same = dtype == self._dtype or (self._dtype == "auto" and self.describe()["dtype"] == dtype)
            self._for_search = self if same else self._at(dtype)
        return self._for_search

    def describe(self) -> Mapping[str, str]:
        import torch
        import transformers

        source = self._located()
        return {
            "model": self._model if self._gguf_file is None else f"{self._model}/{self._gguf_file}",
            "sha256": source.sha256 or "unknown",
            "dtype": self._ready_scorer().dtype if self._dtype == "auto" else self._dtype,
            "quantization": self._quantization,
            "device": choose_device(self._device),
            "engine": self._ready_scorer().engine,
            "torch": str(torch.__version__),
            "transformers": str(transformers.__version__),
        }

    def _at(self, dtype: Dtype) -> "TransformersStudent":
        other = TransformersStudent(
            name=self.name,
            model=self._model,
            gguf_file=self._gguf_file,
            dtype=dtype,
            search_dtype=dtype,
            quantization=self._quantization,
            device=self._device,
            pack_tokens=self._pack_tokens,
            batch_size=self._batch_size,
        )
        other._source, other._chat = self._source, self._chat
        return other

    def timings(self) -> Mapping[str, float]:
        """Seconds spent so far in each kind of work: load, render, prefill, score, generate."""
        return dict(self._watch.seconds)

    def _score(
        self,
        beginnings: Sequence[tuple[Sequence[Message], Sequence[str]]],
        labels: Sequence[str],
        on_progress: OnProgress | None,
    ) -> Scores:
        scores = np.full((sum(len(inputs) for _, inputs in beginnings), len(labels)), np.nan)
        if not scores.size:
            return scores
        chat, scorer = self._ready_chat(), self._ready_scorer()
        with self._watch.measure("render"):
            rows: dict[Prompt, list[int]] = {}
            for at, prompt in enumerate(self._prompts(beginnings, labels)):
                closed = Prompt(prompt.ids, with_end(prompt.labels, chat.end_of_turn()))
                rows.setdefault(closed, []).append(at)
            fitting = [prompt for prompt in rows if _length(prompt) <= scorer.context]
            shared = chat.shared_ids(beginnings[0][0])
        advance = on_progress or (lambda _finished: None)
        if unfit := len(scores) - sum(len(rows[prompt]) for prompt in fitting):
            advance(unfit)
        if not fitting:
            return scores
        prefix = _prefix(shared, [prompt.ids for prompt in fitting])
        with self._watch.measure("prefill"):
            if prefix:
                scorer.prefill(prefix)
        with self._watch.measure("score"):
            values = scorer.score(prefix, fitting, lambda places: advance(sum(len(rows[fitting[at]]) for at in places)))
        for prompt, row in zip(fitting, values, strict=True):
            scores[rows[prompt]] = row
        return scores

    def _generate(self, chats: Sequence[Sequence[Message]], max_tokens: int, advance: OnProgress) -> list[Generation]:
        chat, scorer = self._ready_chat(), self._ready_scorer()
        with self._watch.measure("render"):
            prompts = self._prompts(_by_beginning(chats), ())
        written = [Generation("", 0, False) for _ in prompts]
        fitting = [at for at, prompt in enumerate(prompts) if len(prompt.ids) + max_tokens <= scorer.context]
        if len(fitting) < len(prompts):
            advance(len(prompts) - len(fitting))
        with self._watch.measure("generate"):
            ids = [prompts[at].ids for at in fitting]
            ends = chat.ends()
            for place, new, finished in continue_greedily(self._model_loaded, ids, max_tokens, ends, self._batch_size):
                written[fitting[place]] = Generation(chat.decode(new), len(new), finished)
                advance(1)
        return written

    def _prompts(
        self, beginnings: Sequence[tuple[Sequence[Message], Sequence[str]]], labels: Sequence[str]
    ) -> list[Prompt]:
        chat = self._ready_chat()
        return [prompt for messages, inputs in beginnings for prompt in chat.prompts(messages, inputs, labels)]

    def _located(self) -> Source:
        if self._source is None:
            self._source = locate(self._model, self._gguf_file)
        return self._source

    def _ready_chat(self) -> Chat:
        if self._chat is None:
            with self._watch.measure("load"):
                self._chat = Chat(load_tokenizer(self._located()), self.name)
        return self._chat

    def _ready_scorer(self) -> Scorer | PlainScorer:
        if self._scorer is None:
            import torch

            from pld.adapters.students.engine.attention import IMPLEMENTATION, register

            register()
            device = choose_device(self._device)
            dtype = "auto" if self._dtype == "auto" else getattr(torch, self._dtype)
            with self._watch.measure("load"):
                load = partial(load_model, self._located(), dtype, self._quantization, device)
                self._model_loaded = load(IMPLEMENTATION)
                try:
                    self._scorer = Scorer(self._model_loaded, self.name, self._pack_tokens)
                except UnsupportedArchitectureError as refusal:
                    # what has been rearranged for the trie is of no use here
                    self._model_loaded = load(None)
                    self._scorer = PlainScorer(self._model_loaded, self.name, self._batch_size)
                    print(f"{refusal}; scored with a {self._scorer.engine}, slower", file=sys.stderr)
        return self._scorer


def _by_beginning(chats: Sequence[Sequence[Message]]) -> list[tuple[Sequence[Message], list[str]]]:
    """Neighbouring chats with the same messages before the last turn, and those last turns."""
    return [
        (list(beginning), [chat[-1].content for chat in run])
        for beginning, run in itertools.groupby(chats, key=lambda chat: tuple(chat[:-1]))
    ]


def _prefix(held: Ids, prompts: Sequence[Ids]) -> Ids:
    """What all prompts begin with, one token short of the shortest: that one foretells the label.

    It depends on this call alone, never on what happens to be held, so that scores repeat bit for bit.
    """
    shortest = min(len(ids) for ids in prompts) - 1
    common = min(common_length(prompts), shortest)
    alike = common_length([held, *prompts])
    if len(prompts) > 1 and common >= alike + WORTH_A_BRANCH:
        return prompts[0][:common]
    return prompts[0][: min(alike, shortest)]


def _length(prompt: Prompt) -> int:
    """Tokens of the longest sequence that is run: a label's last token is foretold, never fed."""
    return len(prompt.ids) + max(len(label) for label in prompt.labels) - 1
