"""The fused operations as PyTorch operators: known to torch.compile by their shapes, and differentiable.

Importing this file registers them under `torch.ops.comovi`; a second copy of the package in one process (ComfyUI's and
pip's) registers them again, which PyTorch allows. Their gradients are in gradients.py; the forms that give 8-bit
numbers, which have none, in library_fp8.py.
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("comovi::norm_modulate", mutates_args=())
def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
    from .triton_impl import norm_modulate as fused

    return fused.norm_modulate(x, shift, scale, eps, out_dtype)[0]


@norm_modulate.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
    return torch.empty(x.shape, dtype=out_dtype, device=x.device)


@torch.library.custom_op("comovi::join", mutates_args=())
def join(x: Tensor, update: Tensor, gate: Tensor | None, addend: Tensor | None) -> Tensor:
    from .triton_impl import join as fused

    return fused.join(x, update, gate, addend)


@join.register_fake
def _(x: Tensor, update: Tensor, gate: Tensor | None, addend: Tensor | None) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("comovi::join_norm_modulate", mutates_args=())
def join_norm_modulate(
    x: Tensor, update: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    from .triton_impl import join_norm as fused

    return fused.join_norm(x, update, gate, scale, shift, False, eps, out_dtype)[:2]


@torch.library.custom_op("comovi::join_norm_affine", mutates_args=())
def join_norm_affine(
    x: Tensor, update: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    from .triton_impl import join_norm as fused

    return fused.join_norm(x, update, gate, weight, bias, True, eps, out_dtype)[:2]


def _joined_shapes(
    x: Tensor, update: Tensor, gate: Tensor | None, a: Tensor, b: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    return (
        torch.empty(x.shape, dtype=x.dtype, device=x.device),
        torch.empty(x.shape, dtype=out_dtype, device=x.device),
    )


join_norm_modulate.register_fake(_joined_shapes)
join_norm_affine.register_fake(_joined_shapes)


@torch.library.custom_op("comovi::qk_norm_rope", mutates_args=())
def qk_norm_rope(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, num_heads: int, eps: float
) -> tuple[Tensor, Tensor]:
    from .triton_impl import qk_norm_rope as fused

    return fused.qk_norm_rope(q, k, q_weight, k_weight, cos, sin, num_heads, eps)[:2]


@qk_norm_rope.register_fake
def _(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, num_heads: int, eps: float
) -> tuple[Tensor, Tensor]:
    return heads_shape(q, num_heads), heads_shape(k, num_heads)


@torch.library.custom_op("comovi::norm_heads", mutates_args=())
def norm_heads(x: Tensor, weight: Tensor, num_heads: int, eps: float) -> Tensor:
    from .triton_impl import qk_norm_rope as fused

    return fused.norm_heads(x, weight, num_heads, eps)


@norm_heads.register_fake
def _(x: Tensor, weight: Tensor, num_heads: int, eps: float) -> Tensor:
    return heads_shape(x, num_heads)


def heads_shape(x: Tensor, num_heads: int, dtype: torch.dtype | None = None) -> Tensor:
    """(B, L, D) -> an empty (B, L, N, d)."""
    shape = (x.shape[0], x.shape[1], num_heads, x.shape[2] // num_heads)
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device)


@torch.library.custom_op("comovi::pose_attention", mutates_args=())
def pose_attention(q: Tensor, k: Tensor, v: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """The result, and the logarithms of the sums of every softmax, which the backward pass reads."""
    from .triton_impl import pose_attention as fused

    return fused.pose_attention(q, k, v, groups)


@pose_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    batch, queries, heads, _ = q.shape
    log_sums = torch.empty((batch * groups, heads, queries // groups), dtype=torch.float32, device=q.device)
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), log_sums


from . import gradients  # noqa: E402, F401  (registers the backward passes of the operators above)
