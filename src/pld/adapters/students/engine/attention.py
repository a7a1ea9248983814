"""Attention of a token trie's nodes to one long shared prefix, whose keys and values are held once.

A pack (token_trie.py) attends to the whole prefix and, inside the pack, each node to its ancestors. Plugged into
transformers' `AttentionInterface`, so that rotary positions, projections and norms stay the model's own.

On a CPU the two parts are computed apart and joined by their log-sum-exp (cascade attention, as in FlashInfer,
arXiv 2501.01005): the prefix without a mask and without a copy, the pack in tiles of queries against the tile's
ancestors. Elsewhere each tile attends to [prefix ; its ancestors] at once, by `scaled_dot_product_attention`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from pld.errors import StudentError

IMPLEMENTATION = "pld_shared_prefix"
# queries of one tile
TILE = 64
# arguments by which some architectures change what attention computes
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")
Layers = dict[int, tuple[Any, Any]]
"""Layer number → keys and values, each [1, key heads, P, head size]."""


@dataclass(frozen=True)
class Tile:
    """Queries `start` to `stop` of a pack, the nodes `keys` that any of them sees, and `sees` [T, U] which does."""

    start: int
    stop: int
    keys: Any
    sees: Any


@dataclass
class Pass:
    """One forward: a pack of Q nodes after a prefix of P tokens.

    `positions` [Q] count from the prompt's beginning, `sees` [Q, Q] is True where a node sees another. With `keep` the
    nodes' keys and values are collected in `kept`. `windows` collects each layer's sliding window, None where it has
    none. `cascade`: the two parts apart.
    """

    prefix: Layers
    prefix_length: int
    positions: npt.NDArray[np.int64]
    sees: npt.NDArray[np.bool_]
    device: Any
    cascade: bool
    keep: bool = False
    kept: Layers = field(default_factory=dict)
    windows: dict[int, int | None] = field(default_factory=dict)
    _made: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def reach(self, window: int | None) -> int:
        """The first position of the prefix that any node sees."""
        return 0 if window is None else min(self.prefix_length, max(0, int(self.positions.min()) - window + 1))

    def before(self, window: int | None, groups: int, dtype: Any) -> Any:
        """[1, 1, groups · Q, P - reach] additive mask of the prefix; None: every node sees all in reach."""
        import torch

        start = self.reach(window)
        if window is None or int(self.positions.max()) - window + 1 <= start:
            return None
        key = ("before", window, groups)
        if key not in self._made:
            sees = self.positions[:, None] - np.arange(start, self.prefix_length)[None] < window
            mask = _additive(torch.from_numpy(np.tile(sees, (groups, 1))).to(self.device), dtype)
            self._made[key] = mask[None, None]
        return self._made[key]

    def tiles(self, window: int | None) -> list[Tile]:
        """Made once for all layers of a kind."""
        key = ("tiles", window)
        if key not in self._made:
            self._made[key] = list(self._cut(window))
        found: list[Tile] = self._made[key]
        return found

    def mask(self, tile: Tile, window: int | None, groups: int, with_prefix: bool, dtype: Any) -> Any:
        """[1, 1, groups · T, (P - reach) + U], 0 where a query sees a key and -inf elsewhere."""
        import torch

        key = ("mask", tile.start, window, groups, with_prefix)
        if key not in self._made:
            sees = tile.sees
            if with_prefix:
                start = self.reach(window)
                rows = self.positions[tile.start : tile.stop, None]
                keys = np.arange(start, self.prefix_length)[None]
                seen = np.broadcast_to(True, (len(rows), keys.shape[1])) if window is None else rows - keys < window
                sees = np.concatenate([seen, sees], axis=1)
            mask = _additive(torch.from_numpy(np.tile(sees, (groups, 1))).to(self.device), dtype)
            self._made[key] = mask[None, None]
        return self._made[key]

    def _cut(self, window: int | None) -> Iterator[Tile]:
        import torch

        sees = self.sees
        if window is not None:
            sees = sees & (self.positions[:, None] - self.positions[None] < window)
        for start in range(0, len(sees), TILE):
            rows = sees[start : start + TILE]
            keys = np.flatnonzero(rows.any(axis=0))
            first, last = int(keys[0]), int(keys[-1]) + 1
            # neighbours are a view, which costs nothing
            place: Any = slice(first, last)
            if last - first > 1.25 * len(keys):
                place = torch.from_numpy(keys).to(self.device)
            else:
                keys = np.arange(first, last)
            yield Tile(start, start + len(rows), place, rows[:, keys])


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
    """`query` [B, heads, Q, D], `key` and `value` [B, key heads, Q, D] → [B, Q, heads, D].

    Without `shared` it is the plain attention of transformers; with it B is 1.
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
    # the query heads of one key head stand one after the other along the length: keys are not repeated per head
    grouped = query.reshape(1, key_heads, heads // key_heads, nodes, size)
    prefix = None
    if shared.prefix_length:
        start = shared.reach(sliding_window)
        prefix = tuple(held[:, :, start:] for held in shared.prefix[layer])
    if shared.cascade:
        output = _cascade(grouped, key, value, prefix, shared, sliding_window, scale)
    else:
        output = _by_tiles(grouped, key, value, prefix, shared, sliding_window, scale)
    return output.reshape(1, heads, nodes, size).transpose(1, 2), None


def can_cascade(device: Any) -> bool:
    """Whether attention that tells its log-sum-exp is there."""
    import torch

    return str(device).startswith("cpu") and hasattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu")


def _by_tiles(query: Any, key: Any, value: Any, prefix: Any, shared: Pass, window: int | None, scale: float) -> Any:
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
            attn_mask=shared.mask(tile, window, groups, prefix is not None, query.dtype),
            scale=scale,
        )
        output[:, :, :, tile.start : tile.stop] = found.view(1, heads, groups, -1, size)
    return output


def _cascade(query: Any, key: Any, value: Any, prefix: Any, shared: Pass, window: int | None, scale: float) -> Any:
    """`query` [1, key heads, groups, Q, D] → the same shape."""
    import torch

    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    _, heads, groups, nodes, size = query.shape
    own = torch.empty_like(query)
    sums = query.new_empty((1, heads, groups, nodes), dtype=torch.float32)
    for tile in shared.tiles(window):
        found, logs = flash(
            query[:, :, :, tile.start : tile.stop].reshape(1, heads, -1, size),
            key[:, :, tile.keys],
            value[:, :, tile.keys],
            attn_mask=shared.mask(tile, window, groups, False, query.dtype),
            scale=scale,
        )
        own[:, :, :, tile.start : tile.stop] = found.view(1, heads, groups, -1, size)
        sums[:, :, :, tile.start : tile.stop] = logs.reshape(1, heads, groups, -1)
    if prefix is None or not prefix[0].shape[2]:
        return own
    mask = shared.before(window, groups, query.dtype)
    found, logs = flash(
        query.reshape(1, heads, groups * nodes, size),
        *prefix,
        attn_mask=mask,
        scale=scale,
    )
    logs = logs.reshape(1, heads, groups, nodes)
    if mask is not None:
        # for a query that sees nothing the kernel says 0
        nothing = torch.isinf(mask).all(dim=-1).view(1, 1, groups, nodes)
        logs = logs.masked_fill(nothing, -torch.inf)
    weight = torch.sigmoid(logs - sums)[..., None]  # the prefix's share of all attention
    return torch.lerp(own.float(), found.view(query.shape).float(), weight).to(query.dtype)


def _additive(sees: Any, dtype: Any) -> Any:
    import torch

    return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, -torch.inf)
