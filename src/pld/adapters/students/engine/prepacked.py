"""Prepack a CPU model's linear layers: store weights in oneDNN's own layout.

torch's linear layer rearranges its weights at each call, which costs about a quarter of the product for the few hundred
rows of a pack, and more for a single request. torch.compile prepacks with the same operators when it freezes a model.
"""

from typing import Any

from pld.adapters.students.engine.machine import CPU_NODES

_ACTIVATIONS = {"SiLU": ("swish", ""), "SiLUActivation": ("swish", ""), "GELUTanh": ("gelu", "tanh")}


def prepack(decoder: Any) -> None:
    """Replace the linear layers of `decoder` in place and fuse each gated MLP, where this machine's torch can."""
    import torch

    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return
    packed = _layer_type()
    for name, module in list(decoder.named_modules()):
        if type(module) is torch.nn.Linear and module.weight.device.type == "cpu" and _multiplies(module.weight.dtype):
            parent, _, own = name.rpartition(".")
            setattr(decoder.get_submodule(parent), own, packed(module))
    for module in decoder.modules():
        activation = _ACTIVATIONS.get(type(getattr(module, "act_fn", None)).__name__)
        parts = [getattr(module, part, None) for part in ("gate_proj", "up_proj", "down_proj")]
        if activation is not None and all(isinstance(part, packed) for part in parts):
            gate, up, down = parts
            module.forward = _gated(gate, up, down, *activation)


def _multiplies(dtype: Any) -> bool:
    import torch

    return dtype is torch.float32 or (dtype is torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _gated(gate: Any, up: Any, down: Any, activation: str, algorithm: str) -> Any:
    """x → down(activation(gate(x)) · up(x)), with activation and product fused into the linear layers' kernels."""
    import torch

    ops = torch.ops.mkldnn

    def forward(x: Any) -> Any:
        gated = ops._linear_pointwise(x, gate.packed, gate.bias, activation, [], algorithm)
        return down(ops._linear_pointwise.binary(x, gated, up.packed, up.bias, "mul"))

    return forward


def _layer_type() -> Any:
    """In a function, because torch is imported on first use."""
    import torch

    class PrepackedLinear(torch.nn.Module):  # type: ignore[misc]
        def __init__(self, linear: Any) -> None:
            super().__init__()
            # oneDNN chooses the layout for the number of rows: about a pack's
            self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), CPU_NODES)
            self.bias = linear.bias

        def forward(self, x: Any) -> Any:
            return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")

    return PrepackedLinear
