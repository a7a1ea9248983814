"""From hidden states to log-probabilities: only what foretells a label's token meets the vocabulary."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pld.adapters.students.engine.label_tree import LabelTree
from pld.ports import Scores

# rows whose logits over the whole vocabulary are in memory at once
_ROWS = 128


class Head:
    """A language model's output layer; `soft_cap`: Gemma's bound on logits, None where there is none."""

    def __init__(self, layer: Any, soft_cap: float | None) -> None:
        self._layer = layer
        self._soft_cap = soft_cap

    def scores(self, hidden: Sequence[Any], trees: Sequence[LabelTree]) -> Iterator[Scores]:
        """Per prompt its `hidden` states [1 + T, d] → the sum of each label's log-probabilities [k]."""
        import torch

        tokens = sorted({token for tree in trees for steps in tree.steps for _, token in steps})
        column = {token: at for at, token in enumerate(tokens)}
        rows = torch.cat(list(hidden))
        found = [self._log_probabilities(part, tokens) for part in rows.split(_ROWS)]
        steps = torch.cat(found).cpu().double().numpy()  # [all rows, tokens]
        start = 0
        for states, tree in zip(hidden, trees, strict=True):
            yield np.array([sum(steps[start + place, column[token]] for place, token in one) for one in tree.steps])
            start += len(states)

    def _log_probabilities(self, hidden: Any, tokens: Sequence[int]) -> Any:
        """[rows, tokens], normalised in float32 over the whole vocabulary."""
        logits = self._capped(self._layer(hidden).float())  # [rows, vocabulary]
        return self._of_tokens(hidden, logits, tokens) - logits.logsumexp(dim=1, keepdim=True)

    def _of_tokens(self, hidden: Any, logits: Any, tokens: Sequence[int]) -> Any:
        """The logits [rows, tokens] of a few tokens; in a coarse dtype computed again in float32.

        A bfloat16 logit near 20 moves in steps of 0.125, in which labels tie that the hidden state tells apart.
        """
        import torch

        weight = getattr(self._layer, "weight", None)
        if weight is None or weight.dtype not in (torch.bfloat16, torch.float16) or self._layer.bias is not None:
            return logits[:, tokens]
        return self._capped(hidden.float() @ weight[tokens].float().T)

    def _capped(self, logits: Any) -> Any:
        import torch

        return logits if self._soft_cap is None else torch.tanh(logits / self._soft_cap) * self._soft_cap
