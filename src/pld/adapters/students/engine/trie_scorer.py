"""The fast scorer: a cached shared prefix, and all prompts' remaining tokens as a packed token trie."""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, NoReturn, TypeVar

import numpy as np

from pld.adapters.students.engine.attention import ForwardPass, Layers, can_cascade
from pld.adapters.students.engine.chat import Prompt
from pld.adapters.students.engine.label_tree import Ids, LabelTree, common_length
from pld.adapters.students.engine.machine import cache_bytes, exact_products, pack_nodes
from pld.adapters.students.engine.prepacked import prepack
from pld.adapters.students.engine.scorer import PlainForward, Scorer
from pld.adapters.students.engine.token_trie import Branch, Pack, Rest, plan
from pld.errors import StudentError
from pld.ports import Scores

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma3_text")
"""Architectures (`model_type` of the text model) whose scores are tested against plain forward passes."""

# tokens of one prefill forward. In float32, the dtype of reported figures, cached prefixes are reused in whole pieces
# only, so that the bits of a score don't depend on the cache's content; a shorter piece would be slower
_EXACT_PIECE = 128
_PIECE = 512
# prompts whose hidden states are kept until the LM head is applied
_CHUNK = 4096
T = TypeVar("T")
R = TypeVar("R")


class UnsupportedArchitectureError(StudentError):
    """The architecture's attention or LM head does more than this scorer computes."""


class TrieScorer(Scorer):
    """`nodes`: tokens of one forward pass, None for as many as suit the machine."""

    engine = "packed token trie"

    def __init__(self, model: Any, name: str, nodes: int | None) -> None:
        super().__init__(model, name)
        text = model.config.get_text_config()
        if text.model_type not in FAMILIES:
            self._refuse(f"{text.model_type}")
        types = getattr(text, "layer_types", None) or ["full_attention"] * int(text.num_hidden_layers)
        self._layer_types: tuple[str, ...] = tuple(types)
        quantized = bool(getattr(model, "is_quantized", False))
        cascade = can_cascade(model.device)
        self._share_layers = cascade and not quantized
        self._pass = functools.partial(ForwardPass, device=self._device, cascade=cascade)
        exact = self.dtype == "float32"
        self._piece = _EXACT_PIECE if exact else _PIECE
        self._cache = PrefixCache(cache_bytes(model.device), _EXACT_PIECE if exact else 1)
        self._nodes = nodes or pack_nodes(model.device, text)
        plain = PlainForward.of(model)
        if self._share_layers:
            prepack(self._body)
        if difference := self.disagreement(plain):
            self._refuse(difference)

    def forget(self) -> None:
        self._cache.clear()

    def prefill(self, ids: Ids) -> Layers:
        import torch

        layers = self._cache.get(ids)
        if layers is None:
            with torch.inference_mode(), exact_products():
                common, layers = self._cache.longest_prefix(ids)
                layers = self._extended(layers, common, ids[common:])
        self._cache.put(ids, layers)
        return layers

    def score(self, prefix: Ids, prompts: Sequence[Prompt], on_scored: Callable[[Sequence[int]], object]) -> Scores:
        import torch

        layers = self.prefill(prefix) if prefix else {}
        scores = np.full((len(prompts), len(prompts[0].labels)), np.nan)
        order = sorted(range(len(prompts)), key=lambda at: prompts[at].ids)
        trees = {labels: LabelTree.of(labels) for labels in {prompt.labels for prompt in prompts}}
        with torch.inference_mode(), exact_products():
            for start in range(0, len(order), _CHUNK):
                rests = [
                    Rest(at, prompts[at].ids[len(prefix) :], trees[prompts[at].labels])
                    for at in order[start : start + _CHUNK]
                ]
                hidden = self._hidden(layers, len(prefix), rests, on_scored)
                values = self._head.scores([hidden[rest.index] for rest in rests], [rest.tree for rest in rests])
                for rest, row in zip(rests, values, strict=True):
                    scores[rest.index] = row
        return scores

    def _hidden(
        self, layers: Layers, length: int, rests: Sequence[Rest], on_scored: Callable[[Sequence[int]], object]
    ) -> dict[int, Any]:
        """Index of a prompt → hidden states [1 + T, d] at the positions that predict its labels' tokens."""
        import torch

        # one worker, with all threads, where the device or the layers can't be shared
        workers = int(torch.get_num_threads()) if self._share_layers else 1
        root = plan(rests, self._nodes, workers)
        found: dict[int, Any] = {}

        def run(task: Pack | Branch) -> dict[int, Any]:
            return dict(self._run(layers, length, task))

        tasks: list[Pack | Branch] = [*root.branches, *root.packs]
        for hidden in in_parallel(run, tasks, workers):
            found |= hidden
            on_scored(list(hidden))
        return found

    def _run(self, layers: Layers, length: int, task: Pack | Branch) -> Iterator[tuple[int, Any]]:
        """A pack, or a branch with all its packs: (index of the prompt, hidden states)."""
        import torch

        if isinstance(task, Branch):
            extended = self._extended(layers, length, task.ids)
            parts: list[Pack | Branch] = [*task.branches, *task.packs]
            for part in parts:
                yield from self._run(extended, length + len(task.ids), part)
            return
        positions = length + np.asarray(task.depths, dtype=np.int64)
        hidden = self._forward(task.tokens, self._pass(layers, length, positions, task.visible()))[0]  # [Q, d]
        for index, nodes in task.places.items():
            yield index, hidden[torch.tensor(nodes, device=hidden.device)]

    def _extended(self, layers: Layers, length: int, ids: Ids) -> Layers:
        """The keys and values of `length` tokens, followed by those of `ids`."""
        import torch

        for start in range(0, len(ids), self._piece):
            piece = ids[start : start + self._piece]
            positions = length + start + np.arange(len(piece))
            run = self._pass(layers, length + start, positions, np.tri(len(piece), dtype=bool), keep=True)
            self._forward(piece, run)
            self._check_layers(run.windows)
            layers = {
                layer: tuple(
                    torch.cat([old, new], dim=2) for old, new in zip(layers[layer], run.kept[layer], strict=True)
                )
                if layers
                else pair
                for layer, pair in run.kept.items()
            }
        return layers

    def _forward(self, ids: Sequence[int], run: ForwardPass) -> Any:
        """`ids` [Q] → the decoder's last hidden states [1, Q, d]."""
        import torch

        # transformers takes a 4-d mask as it is instead of building one; the real masks are in `run`
        unused_mask = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self._device)
        output = self._body(
            input_ids=torch.tensor([ids], device=self._device),
            attention_mask=unused_mask,
            position_ids=torch.from_numpy(run.positions)[None].to(self._device),
            use_cache=False,
            shared=run,
        )
        return output.last_hidden_state

    def _check_layers(self, windows: dict[int, int | None]) -> None:
        """Every layer must have called our attention, and a sliding one must have passed its window."""
        for layer, kind in enumerate(self._layer_types):
            if kind not in ("full_attention", "sliding_attention") or layer not in windows:
                self._refuse(f"layer {layer} of another kind ({kind})")
            if kind == "sliding_attention" and windows[layer] is None:
                self._refuse(f"no window at the sliding layer {layer}")

    def _refuse(self, found: str) -> NoReturn:
        raise UnsupportedArchitectureError(f"expected one of {', '.join(FAMILIES)}, got {found} (student {self._name})")


class PrefixCache:
    """Keys and values of the most recently used prefixes: at most `limit` bytes, but always the last one.

    A new prefix reuses what it shares with a cached one in whole pieces of `piece` tokens. With one-token pieces an
    edited prompt is recomputed from its first changed token on, but the last bits of its scores depend on the cache's
    content; with the pieces of prefill they don't.
    """

    def __init__(self, limit: int, piece: int) -> None:
        self._limit = limit
        self._piece = piece
        self._held: OrderedDict[Ids, Layers] = OrderedDict()

    def get(self, ids: Ids) -> Layers | None:
        if ids in self._held:
            self._held.move_to_end(ids)
        return self._held.get(ids)

    def longest_prefix(self, ids: Ids) -> tuple[int, Layers]:
        """How many of the first tokens of `ids` are cached, and their keys and values (views)."""
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


def in_parallel(work: Callable[[T], R], tasks: Sequence[T], workers: int) -> Iterator[R]:
    """Results as they finish, by single-threaded workers: on a CPU two of them finish more packs than one with two
    threads, and they stay fast when the machine is busy, because they don't wait for each other in every product.

    One worker or one task runs in the calling thread, with all of torch's threads. torch releases Python's lock inside
    its operators, so threads suffice, and they share the model and the cached prefix.
    """
    import torch

    if workers < 2 or len(tasks) < 2:
        yield from map(work, tasks)
        return
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(min(workers, len(tasks)), initializer=torch.set_num_threads, initargs=(1,))
    try:
        for future in as_completed([pool.submit(torch.inference_mode()(work), task) for task in tasks]):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        # setting a thread's own number also changes the default of later threads
        torch.set_num_threads(threads)
