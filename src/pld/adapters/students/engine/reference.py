"""What a model says plainly, to check a faster way of asking it against when it is loaded."""

from dataclasses import dataclass
from typing import Any

from pld.adapters.students.engine.chat import Prompt
from pld.adapters.students.engine.label_tree import Ids
from pld.adapters.students.engine.machine import exact_products


@dataclass(frozen=True)
class Reference:
    """A few tokens, the likeliest next one and its log-probability, by one plain forward of the whole model."""

    ids: Ids
    next: int
    log_probability: float
    tolerance: float

    @classmethod
    def of(cls, model: Any) -> "Reference":
        import torch

        ids = torch.arange(1, 13, device=model.device)[None]
        with torch.inference_mode(), exact_products():
            plain = model(input_ids=ids, use_cache=False).logits[0, -1].float().log_softmax(dim=0)
        best = int(plain.argmax())
        # coarse weights and products differ by more than rounding in float32 does
        exact = model.dtype is torch.float32 and not getattr(model, "is_quantized", False)
        return cls(tuple(ids[0].tolist()), best, float(plain[best]), 1e-3 if exact else 0.5)

    @property
    def prompt(self) -> Prompt:
        """The tokens as a prompt with one label."""
        return Prompt(self.ids, ((self.next,),))

    def agrees(self, log_probability: float) -> bool:
        return abs(log_probability - self.log_probability) < self.tolerance
