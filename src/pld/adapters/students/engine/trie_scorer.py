"""Log-likelihoods of labels after prompts that begin alike: the shared prefix is computed once, the rest as a trie."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from pld.adapters.students.engine.attention import Layers, Pass, can_cascade
from pld.adapters.students.engine.chat import Prompt
from pld.adapters.students.engine.head import Head
from pld.adapters.students.engine.label_tree import Ids, LabelTree
from pld.adapters.students.engine.machine import exact_products, held_bytes, pack_nodes
from pld.adapters.students.engine.prefix_store import PrefixStore
from pld.adapters.students.engine.prepacked import prepack
from pld.adapters.students.engine.reference import Reference
from pld.adapters.students.engine.token_trie import Branch, Pack, Rest, plan
from pld.adapters.students.engine.workers import in_parallel
from pld.errors import StudentError
from pld.ports import Scores

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma3_text")
"""Architectures (`model_type` of the text model) whose scores are tested against plain forwards."""

# prefill in pieces of so many tokens. In float32, in which figures are reported, prefixes are also reused in whole
# pieces only, so that the bits of a score do not depend on what was held before; a shorter piece would cost speed
_EXACT_PIECE = 128
_PIECE = 512
# prompts whose hidden states are held until they meet the head
_CHUNK = 4096


class UnsupportedArchitectureError(StudentError):
    """The architecture's attention or head does more than is done here."""


class Scorer:
    """Runs one loaded model. `context`: the most tokens of a sequence, `dtype`: of its weights, by torch's name."""

    engine = "packed token trie"

    def __init__(self, model: Any, name: str, nodes: int | None) -> None:
        text = model.config.get_text_config()
        self._name = name
        if text.model_type not in FAMILIES:
            self._refuse(f"{text.model_type}")
        self.context = int(text.max_position_embeddings)
        self.dtype = str(model.dtype).removeprefix("torch.")
        types = getattr(text, "layer_types", None) or ["full_attention"] * int(text.num_hidden_layers)
        self._layer_types: tuple[str, ...] = tuple(types)
        self._body = model.get_decoder()
        self._device = model.device
        self._quantized = bool(getattr(model, "is_quantized", False))
        self._cascade = can_cascade(model.device)
        self._head = Head(model.get_output_embeddings(), getattr(text, "final_logit_softcapping", None))
        exact = self.dtype == "float32"
        self._piece = _EXACT_PIECE if exact else _PIECE
        self._store = PrefixStore(held_bytes(model.device), _EXACT_PIECE if exact else 1)
        self._nodes = nodes or pack_nodes(model.device, text)
        reference = Reference.of(model)
        if self._cascade and not self._quantized:
            prepack(self._body)
        self._check_against(reference)

    def forget(self) -> None:
        """Drop every held prefix."""
        self._store.clear()

    def prefill(self, ids: Ids) -> Layers:
        """Keys and values of a prefix, computed as far as they are not held."""
        import torch

        layers = self._store.get(ids)
        if layers is None:
            with torch.inference_mode(), exact_products():
                common, layers = self._store.beginning(ids)
                layers = self._continued(layers, common, ids[common:])
        self._store.put(ids, layers)
        return layers

    def score(self, prefix: Ids, prompts: Sequence[Prompt], on_scored: Callable[[Sequence[int]], object]) -> Scores:
        """[n, k] for `prompts`, all of which begin with `prefix` and are longer and have k labels.

        `on_scored` is called with the places of those that are finished.
        """
        import torch

        layers = self.prefill(prefix) if prefix else {}
        scores = np.full((len(prompts), len(prompts[0].labels)), np.nan)
        order = sorted(range(len(prompts)), key=lambda at: prompts[at].ids)
        with torch.inference_mode(), exact_products():
            for start in range(0, len(order), _CHUNK):
                chunk = order[start : start + _CHUNK]
                trees = _trees([prompts[at].labels for at in chunk])
                rests = [Rest(at, prompts[at].ids[len(prefix) :], tree) for at, tree in zip(chunk, trees, strict=True)]
                hidden = self._hidden(layers, len(prefix), rests, on_scored)
                for rest, values in zip(rests, self._head.scores(hidden, trees), strict=True):
                    scores[rest.index] = values
        return scores

    def _hidden(
        self, layers: Layers, length: int, rests: Sequence[Rest], on_scored: Callable[[Sequence[int]], object]
    ) -> list[Any]:
        """Per prompt the hidden states [1 + T, d] that foretell its labels' tokens."""
        workers = self._workers()
        root = plan(rests, self._nodes, workers)
        tasks: list[Pack | Branch] = [*root.branches, *root.packs]
        found: dict[int, Any] = {}

        def work(task: Pack | Branch) -> dict[int, Any]:
            return dict(self._run(layers, length, task))

        for hidden in in_parallel(work, tasks, workers):
            found |= hidden
            on_scored(list(hidden))
        return [found[rest.index] for rest in rests]

    def _workers(self) -> int:
        """Single-threaded workers; one with all threads where the device or the layers can't be shared."""
        import torch

        return 1 if self._quantized or not self._cascade else int(torch.get_num_threads())

    def _run(self, layers: Layers, length: int, task: Pack | Branch) -> Iterator[tuple[int, Any]]:
        """A pack, or a branch with all that hangs on it: (prompt, hidden states)."""
        import torch

        if isinstance(task, Branch):
            continued = self._continued(layers, length, task.ids)
            parts: list[Pack | Branch] = [*task.branches, *task.packs]
            for part in parts:
                yield from self._run(continued, length + len(task.ids), part)
            return
        positions = length + np.asarray(task.depths, dtype=np.int64)
        hidden = self._forward(task.tokens, self._pass(layers, length, positions, task.sees()))[0]  # [Q, d]
        for index, places in task.places.items():
            yield index, hidden[torch.tensor(places, device=hidden.device)]

    def _continued(self, layers: Layers, length: int, ids: Ids) -> Layers:
        """The keys and values of `length` tokens and then of `ids`."""
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

    def _pass(
        self,
        layers: Layers,
        length: int,
        positions: npt.NDArray[np.int64],
        sees: npt.NDArray[np.bool_],
        keep: bool = False,
    ) -> Pass:
        return Pass(
            prefix=layers,
            prefix_length=length,
            positions=positions,
            sees=sees,
            device=self._device,
            cascade=self._cascade,
            keep=keep,
        )

    def _forward(self, ids: Sequence[int], run: Pass) -> Any:
        """`ids` [Q] → the body's last hidden states [1, Q, d]."""
        import torch

        # a mask of four dimensions is taken as it is, so that transformers builds none: the run holds what is seen
        stand_in = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self._device)
        output = self._body(
            input_ids=torch.tensor([ids], device=self._device),
            attention_mask=stand_in,
            position_ids=torch.from_numpy(run.positions)[None].to(self._device),
            use_cache=False,
            shared=run,
        )
        return output.last_hidden_state

    def _check_against(self, reference: Reference) -> None:
        """Refuse an architecture whose attention or head does more than is done here."""
        try:
            ours = float(self.score(reference.ids[:6], [reference.prompt], lambda _places: None)[0, 0])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            self._refuse(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        self.forget()
        if not reference.agrees(ours):
            self._refuse(f"a log-probability of {reference.log_probability:.4f} plainly and {ours:.4f} in a trie")

    def _check_layers(self, windows: dict[int, int | None]) -> None:
        """Every layer must be attention that went through ours, and a sliding one must have said its window."""
        for layer, kind in enumerate(self._layer_types):
            if kind not in ("full_attention", "sliding_attention") or layer not in windows:
                self._refuse(f"layer {layer} of another kind ({kind})")
            if kind == "sliding_attention" and windows[layer] is None:
                self._refuse(f"no window at the sliding layer {layer}")

    def _refuse(self, found: str) -> NoReturn:
        raise UnsupportedArchitectureError(f"expected one of {', '.join(FAMILIES)}, got {found} (student {self._name})")


def _trees(labels: Sequence[tuple[Ids, ...]]) -> list[LabelTree]:
    made = {one: LabelTree.of(one) for one in set(labels)}
    return [made[one] for one in labels]
