"""What the two label scorers share: the LM head at label positions, and a check against a plain forward pass."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from pld.adapters.students.engine.chat import Prompt
from pld.adapters.students.engine.label_tree import Ids, LabelTree
from pld.adapters.students.engine.machine import exact_products
from pld.ports import Scores

# rows whose logits over the whole vocabulary are in memory at once
_ROWS = 128


class Scorer(ABC):
    """Scores labels with one loaded model. `context`: its longest sequence in tokens; `dtype` of its weights."""

    engine: ClassVar[str]

    def __init__(self, model: Any, name: str) -> None:
        text = model.config.get_text_config()
        self.context = int(getattr(text, "max_position_embeddings", None) or getattr(text, "seq_length", None) or 2048)
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._name = name
        self._body = model.get_decoder()
        self._device = model.device
        self._head = LMHead(model.get_output_embeddings(), getattr(text, "final_logit_softcapping", None))

    @abstractmethod
    def forget(self) -> None:
        """Drop every cached prefix."""

    @abstractmethod
    def prefill(self, ids: Ids) -> Any:
        """Compute and cache the keys and values of a prefix."""

    @abstractmethod
    def score(self, prefix: Ids, prompts: Sequence[Prompt], on_scored: Callable[[Sequence[int]], object]) -> Scores:
        """[n, k] log-likelihoods for `prompts`, which all start with `prefix`, are longer, and have k labels each.

        `on_scored` is called with the indices of prompts as they finish.
        """

    def disagreement(self, plain: "PlainForward") -> str | None:
        """How this scorer differs from a plain forward pass (or fails) on a few tokens; None where it agrees."""
        try:
            ours = float(self.score(plain.ids[:6], [Prompt(plain.ids, ((plain.next,),))], lambda _places: None)[0, 0])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        self.forget()
        if abs(ours - plain.log_probability) < plain.tolerance:
            return None
        return f"a log-probability of {ours:.4f} instead of {plain.log_probability:.4f} in a plain forward pass"


@dataclass(frozen=True)
class PlainForward:
    """The likeliest next token after a few tokens and its log-probability, by one forward pass of the whole model."""

    ids: Ids
    next: int
    log_probability: float
    tolerance: float

    @classmethod
    def of(cls, model: Any) -> "PlainForward":
        import torch

        ids = torch.arange(1, 13, device=model.device)[None]
        with torch.inference_mode(), exact_products():
            plain = model(input_ids=ids, use_cache=False).logits[0, -1].float().log_softmax(dim=0)
        best = int(plain.argmax())
        # low-precision weights differ by more than float32's rounding
        exact = model.dtype is torch.float32 and not getattr(model, "is_quantized", False)
        return cls(tuple(ids[0].tolist()), best, float(plain[best]), 1e-3 if exact else 0.5)


class LMHead:
    """A model's output layer, applied only at positions that predict a label token. `soft_cap`: Gemma's logit cap."""

    def __init__(self, layer: Any, soft_cap: float | None) -> None:
        self._layer = layer
        self._soft_cap = soft_cap

    def scores(self, hidden: Sequence[Any], trees: Sequence[LabelTree]) -> Iterator[Scores]:
        """Per prompt, `hidden` states [1 + T, d] of the places of its tree → each label's log-likelihood [k]."""
        import torch

        tokens = sorted({token for tree in trees for steps in tree.steps for _, token in steps})
        column = {token: at for at, token in enumerate(tokens)}
        found = [self._log_probabilities(rows, tokens) for rows in torch.cat(list(hidden)).split(_ROWS)]
        steps = torch.cat(found).cpu().double().numpy()  # [all rows, tokens]
        start = 0
        for states, tree in zip(hidden, trees, strict=True):
            yield np.array([sum(steps[start + place, column[token]] for place, token in one) for one in tree.steps])
            start += len(states)

    def _log_probabilities(self, hidden: Any, tokens: Sequence[int]) -> Any:
        """[rows, tokens], normalised in float32 over the whole vocabulary."""
        logits = self._capped(self._layer(hidden).float())  # [rows, vocabulary]
        return self._logits_of(tokens, hidden, logits) - logits.logsumexp(dim=1, keepdim=True)

    def _logits_of(self, tokens: Sequence[int], hidden: Any, logits: Any) -> Any:
        """[rows, tokens]; with 16-bit weights computed again in float32.

        A bfloat16 logit near 20 has steps of 0.125, so labels would tie that the hidden state distinguishes.
        """
        import torch

        weight = getattr(self._layer, "weight", None)
        if weight is None or weight.dtype not in (torch.bfloat16, torch.float16) or self._layer.bias is not None:
            return logits[:, tokens]
        return self._capped(hidden.float() @ weight[tokens].float().T)

    def _capped(self, logits: Any) -> Any:
        import torch

        return logits if self._soft_cap is None else torch.tanh(logits / self._soft_cap) * self._soft_cap
