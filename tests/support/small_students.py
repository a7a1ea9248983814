"""Small Students: the real SmolLM2, and tiny random models of every architecture with its tokenizer."""

import pytest

from pld.adapters.students.engine.weights import locate
from pld.adapters.students.transformers import TransformersStudent

SETTINGS = {
    "name": "smollm2-135m",
    "model": "asset:smollm2-135m",
    "gguf_file": None,
    "dtype": "float32",
    "search_dtype": "auto",
    "quantization": "none",
    "device": "cpu",
    "pack_tokens": None,
    "batch_size": 4,
}
WINDOW = 8


@pytest.fixture(scope="session")
def make_student():
    return lambda **changes: TransformersStudent(**(SETTINGS | changes))


@pytest.fixture(scope="session")
def smollm(make_student):
    return make_student()


@pytest.fixture(scope="session")
def smollm_folder():
    return locate("asset:smollm2-135m", None).location


def _sizes(vocabulary, **more):
    return {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        # large, so that scores of labels and positions differ by nats
        "initializer_range": 0.4,
    } | more


def _configs(vocabulary):
    from transformers import (
        BloomConfig,
        Gemma2Config,
        Gemma3TextConfig,
        LlamaConfig,
        MistralConfig,
        Qwen2Config,
        Qwen3Config,
    )

    return {
        "llama": LlamaConfig(**_sizes(vocabulary)),
        "qwen2": Qwen2Config(**_sizes(vocabulary, tie_word_embeddings=True)),
        "qwen3": Qwen3Config(**_sizes(vocabulary, head_dim=8)),
        "bloom": BloomConfig(vocab_size=vocabulary, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3),
        "gemma2": Gemma2Config(**_sizes(vocabulary, head_dim=8, sliding_window=WINDOW, initializer_range=0.2)),
        "gemma3": Gemma3TextConfig(
            **_sizes(vocabulary, head_dim=8, sliding_window=WINDOW, initializer_range=0.2),
            layer_types=["sliding_attention", "full_attention"],
            query_pre_attn_scalar=8,
            final_logit_softcapping=30.0,
        ),
        "mistral": MistralConfig(**_sizes(vocabulary, sliding_window=WINDOW)),
    }


@pytest.fixture(scope="session")
def tiny_folder(smollm_folder, tmp_path_factory):
    """A function: architecture → a folder with a random model of it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm_folder)
    made = {}

    def make(architecture, **changes):
        key = (architecture, *sorted(changes.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp(architecture)
            config = _configs(len(tokenizer))[architecture]
            config.update(changes)
            torch.manual_seed(7)
            AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(made[key])
            tokenizer.save_pretrained(made[key])
        return str(made[key])

    return make
