"""Attention of many short rows to one long shared prefix, whose keys and values are held once.

A row is the rest of one prompt followed by the label tree's nodes (see label_tree.py). It attends to the whole prefix
and, inside the row, to its ancestors. Plugged into transformers' `AttentionInterface`, so that rotary positions,
projections and norms stay the model's own.
"""

from dataclasses import dataclass, field
from typing import Any

from pld.errors import StudentError

IMPLEMENTATION = "pld_shared_prefix"
# arguments by which some architectures change what attention computes
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")
Layers = dict[int, tuple[Any, Any]]
"""Layer number → keys and values, each [1, key heads, P, head size]."""


@dataclass
class Pass:
    """One forward: rows [B, S] after a prefix of P tokens.

    `ancestors` [B, S, S] is True where a token of a row (second axis) sees another (third), `positions` [B, S] counts
    from the prompt's beginning. With `keep` the rows' keys and values are collected in `kept`. `windows` collects each
    layer's sliding window, None where it has none.
    """

    prefix: Layers
    prefix_length: int
    positions: Any
    ancestors: Any
    keep: bool = False
    kept: Layers = field(default_factory=dict)
    windows: dict[int, int | None] = field(default_factory=dict)
    _masks: dict[tuple[int | None, int], Any] = field(default_factory=dict)

    def mask(self, window: int | None, groups: int, dtype: Any) -> Any:
        """[B, 1, groups · S, P + S], 0 where a query sees a key and -inf elsewhere; `window`: a sliding layer's tokens.

        Made once for all layers: from a boolean one torch makes it again in each.
        """
        import torch

        if (window, groups) not in self._masks:
            rows, length, _ = self.ancestors.shape
            before = self.ancestors.new_ones(rows, length, self.prefix_length)
            sees = torch.cat([before, self.ancestors], dim=2)
            if window is not None:
                prefix = torch.arange(self.prefix_length, device=self.positions.device).expand(rows, -1)
                keys = torch.cat([prefix, self.positions], dim=1)
                sees &= self.positions[:, :, None] - keys[:, None, :] < window
            mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, -torch.inf)
            self._masks[window, groups] = mask.repeat(1, groups, 1)[:, None]
        return self._masks[window, groups]


def register() -> None:
    """Make the implementation known to transformers (again is harmless)."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(IMPLEMENTATION, attend)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)


def attend(
    module: Any,
    query: Any,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    sliding_window: int | None = None,
    shared: Pass | None = None,
    **rest: Any,
) -> tuple[Any, None]:
    """`query` [B, heads, S, D], `key` and `value` [B, key heads, S, D] → [B, S, heads, D].

    Without `shared` it is the plain attention of transformers.
    """
    import torch
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if shared is None:
        plain: tuple[Any, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **rest
        )
        return plain
    if unknown := [name for name in _UNSUPPORTED if rest.get(name) is not None]:
        raise StudentError(f"{type(module).__name__}: wanted plain attention, found {unknown[0]}; name another model")
    batch, heads, length, size = query.shape
    key_heads = key.shape[1]
    groups = heads // key_heads
    layer = module.layer_idx
    shared.windows[layer] = sliding_window
    if shared.keep:
        shared.kept[layer] = (key, value)
    if shared.prefix_length:
        prefix_key, prefix_value = shared.prefix[layer]
        key = torch.cat([prefix_key.expand(batch, -1, -1, -1), key], dim=2)
        value = torch.cat([prefix_value.expand(batch, -1, -1, -1), value], dim=2)
    # the query heads of one key head stand one after the other along the length: keys are not repeated per head
    output = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(batch, key_heads, groups * length, size),
        key,
        value,
        attn_mask=shared.mask(sliding_window, groups, query.dtype),
        scale=scaling,
    )
    return output.reshape(batch, heads, length, size).transpose(1, 2), None
