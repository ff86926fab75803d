"""A linear layer and the tanh form of GELU behind it.

    out = gelu_tanh(x W^T + b)

On a GPU the matrix library applies the activation while its result is still in registers, so that the widest tensor of
a block (14,336 channels) is written once and not read and written again. Whether a build of PyTorch does that with the
tanh form (and not with the exact one) is asked of it once, with numbers.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .dispatch import constant, not_asked, wanted

TOLERANCE = 1e-4  # the two forms of GELU differ by up to 5e-4


def linear_gelu(layer: nn.Module, x: Tensor) -> Tensor:
    """(..., D) -> (..., H). A host's layers (ComfyUI) are called, not unpacked, so that patches on them act."""
    if not refusal(layer, x):
        flat = torch._addmm_activation(layer.bias, x.flatten(0, -2), layer.weight.t(), use_gelu=True)
        return flat.unflatten(0, x.shape[:-1])
    return F.gelu(layer(x), approximate="tanh")


def refusal(layer: nn.Module, x: Tensor) -> str:
    """Why the activation is an operation of its own; empty when it is not."""
    asked = wanted("linear_gelu")
    if asked != "triton":
        return not_asked(asked)
    if x.is_meta:
        return ""  # nothing runs; work is only counted
    if x.device.type != "cuda":
        return f"tensors on {x.device.type}"
    if type(layer) is not nn.Linear or layer.bias is None or layer.weight.dtype != x.dtype:
        return "the layer is not a plain one"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, layer.weight, layer.bias)):
        return "gradients are wanted"
    return "" if epilogue_is_tanh(x.device) else "this build of PyTorch fuses another form of GELU"


@constant
def epilogue_is_tanh(device: torch.device) -> bool:
    """Ask the library with numbers where the two forms differ most, in float32 for a sharp answer."""
    return _epilogue_is_tanh(device)


@lru_cache(maxsize=8)
def _epilogue_is_tanh(device: torch.device) -> bool:
    x = torch.linspace(-4, 4, 64, device=device).reshape(64, 1).expand(64, 64).contiguous()
    weight = torch.eye(64, device=device)
    fused = torch._addmm_activation(torch.zeros(64, device=device), x, weight, use_gelu=True)
    return bool((fused - F.gelu(x, approximate="tanh")).abs().max() < TOLERANCE)
