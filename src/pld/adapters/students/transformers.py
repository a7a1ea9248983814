"""A Student that transformers runs: labels are scored by their log-likelihood, nothing is ever generated."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from pld.adapters.students.chat import Chat, Prompt
from pld.adapters.students.label_tree import Ids, common_length, with_end
from pld.adapters.students.machine import choose_device, has_bfloat16
from pld.adapters.students.scorer import Scorer
from pld.adapters.students.weights import Quantization, Source, load_model, load_tokenizer, locate
from pld.ports import OnProgress, Scores, Student
from pld.records import Message

Dtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]
# a longer beginning that the inputs of one call share is worth a prefix of its own
_WORTH_SHARING = 16


class TransformersStudent:
    """`model` is `asset:<name>`, a local folder or a Hugging Face id, with `gguf_file` a GGUF file in it.

    `dtype` is that of reported scores, `search_dtype` that of `for_search()`. Everything heavy happens on first use.
    The same calls give the same bits in every process of one machine.
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
        batch_size: int,
    ) -> None:
        self.name = name
        self._model = model
        self._gguf_file = gguf_file
        self._dtype: Dtype = dtype
        self._search_dtype: Dtype = search_dtype
        self._quantization: Quantization = quantization
        self._device: Device = device
        self._batch_size = batch_size
        self._source: Source | None = None
        self._chat: Chat | None = None
        self._scorer: Scorer | None = None
        self._for_search: Student | None = None

    def score(
        self,
        messages: Sequence[Message],
        inputs: Sequence[str],
        labels: Sequence[str],
        on_progress: OnProgress | None = None,
    ) -> Scores:
        scores = np.full((len(inputs), len(labels)), np.nan)
        if not scores.size:
            return scores
        chat, scorer = self._ready_chat(), self._ready_scorer()
        rows: dict[Prompt, list[int]] = {}
        for at, prompt in enumerate(chat.prompts(messages, inputs, labels)):
            closed = Prompt(prompt.ids, with_end(prompt.labels, chat.end_of_turn()))
            rows.setdefault(closed, []).append(at)
        fitting = [prompt for prompt in rows if _length(prompt) <= scorer.context]
        advance = on_progress or (lambda _finished: None)
        if unfit := len(inputs) - sum(len(rows[prompt]) for prompt in fitting):
            advance(unfit)
        if not fitting:
            return scores
        prefix = self._prefix(chat.shared_ids(messages), [prompt.ids for prompt in fitting])
        for prompts, values in scorer.score(prefix, fitting, self._batch_size):
            for prompt, row in zip(prompts, values, strict=True):
                scores[rows[prompt]] = row
            advance(sum(len(rows[prompt]) for prompt in prompts))
        return scores

    def prefill(self, messages: Sequence[Message]) -> None:
        scorer = self._ready_scorer()
        scorer.forget()
        scorer.prefill(self._ready_chat().shared_ids(messages)[: scorer.context])

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
            batch_size=self._batch_size,
        )
        other._source, other._chat = self._source, self._chat
        return other

    def _prefix(self, held: Ids, prompts: Sequence[Ids]) -> Ids:
        """What all prompts begin with, one token short of the shortest: that one foretells the label.

        It depends on this call alone, never on what happens to be held, so that scores repeat bit for bit.
        """
        shortest = min(len(ids) for ids in prompts) - 1
        common = min(common_length(prompts), shortest)
        alike = common_length([held, *prompts])
        if len(prompts) > 1 and common >= alike + _WORTH_SHARING:
            return prompts[0][:common]
        return prompts[0][: min(alike, shortest)]

    def _located(self) -> Source:
        if self._source is None:
            self._source = locate(self._model, self._gguf_file)
        return self._source

    def _ready_chat(self) -> Chat:
        if self._chat is None:
            self._chat = Chat(load_tokenizer(self._located()), self.name)
        return self._chat

    def _ready_scorer(self) -> Scorer:
        if self._scorer is None:
            import torch

            from pld.adapters.students.attention import IMPLEMENTATION, register

            register()
            device = choose_device(self._device)
            dtype = "auto" if self._dtype == "auto" else getattr(torch, self._dtype)
            model = load_model(self._located(), dtype, self._quantization, device, IMPLEMENTATION)
            self._scorer = Scorer(model, self.name)
        return self._scorer


def _length(prompt: Prompt) -> int:
    """Tokens of the longest sequence that is run: a label's last token is foretold, never fed."""
    return len(prompt.ids) + max(len(label) for label in prompt.labels) - 1
