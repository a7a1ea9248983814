"""What this machine can do: device, bfloat16, and fast float32 products that are float32."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path

from pld.errors import StudentError


def choose_device(wanted: str) -> str:
    """`auto` is CUDA where there is one. Raises StudentError for a CUDA device that is not there."""
    import torch

    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise StudentError("student.device: wanted a CUDA device, found none; set student.device=auto or cpu")
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
