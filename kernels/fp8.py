"""Rows of 8-bit numbers: what norms hand to 8-bit matrix products, and those products.

    stored = round(value / scale),  scale = max |value| / 448          (e4m3; one scale for the channels of one token)

A float keeps its relative precision (1/16) over the 15 powers of two below the largest, so one scale per token is
enough. A weight matrix has one scale per output channel. Products are summed in float32 and scaled afterwards:

    out = (stored W_stored^T) * scale_token * scale_channel + bias

Emitting these numbers from the norm itself saves reading and writing the tensor once more. Inference only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import one_row, refusal
from .join_norm import join_norm_affine_formula, join_norm_modulate_formula
from .norm_modulate import norm_modulate_formula
from .qk_norm_rope import qk_norm_rope_formula

FP8 = torch.float8_e4m3fn
LARGEST = 448.0  # of e4m3
SMALLEST_ROW = 1e-12  # a row of zeros has this maximum
OLDEST = (8, 9)  # compute capability of the first NVIDIA GPUs with e4m3


class Rows8(NamedTuple):
    """Numbers and their scales."""

    values: Tensor  # (..., D) or (..., N, d), float8_e4m3fn
    scales: Tensor  # (...), float32

    def widen(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """What the numbers stand for."""
        scales = self.scales.reshape(*self.scales.shape, *[1] * (self.values.dim() - self.scales.dim()))
        return (self.values.to(torch.float32) * scales).to(dtype)

    def flatten_tokens(self) -> Rows8:
        """(B, F, S, D) -> (B, F * S, D)."""
        return Rows8(self.values.flatten(1, 2), self.scales.flatten(1, 2))


def quantise_rows(x: Tensor, axes: int = 1) -> Rows8:
    """The definition of the 8-bit form; one scale over the last `axes` axes."""
    wide = x.to(torch.float32)
    over = tuple(range(-axes, 0))
    scales = wide.abs().amax(over, keepdim=True).clamp_min(SMALLEST_ROW) / LARGEST
    return Rows8((wide / scales).clamp(-LARGEST, LARGEST).to(FP8), scales.flatten(-axes).squeeze(-1))


def to_rows8(x: Tensor, gelu: bool = False) -> Rows8:
    """(..., D) -> rows in 8 bits, by the fused form where it can; with the tanh form of GELU before it."""
    if not fp8_refusal("quantise_rows", x):
        from . import library_fp8

        return Rows8(*library_fp8.quantise_rows(x, gelu))
    return quantise_rows(F.gelu(x.to(torch.float32), approximate="tanh") if gelu else x)


def fp8_refusal(operation: str, *tensors: Tensor | None) -> str:
    """Why the fused form that emits 8 bits is not used; empty when it is."""
    reason = refusal(operation, *tensors)
    if reason:
        return reason
    given = [tensor for tensor in tensors if tensor is not None]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return "gradients are wanted, and 8-bit numbers have none"
    return missing_fp8(given[0].device)


def missing_fp8(device: torch.device) -> str:
    """Why an NVIDIA GPU has no e4m3; empty when it has, and on AMD's, where the compiler makes such rows."""
    if device.type != "cuda" or torch.version.hip is not None:
        return ""
    capability = torch.cuda.get_device_capability(device)
    return "" if capability >= OLDEST else f"sm_{capability[0]}{capability[1]} has no 8-bit floats"


def norm_modulate_fp8(x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6) -> Rows8:
    """norm_modulate.py in 8 bits: (B, F, S, D) -> rows (B, F, S, D), scales (B, F, S)."""
    if one_row(shift, scale) and not fp8_refusal("norm_modulate", x, shift, scale):
        from . import library_fp8

        return Rows8(*library_fp8.norm_modulate(x, shift, scale, eps))
    return quantise_rows(norm_modulate_formula(x, shift, scale, eps, torch.float32))


def join_norm_affine_fp8(
    x: Tensor, update: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Rows8]:
    """join_norm.py with learned weight and bias: (joined in the dtype of x, its norm in 8 bits)."""
    if one_row(gate) and not fp8_refusal("join_norm", x, update, gate, weight, bias):
        from . import library_fp8

        joined, values, scales = library_fp8.join_norm(x, update, gate, weight, bias, True, eps)
        return joined, Rows8(values, scales)
    joined, normed = join_norm_affine_formula(x, update, gate, weight, bias, eps, torch.float32)
    return joined, quantise_rows(normed)


def join_norm_modulate_fp8(
    x: Tensor, update: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float = 1e-6
) -> tuple[Tensor, Rows8]:
    """join_norm.py with time modulation: (joined in the dtype of x, its norm in 8 bits)."""
    if one_row(gate, shift, scale) and not fp8_refusal("join_norm", x, update, gate, shift, scale):
        from . import library_fp8

        joined, values, scales = library_fp8.join_norm(x, update, gate, scale, shift, False, eps)
        return joined, Rows8(values, scales)
    joined, normed = join_norm_modulate_formula(x, update, gate, shift, scale, eps, torch.float32)
    return joined, quantise_rows(normed)


def qk_norm_rope_fp8(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_heads: int,
    eps: float = 1e-6,
) -> tuple[Rows8, Rows8]:
    """qk_norm_rope.py in 8 bits: values (B, L, N, d), scales (B, L)."""
    if not fp8_refusal("qk_norm_rope", q, k, q_weight, k_weight, cos, sin):
        from . import library_fp8

        out_q, out_k, q_scales, k_scales = library_fp8.qk_norm_rope(q, k, q_weight, k_weight, cos, sin, num_heads, eps)
        return Rows8(out_q, q_scales), Rows8(out_k, k_scales)
    q, k, q_weight, k_weight = (x.to(torch.float32) for x in (q, k, q_weight, k_weight))
    made = qk_norm_rope_formula(q, k, q_weight, k_weight, cos, sin, num_heads, eps)
    return quantise_rows(made[0], 2), quantise_rows(made[1], 2)


def fp8_linear(x: Rows8, weight: Rows8, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """(..., D) in 8 bits times (H, D) in 8 bits -> (..., H) in `dtype`."""
    if fp8_linear_refusal(x, weight, dtype):
        return fp8_linear_formula(x, weight, bias, dtype)
    flat = torch._scaled_mm(
        x.values.flatten(0, -2),
        weight.values.t(),
        scale_a=x.scales.reshape(-1, 1),
        scale_b=weight.scales.reshape(1, -1),
        bias=None if bias is None else bias.to(dtype),
        out_dtype=dtype,
    )
    return flat.unflatten(0, x.values.shape[:-1])


def fp8_linear_formula(x: Rows8, weight: Rows8, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The definition, in plain PyTorch."""
    out = F.linear(x.values.to(torch.float32), weight.values.to(torch.float32))
    out = out * x.scales.unsqueeze(-1) * weight.scales
    return (out if bias is None else out + bias.to(out.dtype)).to(dtype)


def fp8_linear_refusal(x: Rows8, weight: Rows8, dtype: torch.dtype) -> str:
    """Why the 8-bit product of the matrix library is not used; empty when it is."""
    device = x.values.device
    if device.type == "meta":
        return ""  # nothing runs; work is only counted
    if device.type != "cuda":
        return f"tensors on {device.type}"
    if missing_fp8(device):
        return missing_fp8(device)
    if torch.version.hip is not None:
        return "the 8-bit floats of most AMD GPUs are other ones"
    if dtype != torch.bfloat16:
        return f"results in {dtype}; the library gives bfloat16 with a scale per row"
    if x.values.shape[-1] % 16 or weight.values.shape[0] % 16:
        return f"{x.values.shape[-1]} x {weight.values.shape[0]}; both must be multiples of 16"
    return ""
