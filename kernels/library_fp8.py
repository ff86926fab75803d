"""The fused operations whose results are in 8 bits, as PyTorch operators. They have no gradients: inference only."""

from __future__ import annotations

import torch
from torch import Tensor

from .library import heads_shape

FP8 = torch.float8_e4m3fn


def _rows(x: Tensor) -> tuple[Tensor, Tensor]:
    scales = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    return torch.empty(x.shape, dtype=FP8, device=x.device), scales


@torch.library.custom_op("comovi::norm_modulate_fp8", mutates_args=())
def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    from .triton_impl import norm_modulate as fused

    values, scales = fused.norm_modulate(x, shift, scale, eps, FP8)
    assert scales is not None
    return values, scales


@norm_modulate.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return _rows(x)


@torch.library.custom_op("comovi::join_norm_fp8", mutates_args=())
def join_norm(
    x: Tensor, update: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, affine: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """weight and bias (D,) if affine, else scale and shift rows."""
    from .triton_impl import join_norm as fused

    joined, values, scales = fused.join_norm(x, update, gate, weight, bias, affine, eps, FP8)
    assert scales is not None
    return joined, values, scales


@join_norm.register_fake
def _(
    x: Tensor, update: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, affine: bool, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device), *_rows(x)


@torch.library.custom_op("comovi::qk_norm_rope_fp8", mutates_args=())
def qk_norm_rope(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, num_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from .triton_impl import qk_norm_rope as fused

    out_q, out_k, q_scales, k_scales = fused.qk_norm_rope(q, k, q_weight, k_weight, cos, sin, num_heads, eps, FP8)
    assert q_scales is not None
    assert k_scales is not None
    return out_q, out_k, q_scales, k_scales


@qk_norm_rope.register_fake
def _(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, num_heads: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scales = [torch.empty(q.shape[:2], dtype=torch.float32, device=q.device) for _ in range(2)]
    return heads_shape(q, num_heads, FP8), heads_shape(k, num_heads, FP8), scales[0], scales[1]


@torch.library.custom_op("comovi::quantise_rows", mutates_args=())
def quantise_rows(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    from .triton_impl import quantise_rows as fused

    return fused.quantise_rows(x, gelu)


@quantise_rows.register_fake
def _(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    return _rows(x)
