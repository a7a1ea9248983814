"""Free generation for chain of thought: greedy, in batches padded on the left, by transformers."""

from collections.abc import Iterator, Sequence
from typing import Any

from pld.adapters.students.engine.label_tree import Ids
from pld.adapters.students.engine.machine import exact_products


def continue_greedily(
    model: Any, prompts: Sequence[Ids], max_tokens: int, ends: Sequence[int], batch_size: int
) -> Iterator[tuple[int, Ids, bool]]:
    """(place of the prompt, at most `max_tokens` new tokens without the end, whether it came to one of `ends`).

    Prompts of like length share a batch.
    """
    import torch

    order = sorted(range(len(prompts)), key=lambda at: (len(prompts[at]), at))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        width = max(len(prompts[at]) for at in places)
        ids = torch.full((len(places), width), ends[0], dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, at in enumerate(places):
            ids[row, width - len(prompts[at]) :] = torch.tensor(prompts[at])
            mask[row, width - len(prompts[at]) :] = 1
        with torch.inference_mode(), exact_products():
            written = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                generation_config=_greedy(max_tokens, ends),
            )
        for row, at in enumerate(places):
            new = written[row, width:].tolist()
            end = next((i for i, token in enumerate(new) if token in ends), len(new))
            yield at, tuple(new[:end]), end < len(new)


def _greedy(max_tokens: int, ends: Sequence[int]) -> Any:
    """Whatever sampling the model's own files ask for."""
    from transformers import GenerationConfig

    return GenerationConfig(
        max_new_tokens=max_tokens, do_sample=False, eos_token_id=list(ends), pad_token_id=ends[0], use_cache=True
    )
