"""A Student that runs in process on transformers: labels are scored by their log-likelihood."""

import contextlib
import copy
import functools
import itertools
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from pld.adapters.students.engine.chat import Chat, Prompt
from pld.adapters.students.engine.label_tree import Ids, common_length, with_end
from pld.adapters.students.engine.machine import choose_device, exact_products, has_bfloat16
from pld.adapters.students.engine.padded_scorer import PaddedScorer
from pld.adapters.students.engine.scorer import Scorer
from pld.adapters.students.engine.token_trie import WORTH_A_BRANCH
from pld.adapters.students.engine.trie_scorer import TrieScorer, UnsupportedArchitectureError
from pld.adapters.students.engine.weights import Quantization, Source, load_model, load_tokenizer, locate
from pld.ports import Generation, OnProgress, Scores, Student
from pld.records import Message

Dtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]


class TransformersStudent:
    """`model` is `asset:<name>`, a local folder or a Hugging Face id, with `gguf_file` a GGUF file in it.

    `dtype` is used for reported scores, `search_dtype` for `for_search()`; auto: bfloat16 where the device multiplies
    it in hardware, else float32. `pack_tokens`: tokens per forward pass, None for as many as suit the machine;
    `batch_size`: chats that are generated together. Loaded on first use, thread-safe.
    The same calls in the same order give the same bits in every process on one machine; in float32, in any order.
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
        self._seconds: dict[str, float] = defaultdict(float)
        # threads share the prefix cache, and torch's number of threads
        self._lock = threading.RLock()

    def score(
        self,
        messages: Sequence[Message],
        inputs: Sequence[str],
        labels: Sequence[str],
        on_progress: OnProgress | None = None,
    ) -> Scores:
        with self._lock:
            return self._score([(messages, inputs)], labels, on_progress)

    def score_chats(
        self, chats: Sequence[Sequence[Message]], labels: Sequence[str], on_progress: OnProgress | None = None
    ) -> Scores:
        with self._lock:
            return self._score(_by_first_messages(chats), labels, on_progress)

    def generate(
        self, chats: Sequence[Sequence[Message]], max_tokens: int, on_progress: OnProgress | None = None
    ) -> list[Generation]:
        with self._lock:
            return self._generate(chats, max_tokens, on_progress or (lambda _finished: None))

    def prefill(self, messages: Sequence[Message]) -> None:
        with self._lock:
            self._scorer.forget()
            ids = self._chat.shared_ids(messages)[: self._scorer.context]
            with self._timed("prefill"):
                self._scorer.prefill(ids)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        return self._chat.count(messages)

    def count_text_tokens(self, text: str) -> int:
        return self._chat.count_text(text)

    def label_tokens(self, labels: Sequence[str]) -> tuple[int, ...] | None:
        (answered,) = self._chat.prompts((), [""], labels)
        ids = tuple(own[0] for own in answered.labels if len(own) == 1)
        # what all labels begin with is not in `answered.labels`
        single = all(self._chat.count_text(label) == 1 for label in labels)
        return ids if single and len(set(ids)) == len(labels) else None

    def for_search(self) -> Student:
        return self._for_search

    def describe(self) -> Mapping[str, str]:
        import torch
        import transformers

        return {
            "model": self._model if self._gguf_file is None else f"{self._model}/{self._gguf_file}",
            "sha256": self._source.sha256 or "unknown",
            "dtype": self._precision(self._dtype),
            "quantization": self._quantization,
            "device": choose_device(self._device),
            "engine": self._scorer.engine,
            "torch": str(torch.__version__),
            "transformers": str(transformers.__version__),
        }

    def timings(self) -> Mapping[str, float]:
        """Seconds spent so far per kind of work: load, render, prefill, score, generate."""
        return dict(self._seconds)

    @functools.cached_property
    def _for_search(self) -> "TransformersStudent":
        dtype = self._precision(self._search_dtype)
        if dtype == self._precision(self._dtype):
            return self
        other = copy.copy(self)
        for loaded in ("_loaded", "_scorer"):
            other.__dict__.pop(loaded, None)
        other._dtype = other._search_dtype = dtype
        other._seconds, other._lock = defaultdict(float), threading.RLock()
        return other

    def _precision(self, dtype: Dtype) -> Dtype:
        if dtype != "auto":
            return dtype
        return "bfloat16" if has_bfloat16(choose_device(self._device)) else "float32"

    @functools.cached_property
    def _source(self) -> Source:
        return locate(self._model, self._gguf_file)

    @property
    def _in_messages(self) -> str:
        """The name, and where the files are that an error is about."""
        return f"{self.name}, student.model {self._model}"

    @functools.cached_property
    def _chat(self) -> Chat:
        with self._timed("load"):
            return Chat(load_tokenizer(self._source), self._in_messages)

    @functools.cached_property
    def _scorer(self) -> Scorer:
        return self._loaded[1]

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Scorer]:
        """The model, and its scorer."""
        import torch

        from pld.adapters.students.engine.attention import IMPLEMENTATION, register

        register()
        dtype = getattr(torch, self._precision(self._dtype))
        load = functools.partial(load_model, self._source, dtype, self._quantization, choose_device(self._device))
        with self._timed("load"):
            model = load(IMPLEMENTATION)
            try:
                return model, TrieScorer(model, self._in_messages, self._pack_tokens)
            except UnsupportedArchitectureError as refusal:
                # loaded again: the trie's scorer may have replaced layers
                model = load(None)
                scorer = PaddedScorer(model, self._in_messages, self._batch_size)
                print(f"{refusal}; scored with a {scorer.engine}, slower", file=sys.stderr)
                return model, scorer

    @contextlib.contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[kind] += time.perf_counter() - started

    def _score(
        self,
        runs: Sequence[tuple[Sequence[Message], Sequence[str]]],
        labels: Sequence[str],
        on_progress: OnProgress | None,
    ) -> Scores:
        """`runs`: first messages, and the inputs that follow them."""
        scores = np.full((sum(len(inputs) for _, inputs in runs), len(labels)), np.nan)
        if not scores.size:
            return scores
        chat, scorer = self._chat, self._scorer
        with self._timed("render"):
            rows: dict[Prompt, list[int]] = {}
            for at, prompt in enumerate(self._prompts(runs, labels)):
                closed = Prompt(prompt.ids, with_end(prompt.labels, chat.end_of_turn()))
                rows.setdefault(closed, []).append(at)
            fitting = [prompt for prompt in rows if _length(prompt) <= scorer.context]
            shared = chat.shared_ids(runs[0][0])
        advance = on_progress or (lambda _finished: None)
        if too_long := len(scores) - sum(len(rows[prompt]) for prompt in fitting):
            advance(too_long)
        if not fitting:
            return scores
        prefix = _prefix(shared, [prompt.ids for prompt in fitting])
        with self._timed("prefill"):
            if prefix:
                scorer.prefill(prefix)
        with self._timed("score"):
            values = scorer.score(prefix, fitting, lambda places: advance(sum(len(rows[fitting[at]]) for at in places)))
        for prompt, row in zip(fitting, values, strict=True):
            scores[rows[prompt]] = row
        return scores

    def _generate(self, chats: Sequence[Sequence[Message]], max_tokens: int, advance: OnProgress) -> list[Generation]:
        chat, (model, scorer) = self._chat, self._loaded
        with self._timed("render"):
            prompts = self._prompts(_by_first_messages(chats), ())
        written = [Generation("", 0, False) for _ in prompts]
        fitting = [at for at, prompt in enumerate(prompts) if len(prompt.ids) + max_tokens <= scorer.context]
        if len(fitting) < len(prompts):
            advance(len(prompts) - len(fitting))
        # chats of similar length share a batch
        fitting.sort(key=lambda at: (len(prompts[at].ids), at))
        with self._timed("generate"):
            for start in range(0, len(fitting), self._batch_size):
                batch = fitting[start : start + self._batch_size]
                answers = _continue_greedily(model, [prompts[at].ids for at in batch], max_tokens, chat.ends())
                for at, (new, finished) in zip(batch, answers, strict=True):
                    written[at] = Generation(chat.decode(new), len(new), finished)
                    advance(1)
        return written

    def _prompts(self, runs: Sequence[tuple[Sequence[Message], Sequence[str]]], labels: Sequence[str]) -> list[Prompt]:
        return [prompt for messages, inputs in runs for prompt in self._chat.prompts(messages, inputs, labels)]


def _by_first_messages(chats: Sequence[Sequence[Message]]) -> list[tuple[Sequence[Message], list[str]]]:
    """Runs of chats that are alike before the last turn, and those last turns."""
    return [
        (list(messages), [chat[-1].content for chat in run])
        for messages, run in itertools.groupby(chats, key=lambda chat: tuple(chat[:-1]))
    ]


def _prefix(shared: Ids, prompts: Sequence[Ids]) -> Ids:
    """What all prompts start with, at least one token short of the shortest: its last token predicts the label.

    Depends on this call alone, never on the cache, so that scores repeat bit for bit.
    """
    shortest = min(len(ids) for ids in prompts) - 1
    common = min(common_length(prompts), shortest)
    alike = common_length([shared, *prompts])
    if len(prompts) > 1 and common >= alike + WORTH_A_BRANCH:
        return prompts[0][:common]
    return prompts[0][: min(alike, shortest)]


def _length(prompt: Prompt) -> int:
    """Tokens of the longest sequence that is computed: a label's last token is predicted, never an input."""
    return len(prompt.ids) + max(len(label) for label in prompt.labels) - 1


def _continue_greedily(
    model: Any, prompts: Sequence[Ids], max_tokens: int, ends: Sequence[int]
) -> list[tuple[Ids, bool]]:
    """Per prompt of one batch, padded on the left: at most `max_tokens` new tokens without the end, and whether one of
    `ends` came."""
    import torch
    from transformers import GenerationConfig

    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), ends[0], dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    # replaces the sampling settings of the model's own files
    greedy = GenerationConfig(
        max_new_tokens=max_tokens, do_sample=False, eos_token_id=list(ends), pad_token_id=ends[0], use_cache=True
    )
    with torch.inference_mode(), exact_products():
        written = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=greedy
        )
    answers = [row[width:].tolist() for row in written]
    cuts = [next((at for at, token in enumerate(new) if token in ends), len(new)) for new in answers]
    return [(tuple(new[:cut]), cut < len(new)) for new, cut in zip(answers, cuts, strict=True)]
