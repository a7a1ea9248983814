"""The fallback scorer for other architectures: transformers' own attention and cache, on padded batches.

The shared prefix is computed once and copied for each batch; what follows is padded on the right. Slower than the token
trie, but right for every causal model whose cache transformers can extend.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pld.adapters.students.engine.chat import Prompt
from pld.adapters.students.engine.label_tree import Ids, LabelTree
from pld.adapters.students.engine.machine import exact_products
from pld.adapters.students.engine.scorer import PlainForward, Scorer
from pld.errors import StudentError
from pld.ports import Scores


class PaddedScorer(Scorer):
    """`batch_size` rows at a time, one per prompt and label. Caches the last prefix."""

    engine = "plain prefix cache"

    def __init__(self, model: Any, name: str, batch_size: int) -> None:
        super().__init__(model, name)
        self._batch_size = batch_size
        # architectures with relative distances take no positions
        self._takes_positions = "position_ids" in inspect.signature(self._body.forward).parameters
        self._held: tuple[Ids, Any] | None = None
        if difference := self.disagreement(PlainForward.of(model)):
            raise StudentError(
                f"expected a causal language model whose cache can be extended, got {difference} (student {name}); the "
                f"architecture {model.config.get_text_config().model_type} is not supported, name another model"
            )

    def forget(self) -> None:
        self._held = None

    def prefill(self, ids: Ids) -> Any:
        import torch
        from transformers import DynamicCache

        if self._held is None or self._held[0] != ids:
            cache = DynamicCache()
            with torch.inference_mode(), exact_products():
                self._body(input_ids=torch.tensor([ids], device=self._device), past_key_values=cache, use_cache=True)
            self._held = (ids, cache)
        return self._held[1]

    def score(self, prefix: Ids, prompts: Sequence[Prompt], on_scored: Callable[[Sequence[int]], object]) -> Scores:
        import torch

        labels = len(prompts[0].labels)
        scores = np.full((len(prompts), labels), np.nan)
        order = sorted(range(len(prompts)), key=lambda at: len(prompts[at].ids))
        step = max(1, self._batch_size // labels)
        with torch.inference_mode(), exact_products():
            for start in range(0, len(order), step):
                places = order[start : start + step]
                scores[places] = self._batch(prefix, [prompts[at] for at in places])
                on_scored(places)
        return scores

    def _batch(self, prefix: Ids, prompts: Sequence[Prompt]) -> list[Scores]:
        import torch

        # tokens of a prompt and a label but for its last one → row of the batch
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
        positions = torch.arange(length, width).expand(len(rows), -1).to(self._device)
        hidden = self._body(
            input_ids=ids.to(self._device),
            attention_mask=mask.to(self._device),
            **({"position_ids": positions} if self._takes_positions else {}),
            past_key_values=cache,
            use_cache=cache is not None,
        ).last_hidden_state  # [rows, width - length, d]
        trees = [LabelTree.of(prompt.labels) for prompt in prompts]
        states = [
            torch.stack([hidden[rows[row], at - length] for row, at in _places(prompt, tree)])
            for prompt, tree in zip(prompts, trees, strict=True)
        ]
        return list(self._head.scores(states, trees))


def _places(prompt: Prompt, tree: LabelTree) -> list[tuple[Ids, int]]:
    """For each place of the tree, a row that contains it and its position there."""
    end = len(prompt.ids) - 1
    found: dict[int, tuple[Ids, int]] = {}
    for label, steps in zip(prompt.labels, tree.steps, strict=True):
        for at, (place, _) in enumerate(steps):
            found[place] = ((*prompt.ids, *label[:-1]), end + at)
    return [found[place] for place in range(1 + len(tree.tokens))]
