"""Scoring for architectures that the trie is not known to be exact for: transformers' own attention and cache.

The shared prefix is computed once and copied for each batch; what follows is padded on the right. Slower, and right for
every causal model whose cache transformers can continue.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pld.adapters.students.engine.chat import Prompt
from pld.adapters.students.engine.head import Head
from pld.adapters.students.engine.label_tree import Ids, LabelTree
from pld.adapters.students.engine.machine import exact_products
from pld.adapters.students.engine.reference import Reference
from pld.errors import StudentError
from pld.ports import Scores


class PlainScorer:
    """The same as `Scorer` for one loaded model; `batch_size` rows at a time, one for each prompt and label."""

    engine = "plain prefix cache"

    def __init__(self, model: Any, name: str, batch_size: int) -> None:
        text = model.config.get_text_config()
        self.context = int(getattr(text, "max_position_embeddings", None) or getattr(text, "seq_length", None) or 2048)
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._batch_size = batch_size
        self._body = model.get_decoder()
        self._device = model.device
        self._head = Head(model.get_output_embeddings(), getattr(text, "final_logit_softcapping", None))
        self._held: tuple[Ids, Any] | None = None
        reference = Reference.of(model)
        try:
            ours = float(self.score(reference.ids[:6], [reference.prompt], lambda _places: None)[0, 0])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            ours, found = float("nan"), f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        else:
            found = f"a log-probability of {reference.log_probability:.4f} plainly and {ours:.4f} with a cached prefix"
        self.forget()
        if not reference.agrees(ours):
            raise StudentError(
                f"expected a causal language model whose cache can be continued, got {found} (student {name}); the "
                f"architecture {text.model_type} is not supported, name another model"
            )

    def forget(self) -> None:
        """Drop the held prefix."""
        self._held = None

    def prefill(self, ids: Ids) -> Any:
        """transformers' cache of a prefix; the last one is held."""
        import torch
        from transformers import DynamicCache

        if self._held is None or self._held[0] != ids:
            cache = DynamicCache()
            with torch.inference_mode(), exact_products():
                self._body(input_ids=torch.tensor([ids], device=self._device), past_key_values=cache, use_cache=True)
            self._held = (ids, cache)
        return self._held[1]

    def score(self, prefix: Ids, prompts: Sequence[Prompt], on_scored: Callable[[Sequence[int]], object]) -> Scores:
        """[n, k] for `prompts`, all of which begin with `prefix` and are longer and have k labels."""
        import torch

        scores = np.full((len(prompts), len(prompts[0].labels)), np.nan)
        order = sorted(range(len(prompts)), key=lambda at: len(prompts[at].ids))
        per_prompt = len(prompts[0].labels)
        step = max(1, self._batch_size // per_prompt)
        with torch.inference_mode(), exact_products():
            for start in range(0, len(order), step):
                places = order[start : start + step]
                for at, values in zip(places, self._batch(prefix, [prompts[at] for at in places]), strict=True):
                    scores[at] = values
                on_scored(places)
        return scores

    def _batch(self, prefix: Ids, prompts: Sequence[Prompt]) -> list[Scores]:
        import torch

        rows: dict[Ids, int] = {}
        for prompt in prompts:
            for label in prompt.labels:
                rows.setdefault((*prompt.ids, *label[:-1]), len(rows))
        length, width = len(prefix), max(map(len, rows))
        ids = torch.zeros(len(rows), width - length, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for row, place in rows.items():
            ids[place, : len(row) - length] = torch.tensor(row[length:])
            mask[place, : len(row)] = 1
        cache = None
        if prefix:
            cache = copy.deepcopy(self.prefill(prefix))
            cache.batch_repeat_interleave(len(rows))
        positions = torch.arange(length, width).expand(len(rows), -1)
        hidden = self._body(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            **self._positions(positions),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state
        trees = [LabelTree.of(prompt.labels) for prompt in prompts]
        states = [
            torch.stack([hidden[rows[row], at - length] for row, at in _places(prompt, tree)])
            for prompt, tree in zip(prompts, trees, strict=True)
        ]
        return list(self._head.scores(states, trees))

    def _positions(self, positions: Any) -> dict[str, Any]:
        """Some architectures have no positions but distances."""
        import inspect

        takes = "position_ids" in inspect.signature(self._body.forward).parameters
        return {"position_ids": positions.to(self._device)} if takes else {}


def _places(prompt: Prompt, tree: LabelTree) -> list[tuple[Ids, int]]:
    """Where the prompt's last token and the tree's nodes stand: a row, and a position in it."""
    end = len(prompt.ids) - 1
    found: dict[int, tuple[Ids, int]] = {}
    for label, steps in zip(prompt.labels, tree.steps, strict=True):
        for at, (place, _) in enumerate(steps):
            found[place] = ((*prompt.ids, *label[:-1]), end + at)
    return [found[place] for place in range(1 + len(tree.tokens))]
