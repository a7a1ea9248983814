"""The Student on a CUDA device: the same code with larger packs, and 4-bit and 8-bit weights."""

import numpy as np
import pytest

from pld.records import Message

MESSAGES = (Message(role="system", content="Name the topic in one word. " * 20),)
INPUTS = ["Nuns pray.", "", "She sews 3 dresses.", "Nuns pray a lot.", "word " * 60]
LABELS = ["gender", "religion", "religious"]


@pytest.fixture(autouse=True)
def _needs_cuda():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.mark.gpu
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma3", "mistral"])
def test_every_architecture_scores_on_the_gpu_as_on_the_cpu(architecture, tiny_folder, make_student):
    folder = tiny_folder(architecture, max_position_embeddings=1024)
    there = make_student(model=folder, device="cuda")
    assert there.describe()["device"] == "cuda"
    assert there.describe()["engine"] == "packed token trie"
    here = make_student(model=folder).score(MESSAGES, INPUTS, LABELS)
    np.testing.assert_allclose(there.score(MESSAGES, INPUTS, LABELS), here, atol=1e-3, rtol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_bitsandbytes_weights_on_the_gpu_score_near_the_full_ones(quantization, smollm, make_student):
    student = make_student(quantization=quantization, dtype="bfloat16", device="auto")
    scores = student.score(MESSAGES, INPUTS, LABELS)
    np.testing.assert_allclose(scores, smollm.score(MESSAGES, INPUTS, LABELS), atol=3)
    assert student.describe()["device"] == "cuda"
    assert student.generate([[Message(role="user", content="Say hello.")]], 4)[0].tokens > 0
