"""Attention of a packed token trie to one long shared prefix, whose keys and values exist once.

Every node of a pack (token_trie.py) attends to the whole prefix and to its own ancestors. Registered with transformers'
`AttentionInterface`, so rotary positions, projections and norms remain the model's own.

On a CPU the two parts are computed separately and merged by their log-sum-exp (cascade attention, as in FlashInfer,
arXiv 2501.01005): the prefix without mask or copy, the pack in tiles of queries against the tile's ancestors. Elsewhere
each tile attends to [prefix ; its ancestors] at once, by `scaled_dot_product_attention`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pld.errors import StudentError

IMPLEMENTATION = "pld_shared_prefix"
# queries per tile
TILE = 64
# arguments by which some architectures change what attention computes
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")
Layers = dict[int, tuple[Any, Any]]
"""Layer number → keys and values, each [1, key heads, P, head size]."""


@dataclass(frozen=True)
class Tile:
    """Queries `start` to `stop` of a pack; `keys`, the nodes visible to any of them; `visible` [T, U] to which."""

    start: int
    stop: int
    keys: Any
    visible: npt.NDArray[np.bool_]


@dataclass
class ForwardPass:
    """One forward pass over a pack of Q nodes, after a prefix of P tokens.

    `positions` [Q] count from the prompt's start; `visible` [Q, Q] is True where a node attends to another. With `keep`
    the nodes' keys and values are stored in `kept`. `windows` collects each layer's sliding window, None where it has
    none. `cascade`: compute prefix and pack separately.
    """

    prefix: Layers
    prefix_length: int
    positions: npt.NDArray[np.int64]
    visible: npt.NDArray[np.bool_]
    device: Any
    cascade: bool
    keep: bool = False
    kept: Layers = field(default_factory=dict)
    windows: dict[int, int | None] = field(default_factory=dict)
    _shared: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def prefix_start(self, window: int | None) -> int:
        """The first position of the prefix that any node attends to."""
        return 0 if window is None else min(self.prefix_length, max(0, int(self.positions.min()) - window + 1))

    def prefix_mask(self, window: int | None, groups: int, dtype: Any) -> Any:
        """[1, 1, groups · Q, P - prefix_start] additive mask; None if every node attends to all of it."""
        if window is None or int(self.positions.max()) - window + 1 <= self.prefix_start(window):
            return None
        return self._once(
            ("prefix", window, groups),
            lambda: self._additive(self._in_window(self.positions, window), groups, dtype),
        )

    def tiles(self, window: int | None) -> list[Tile]:
        tiles: list[Tile] = self._once(("tiles", window), lambda: list(self._cut(window)))
        return tiles

    def tile_mask(self, tile: Tile, window: int | None, groups: int, with_prefix: bool, dtype: Any) -> Any:
        """[1, 1, groups · T, (P - prefix_start) + U] additive mask."""

        def make() -> Any:
            prefix = [self._in_window(self.positions[tile.start : tile.stop], window)] if with_prefix else []
            return self._additive(np.concatenate([*prefix, tile.visible], axis=1), groups, dtype)

        return self._once(("tile", tile.start, window, groups, with_prefix), make)

    def _once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What all layers with the same window share."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def _in_window(self, positions: npt.NDArray[np.int64], window: int | None) -> npt.NDArray[np.bool_]:
        """`positions` [T] → [T, P - prefix_start], True where the prefix's position is within the window."""
        prefix = np.arange(self.prefix_start(window), self.prefix_length)
        if window is None:
            return np.ones((len(positions), len(prefix)), dtype=bool)
        return positions[:, None] - prefix[None] < window

    def _additive(self, visible: npt.NDArray[np.bool_], groups: int, dtype: Any) -> Any:
        """[T, U] → [1, 1, groups · T, U]: 0 where visible, -inf elsewhere."""
        import torch

        seen = torch.from_numpy(np.tile(visible, (groups, 1))).to(self.device)
        return torch.zeros(seen.shape, dtype=dtype, device=self.device).masked_fill_(~seen, -torch.inf)[None, None]

    def _cut(self, window: int | None) -> Iterator[Tile]:
        import torch

        visible = self.visible
        if window is not None:
            visible = visible & (self.positions[:, None] - self.positions[None] < window)
        for start in range(0, len(visible), TILE):
            rows = visible[start : start + TILE]
            keys = np.flatnonzero(rows.any(axis=0))
            first, last = int(keys[0]), int(keys[-1]) + 1
            # a slice is a view, which costs nothing
            index: Any = slice(first, last)
            if last - first > 1.25 * len(keys):
                index = torch.from_numpy(keys).to(self.device)
            else:
                keys = np.arange(first, last)
            yield Tile(start, start + len(rows), index, rows[:, keys])


def register() -> None:
    """Register the implementation with transformers; may be repeated."""
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
    shared: ForwardPass | None = None,
    **rest: Any,
) -> tuple[Any, None]:
    """`query` [B, heads, Q, D], `key` and `value` [B, key heads, Q, D] → [B, Q, heads, D].

    Without `shared` it is transformers' own attention; with it B is 1. Raises StudentError.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if shared is None:
        plain: tuple[Any, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **rest
        )
        return plain
    if unknown := [name for name in _UNSUPPORTED if rest.get(name) is not None]:
        raise StudentError(f"expected plain attention, got {unknown[0]} ({type(module).__name__}); name another model")
    layer = module.layer_idx
    shared.windows[layer] = sliding_window
    if shared.keep:
        shared.kept[layer] = (key, value)
    _, heads, nodes, size = query.shape
    key_heads = key.shape[1]
    scale = size**-0.5 if scaling is None else scaling
    # the query heads of one key head are concatenated along the length, so keys aren't repeated per head
    grouped = query.reshape(1, key_heads, heads // key_heads, nodes, size)
    prefix = None
    if shared.prefix_length:
        start = shared.prefix_start(sliding_window)
        prefix = tuple(held[:, :, start:] for held in shared.prefix[layer])
    attention = _cascade if shared.cascade else _by_tiles
    output = attention(grouped, key, value, prefix, shared, sliding_window, scale)
    return output.reshape(1, heads, nodes, size).transpose(1, 2), None


def can_cascade(device: Any) -> bool:
    """Whether torch has an attention kernel for the device that returns its log-sum-exp."""
    import torch

    return str(device).startswith("cpu") and hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def _by_tiles(
    query: Any, key: Any, value: Any, prefix: Any, shared: ForwardPass, window: int | None, scale: float
) -> Any:
    """`query` [1, key heads, groups, Q, D] → the same shape."""
    import torch

    _, heads, groups, _, size = query.shape
    output = torch.empty_like(query)
    for tile in shared.tiles(window):
        keys, values = key[:, :, tile.keys], value[:, :, tile.keys]
        if prefix is not None:
            keys, values = torch.cat([prefix[0], keys], dim=2), torch.cat([prefix[1], values], dim=2)
        found = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, :, tile.start : tile.stop].reshape(1, heads, -1, size),
            keys,
            values,
            attn_mask=shared.tile_mask(tile, window, groups, prefix is not None, query.dtype),
            scale=scale,
        )
        output[:, :, :, tile.start : tile.stop] = found.view(1, heads, groups, -1, size)
    return output


def _cascade(
    query: Any, key: Any, value: Any, prefix: Any, shared: ForwardPass, window: int | None, scale: float
) -> Any:
    """`query` [1, key heads, groups, Q, D] → the same shape."""
    import torch

    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    _, heads, groups, nodes, size = query.shape
    own = torch.empty_like(query)
    own_lse = query.new_empty((1, heads, groups, nodes), dtype=torch.float32)
    for tile in shared.tiles(window):
        found, lse = flash(
            query[:, :, :, tile.start : tile.stop].reshape(1, heads, -1, size),
            key[:, :, tile.keys],
            value[:, :, tile.keys],
            attn_mask=shared.tile_mask(tile, window, groups, False, query.dtype),
            scale=scale,
        )
        own[:, :, :, tile.start : tile.stop] = found.view(1, heads, groups, -1, size)
        own_lse[:, :, :, tile.start : tile.stop] = lse.reshape(1, heads, groups, -1)
    if prefix is None or not prefix[0].shape[2]:
        return own
    mask = shared.prefix_mask(window, groups, query.dtype)
    found, lse = flash(query.reshape(1, heads, groups * nodes, size), *prefix, attn_mask=mask, scale=scale)
    lse = lse.reshape(1, heads, groups, nodes)
    if mask is not None:
        # the kernel returns 0 for a query that attends to nothing
        nothing = torch.isinf(mask).all(dim=-1).view(1, 1, groups, nodes)
        lse = lse.masked_fill(nothing, -torch.inf)
    weight = torch.sigmoid(lse - own_lse)[..., None]  # the prefix's share of the attention
    return torch.lerp(own.float(), found.view(query.shape).float(), weight).to(query.dtype)
