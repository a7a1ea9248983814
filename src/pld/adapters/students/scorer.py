"""Log-likelihoods of labels after prompts that begin alike: the shared prefix is computed once and held."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from pld.adapters.students.attention import Layers, Pass
from pld.adapters.students.chat import Prompt
from pld.adapters.students.label_tree import Ids, LabelTree, common_length
from pld.adapters.students.machine import exact_products
from pld.errors import StudentError
from pld.ports import Scores

# prefill in pieces of so many tokens; what two prefixes share is reused in whole pieces, so that the bits of a piece
# do not depend on what was held before
_PIECE = 256
_HELD = 2
# rows whose logits over the whole vocabulary are in memory at once
_HEAD_ROWS = 128


@dataclass(frozen=True)
class _Held:
    ids: Ids
    layers: Layers


class Scorer:
    """Runs one loaded model. `context`: the most tokens of a sequence, `dtype`: of its weights, by torch's name."""

    def __init__(self, model: Any, name: str) -> None:
        text = model.config.get_text_config()
        self._name = name
        if getattr(text, "max_position_embeddings", None) is None:
            self._refuse("no max_position_embeddings")
        self.context = int(text.max_position_embeddings)
        self.dtype = str(model.dtype).removeprefix("torch.")
        types = getattr(text, "layer_types", None) or ["full_attention"] * int(text.num_hidden_layers)
        self._layer_types: tuple[str, ...] = tuple(types)
        self._soft_cap = getattr(text, "final_logit_softcapping", None)
        self._body = model.get_decoder()
        self._head = model.get_output_embeddings()
        self._device = model.device
        self._held: list[_Held] = []
        self._check_against(model)

    def forget(self) -> None:
        """Drop every held prefix."""
        self._held.clear()

    def prefill(self, ids: Ids) -> Layers:
        """Keys and values of a prefix, from what is held as far as that goes; the two used last are held."""
        import torch

        held = next((held for held in self._held if held.ids == ids), None)
        if held is not None:
            self._held.remove(held)
        else:
            with torch.inference_mode(), exact_products():
                held = _Held(ids, self._compute(ids))
        self._held = [*self._held, held][-_HELD:]
        return held.layers

    def score(self, prefix: Ids, prompts: Sequence[Prompt], batch_size: int) -> Iterator[tuple[list[Prompt], Scores]]:
        """Batches of `prompts`, all of which begin with `prefix` and are longer, with their [b, k] scores."""
        import torch

        layers = self.prefill(prefix) if prefix else {}
        by_labels: dict[tuple[Ids, ...], list[Prompt]] = {}
        for prompt in prompts:
            by_labels.setdefault(prompt.labels, []).append(prompt)
        for labels, group in by_labels.items():
            tree = LabelTree.of(labels)
            group.sort(key=lambda prompt: len(prompt.ids))
            for start in range(0, len(group), batch_size):
                batch = group[start : start + batch_size]
                with torch.inference_mode(), exact_products():
                    scores = self._score_batch(layers, len(prefix), [prompt.ids for prompt in batch], tree)
                yield batch, scores

    def _compute(self, ids: Ids) -> Layers:
        import torch

        common, layers = self._in_common(ids)
        for start in range(common, len(ids), _PIECE):
            piece = torch.tensor([ids[start : start + _PIECE]], device=self._device)
            length = piece.shape[1]
            run = Pass(
                prefix=layers,
                prefix_length=start,
                positions=torch.arange(start, start + length, device=self._device)[None],
                ancestors=torch.ones(1, length, length, dtype=torch.bool, device=self._device).tril(),
                keep=True,
            )
            self._forward(piece, run)
            self._check_layers(run.windows)
            layers = {
                layer: tuple(
                    torch.cat([old, new], dim=2) for old, new in zip(layers[layer], run.kept[layer], strict=True)
                )
                if start
                else pair
                for layer, pair in run.kept.items()
            }
        return layers

    def _in_common(self, ids: Ids) -> tuple[int, Layers]:
        """The whole pieces at the beginning of `ids` that are held already."""
        best = max(self._held, key=lambda held: common_length([held.ids, ids]), default=None)
        common = common_length([best.ids, ids]) // _PIECE * _PIECE if best else 0
        if best is None or not common:
            return 0, {}
        return common, {layer: (k[:, :, :common], v[:, :, :common]) for layer, (k, v) in best.layers.items()}

    def _score_batch(self, layers: Layers, prefix: int, prompts: Sequence[Ids], tree: LabelTree) -> Scores:
        """Rows are the prompts' ends, then the tree's nodes, then padding, which no other token sees."""
        import torch

        nodes = len(tree.tokens)
        lengths = [len(ids) - prefix for ids in prompts]
        width = max(lengths) + nodes
        ids = np.zeros((len(prompts), width), dtype=np.int64)
        positions = np.tile(np.arange(prefix, prefix + width), (len(prompts), 1))
        sees = np.tile(np.tri(width, dtype=bool), (len(prompts), 1, 1))
        wanted = np.zeros((len(prompts), 1 + nodes), dtype=np.int64)
        for row, (prompt, length) in enumerate(zip(prompts, lengths, strict=True)):
            ids[row, :length] = prompt[prefix:]
            wanted[row] = np.arange(length - 1, length + nodes)
            for node in range(nodes):
                at = length + node
                ids[row, at] = tree.tokens[node]
                positions[row, at] = len(prompt) + tree.depths[node] - 1
                sees[row, at, length:] = False
                sees[row, at, [length + ancestor for ancestor in tree.ancestors[node]]] = True
        run = Pass(
            prefix=layers,
            prefix_length=prefix,
            positions=torch.from_numpy(positions).to(self._device),
            ancestors=torch.from_numpy(sees).to(self._device),
        )
        hidden = self._forward(torch.from_numpy(ids).to(self._device), run)  # [B, S, d]
        rows = torch.arange(len(prompts), device=hidden.device)[:, None]
        chosen = hidden[rows, torch.from_numpy(wanted).to(hidden.device)]  # [B, 1 + T, d]
        return self._label_scores(chosen, tree)

    def _label_scores(self, hidden: Any, tree: LabelTree) -> Scores:
        """`hidden` [B, 1 + T, d] → the sum of each label's log-probabilities [B, k]."""
        import torch

        batch, places, _ = hidden.shape
        tokens = sorted({token for steps in tree.steps for _, token in steps})
        column = {token: at for at, token in enumerate(tokens)}
        log_probabilities = []
        for rows in hidden.flatten(0, 1).split(_HEAD_ROWS):
            logits = self._capped(self._head(rows).float())  # [rows, vocabulary]
            log_probabilities.append(self._of_tokens(rows, logits, tokens) - logits.logsumexp(dim=1, keepdim=True))
        steps = torch.cat(log_probabilities).view(batch, places, len(tokens)).cpu().double().numpy()
        scores = np.zeros((batch, len(tree.steps)))
        for label, parts in enumerate(tree.steps):
            for place, token in parts:
                scores[:, label] += steps[:, place, column[token]]
        return scores

    def _of_tokens(self, hidden: Any, logits: Any, tokens: Sequence[int]) -> Any:
        """The logits [rows, tokens] of a few tokens; in a coarse dtype computed again in float32.

        A bfloat16 logit near 20 moves in steps of 0.125, in which labels tie that the hidden state tells apart.
        """
        import torch

        weight = getattr(self._head, "weight", None)
        if weight is None or weight.dtype not in (torch.bfloat16, torch.float16) or self._head.bias is not None:
            return logits[:, tokens]
        return self._capped(hidden.float() @ weight[tokens].float().T)

    def _capped(self, logits: Any) -> Any:
        import torch

        return logits if self._soft_cap is None else torch.tanh(logits / self._soft_cap) * self._soft_cap

    def _forward(self, ids: Any, run: Pass) -> Any:
        """`ids` [B, S] → the body's last hidden states [B, S, d]."""
        import torch

        # a mask of four dimensions is taken as it is, so that transformers builds none: the run holds what is seen
        stand_in = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self._device)
        output = self._body(
            input_ids=ids, attention_mask=stand_in, position_ids=run.positions, use_cache=False, shared=run
        )
        return output.last_hidden_state

    def _check_against(self, model: Any) -> None:
        """Refuse an architecture whose attention or head does more than is done here, by one short plain forward."""
        import torch

        ids = torch.arange(1, 13, device=self._device)[None]
        try:
            with torch.inference_mode(), exact_products():
                plain = model(input_ids=ids, use_cache=False).logits[0, -1].float().log_softmax(dim=0)
                best = int(plain.argmax())
                layers = self._compute(tuple(ids[0, :6].tolist()))
                ours = self._score_batch(layers, 6, [tuple(ids[0].tolist())], LabelTree.of([(best,)]))[0, 0]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self._refuse(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
        # coarse weights and products differ by more than rounding in float32 does
        exact = self.dtype == "float32" and not getattr(model, "is_quantized", False)
        tolerance = 1e-3 if exact else 0.5
        if not abs(ours - float(plain[best])) < tolerance:
            self._refuse(f"a log-probability of {float(plain[best]):.4f} plainly and {ours:.4f} with a shared prefix")

    def _check_layers(self, windows: dict[int, int | None]) -> None:
        """Every layer must be attention that went through ours, and a sliding one must have said its window."""
        for layer, kind in enumerate(self._layer_types):
            if kind not in ("full_attention", "sliding_attention") or layer not in windows:
                self._refuse(f"layer {layer} of another kind ({kind})")
            if kind == "sliding_attention" and windows[layer] is None:
                self._refuse(f"no window at the sliding layer {layer}")

    def _refuse(self, found: str) -> NoReturn:
        raise StudentError(
            f"student {self._name}: wanted attention and a head as in Llama, Qwen, Mistral or Gemma 3, found {found}; "
            "the architecture is not supported, name another model"
        )
