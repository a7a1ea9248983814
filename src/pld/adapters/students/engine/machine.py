"""What this machine can do: device, bfloat16, and fast float32 products that are float32."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pld.errors import StudentError

CPU_NODES = 384
"""Tokens of one forward on a CPU: for fewer the products are slower, for more no faster."""
_MOST_NODES = 4096


def choose_device(wanted: str) -> str:
    """`auto` is CUDA where there is one. Raises StudentError for a CUDA device that is not there."""
    import torch

    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise StudentError("expected a CUDA device, got none (student.device); set student.device=auto or cpu")
    return "cuda" if found and wanted in ("auto", "cuda") else "cpu"


def has_bfloat16(device: str) -> bool:
    """Whether products in bfloat16 have instructions of their own."""
    if device == "cuda":
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def pack_nodes(device: Any, text: Any) -> int:
    """Tokens of one forward: enough to keep the products busy, on a GPU as many as its free memory lets be.

    `text` is the model's configuration; a token's activations in one layer at a time are taken as 16 hidden and 4
    intermediate vectors of 4 bytes, and a quarter of the free memory is for them.
    """
    import torch

    if torch.device(device).type != "cuda":
        return CPU_NODES
    free, _ = torch.cuda.mem_get_info(device)
    token = 4 * (16 * int(text.hidden_size) + 4 * int(text.intermediate_size))
    return max(CPU_NODES, min(_MOST_NODES, int(free) // 4 // token))


def held_bytes(device: Any) -> int:
    """Memory for held prefixes: a sixteenth of the machine's, or a quarter of what is free on a GPU."""
    import torch

    if torch.device(device).type != "cuda":
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 16
    return int(torch.cuda.mem_get_info(device)[0]) // 4


@contextlib.contextmanager
def exact_products() -> Iterator[None]:
    """The fastest float32 products that stay float32, while the block runs."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(_precision())
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@functools.cache
def _precision() -> str:
    """ "medium" where it measures as float32: on some CPUs it picks faster true float32 kernels, on others (AMX) and
    on GPUs it rounds to bfloat16, with a relative error of 2e-3."""
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
