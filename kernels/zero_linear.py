"""The gate between the two branches (Eq. 6).

    out = residual + (source W^T + b)

W and b start at zero, so that two branches that were trained apart begin to influence each other from nothing.
`residual` keeps its dtype (the float32 stream); the product runs in `dtype`, the dtype of the matrix products.

The matrix library can add the product to the residual while it still has it in registers, in float32, so that the
product itself is never rounded or written. That needs a plain layer, and on other dtypes than the stream's a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .dispatch import not_asked, wanted


def zero_linear(residual: Tensor, source: Tensor, linear: Any, dtype: torch.dtype) -> Tensor:
    """(B, F, S, D), (B, F, S, D) -> (B, F, S, D). `linear` is called, not unpacked, so low-rank patches on it act."""
    if not refusal(residual, source, linear, dtype):
        return accumulated(residual, source.to(dtype), linear)
    return residual + linear(source.to(dtype))


def accumulated(residual: Tensor, source: Tensor, linear: nn.Linear) -> Tensor:
    """The product added by the matrix library itself, then the bias."""
    flat, rows = residual.flatten(0, -2), source.flatten(0, -2)
    if residual.dtype == source.dtype:
        out = torch.addmm(flat, rows, linear.weight.t())
    else:
        out = torch.ops.aten.addmm.dtype(flat, rows, linear.weight.t(), residual.dtype)
    return out.add_(linear.bias).unflatten(0, residual.shape[:-1])


def refusal(residual: Tensor, source: Tensor, linear: Any, dtype: torch.dtype) -> str:
    """Why product and sum are two operations; empty when they are one."""
    asked = wanted("zero_linear")
    if asked != "triton":
        return not_asked(asked)
    if type(linear) is not nn.Linear or linear.bias is None or linear.weight.dtype != dtype:
        return "the layer is not a plain one"
    learned = (residual, source, linear.weight, linear.bias)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in learned):
        return "gradients are wanted"
    if residual.dtype == dtype:
        return ""
    if residual.device.type != "cuda":
        return f"{residual.dtype} and {dtype} together need a GPU, not {residual.device.type}"
    return "" if hasattr(torch.ops.aten.addmm, "dtype") else "this PyTorch has no product of two dtypes"
