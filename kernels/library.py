"""The fused operations as PyTorch operators: known to torch.compile by their shapes, and differentiable.

Importing this file registers them under `torch.ops.comovi`; a second copy of the package in one process (ComfyUI's and
pip's) registers them again, which PyTorch allows. The backward pass computes the plain formula once more and
differentiates it: right by construction, and no slower than before the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .join_norm import join_formula, join_norm_affine_formula, join_norm_modulate_formula
from .norm_modulate import norm_modulate_formula
from .pose_attention import pose_attention_formula
from .qk_norm_rope import norm_heads_formula, qk_norm_rope_formula


@torch.library.custom_op("comovi::norm_modulate", mutates_args=())
def norm_modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
    from .triton_impl import norm_modulate as fused

    return fused.norm_modulate(x, shift, scale, eps, out_dtype)


@norm_modulate.register_fake
def _(x: Tensor, shift: Tensor, scale: Tensor, eps: float, out_dtype: torch.dtype) -> Tensor:
    return torch.empty(x.shape, dtype=out_dtype, device=x.device)


@torch.library.custom_op("comovi::join", mutates_args=())
def join(x: Tensor, update: Tensor, gate: Tensor | None) -> Tensor:
    from .triton_impl import join as fused

    return fused.join(x, update, gate)


@join.register_fake
def _(x: Tensor, update: Tensor, gate: Tensor | None) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("comovi::join_norm_modulate", mutates_args=())
def join_norm_modulate(
    x: Tensor, update: Tensor, gate: Tensor | None, shift: Tensor, scale: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    from .triton_impl import join_norm as fused

    return fused.join_norm(x, update, gate, scale, shift, False, eps, out_dtype)


@torch.library.custom_op("comovi::join_norm_affine", mutates_args=())
def join_norm_affine(
    x: Tensor, update: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    from .triton_impl import join_norm as fused

    return fused.join_norm(x, update, gate, weight, bias, True, eps, out_dtype)


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

    return fused.qk_norm_rope(q, k, q_weight, k_weight, cos, sin, num_heads, eps)


@qk_norm_rope.register_fake
def _(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, num_heads: int, eps: float
) -> tuple[Tensor, Tensor]:
    return tuple(_heads_shape(x, num_heads) for x in (q, k))


@torch.library.custom_op("comovi::norm_heads", mutates_args=())
def norm_heads(x: Tensor, weight: Tensor, num_heads: int, eps: float) -> Tensor:
    from .triton_impl import qk_norm_rope as fused

    return fused.norm_heads(x, weight, num_heads, eps)


@norm_heads.register_fake
def _(x: Tensor, weight: Tensor, num_heads: int, eps: float) -> Tensor:
    return _heads_shape(x, num_heads)


def _heads_shape(x: Tensor, num_heads: int) -> Tensor:
    shape = (x.shape[0], x.shape[1], num_heads, x.shape[2] // num_heads)
    return torch.empty(shape, dtype=x.dtype, device=x.device)


@torch.library.custom_op("comovi::pose_attention", mutates_args=())
def pose_attention(q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    from .triton_impl import pose_attention as fused

    return fused.pose_attention(q, k, v, groups)


@pose_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, groups: int) -> Tensor:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device)


def _differentiate(operator: Any, formula: Callable[..., Any]) -> None:
    """Backward by the plain formula, computed again from the inputs that were kept."""

    def keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        del output
        ctx.save_for_backward(*(value for value in inputs if isinstance(value, Tensor)))
        ctx.others = [None if isinstance(value, Tensor) else value for value in inputs]
        ctx.places = [isinstance(value, Tensor) for value in inputs]

    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        tensors = iter(ctx.saved_tensors)
        values = [next(tensors) if there else other for there, other in zip(ctx.places, ctx.others, strict=True)]
        needed = [bool(need) for need in ctx.needs_input_grad]
        with torch.enable_grad():
            fresh = [
                value.detach().requires_grad_(need) if isinstance(value, Tensor) else value
                for value, need in zip(values, needed, strict=True)
            ]
            made = formula(*fresh)
            outputs = made if isinstance(made, tuple) else (made,)
            pairs = [(out, grad) for out, grad in zip(outputs, gradients, strict=True) if grad is not None]
            wanted = [value for value, need in zip(fresh, needed, strict=True) if need]
            found = torch.autograd.grad(
                [out for out, _ in pairs], wanted, [grad for _, grad in pairs], allow_unused=True
            )
        answers = iter(found)
        return tuple(next(answers) if need else None for need in needed)

    operator.register_autograd(backward, setup_context=keep)


_differentiate(norm_modulate, norm_modulate_formula)
_differentiate(join, join_formula)
_differentiate(join_norm_modulate, join_norm_modulate_formula)
_differentiate(join_norm_affine, join_norm_affine_formula)
_differentiate(qk_norm_rope, qk_norm_rope_formula)
_differentiate(norm_heads, norm_heads_formula)
_differentiate(pose_attention, pose_attention_formula)
