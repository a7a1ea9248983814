"""Keys and values of the prompts' shared prefixes, held within a bound on memory."""

from collections import OrderedDict

from pld.adapters.students.engine.attention import Layers
from pld.adapters.students.engine.label_tree import Ids, common_length


class PrefixStore:
    """The prefixes used last, at most `limit` bytes together (but always the very last one).

    What a new prefix shares with a held one is reused in whole pieces of `piece` tokens. With pieces of one token an
    edited prompt is computed again from its first changed token on, and the last bits of its scores depend on what was
    held before; with longer ones they do not.
    """

    def __init__(self, limit: int, piece: int) -> None:
        self._limit = limit
        self._piece = piece
        self._held: OrderedDict[Ids, Layers] = OrderedDict()

    def get(self, ids: Ids) -> Layers | None:
        """What is held of exactly these tokens."""
        if ids in self._held:
            self._held.move_to_end(ids)
        return self._held.get(ids)

    def beginning(self, ids: Ids) -> tuple[int, Layers]:
        """How many of the first tokens of `ids` are held, and their keys and values (views)."""
        best = max(self._held, key=lambda held: common_length([held, ids]), default=())
        common = common_length([best, ids]) // self._piece * self._piece
        if not common:
            return 0, {}
        return common, {layer: (k[:, :, :common], v[:, :, :common]) for layer, (k, v) in self._held[best].items()}

    def put(self, ids: Ids, layers: Layers) -> None:
        self._held[ids] = layers
        self._held.move_to_end(ids)
        while len(self._held) > 1 and sum(map(_bytes, self._held.values())) > self._limit:
            self._held.popitem(last=False)

    def clear(self) -> None:
        self._held.clear()


def _bytes(layers: Layers) -> int:
    return sum(tensor.numel() * tensor.element_size() for pair in layers.values() for tensor in pair)
