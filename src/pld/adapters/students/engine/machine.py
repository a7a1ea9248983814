"""Choose device, precision and batch sizes for this machine."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pld.errors import StudentError

CPU_NODES = 384
"""Tokens of one forward pass on a CPU: fewer make the matrix products slower, more make them no faster."""
_MOST_NODES = 4096


def choose_device(device: str) -> str:
    """`auto` becomes cuda where there is one, else cpu. Raises StudentError for cuda without a device."""
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise StudentError("expected a CUDA device, got none (student.device); set student.device=auto or cpu")
    return "cuda" if available and device in ("auto", "cuda") else "cpu"


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device == "cuda":
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def pack_nodes(device: Any, text: Any) -> int:
    """Tokens of one forward pass: enough to keep a CPU busy, or what fits into a quarter of the GPU's free memory.

    `text`: the text model's configuration. A token's activations are estimated as 16 hidden and 4 intermediate vectors
    of 4 bytes, for one layer at a time.
    """
    import torch

    if torch.device(device).type != "cuda":
        return CPU_NODES
    free, _ = torch.cuda.mem_get_info(device)
    token = 4 * (16 * int(text.hidden_size) + 4 * int(text.intermediate_size))
    return max(CPU_NODES, min(_MOST_NODES, int(free) // 4 // token))


def cache_bytes(device: Any) -> int:
    """Memory for the prefix cache: a sixteenth of the machine's, or a quarter of what is free on a GPU."""
    import torch

    if torch.device(device).type != "cuda":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16
    return int(torch.cuda.mem_get_info(device)[0]) // 4


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """Within the block, the fastest float32 matrix products that are accurate to float32."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_precision())
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@functools.cache
def _precision() -> str:
    """ "medium" where a measurement shows float32 accuracy: on some CPUs it selects faster float32 kernels, on others
    (AMX) and on GPUs it rounds to bfloat16, with a relative error of 2e-3."""
    import torch

    if torch.cuda.is_available():
        return "highest"
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        error = float((a @ b - exact).norm() / exact.norm())
    finally:
        torch.set_float32_matmul_precision(before)
    return "medium" if error < 1e-5 else "highest"
