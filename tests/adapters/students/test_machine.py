import pytest

from pld.adapters.students.engine.machine import cache_bytes, pack_nodes


class Sizes:
    """Those of Gemma 3 4B's text model."""

    hidden_size, intermediate_size = 2560, 10240


@pytest.mark.parametrize(
    ("free_gib", "nodes"),
    [(0.1, 384), (2, 1638), (4, 3276), (70, 4096)],
)
def test_a_forward_pass_on_a_gpu_is_sized_by_its_free_memory(free_gib, nodes, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (int(free_gib * 2**30), 80 * 2**30))
    assert pack_nodes("cuda", Sizes) == nodes
    assert cache_bytes("cuda") == int(free_gib * 2**30) // 4


def test_a_forward_pass_on_a_cpu_has_a_fixed_size():
    assert pack_nodes("cpu", Sizes) == 384
    assert 2**28 < cache_bytes("cpu") < 2**40
