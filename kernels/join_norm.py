"""Gated residual sum, and the layer norm that follows it.

    joined = x + gate * update + addend            (gate and addend may be absent)
    normed = LayerNorm(joined) * weight + bias     (affine form, before cross attention)
    normed = LayerNorm(joined) * (1 + scale) + shift       (modulated form, before the feed-forward network)

B batch, F latent frames, S tokens of one frame, D channels. The residual stream `x` stays in float32 even where the
matrix products run in bfloat16: thirty layers of additions would otherwise lose the small updates. Gate, shift and
scale have one row per frame, (B, F, 1, D) or (B, 1, 1, D). The addend is what the other branch says after the block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import kitchen
from .dispatch import one_row, refusal
from .norm_modulate import norm_modulate_formula


def join(x: Tensor, update: Tensor, gate: Tensor | None = None, addend: Tensor | None = None) -> Tensor:
    """x + gate * update + addend, in the dtype of x. (B, F, S, D) -> (B, F, S, D)."""
    if x.dim() == 4 and one_row(gate) and not refusal("join_norm", x, update, gate, addend):
        from . import library

        return library.join(x, update, gate, addend)
    return join_formula(x, update, gate, addend)


def join_formula(x: Tensor, update: Tensor, gate: Tensor | None = None, addend: Tensor | None = None) -> Tensor:
    """The definition of `join`, in plain PyTorch."""
    joined = x + update if gate is None else torch.addcmul(x, update.to(x.dtype), gate)
    return joined if addend is None else joined + addend


def join_norm_affine(
    x: Tensor,
    update: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """(joined in the dtype of x, LayerNorm(joined) with learned weight and bias in `out_dtype`)."""
    if one_row(gate) and not refusal("join_norm", x, update, gate, weight, bias):
        from . import library

        return library.join_norm_affine(x, update, gate, weight, bias, eps, out_dtype or x.dtype)
    return join_norm_affine_formula(x, update, gate, weight, bias, eps, out_dtype)


def join_norm_modulate(
    x: Tensor,
    update: Tensor,
    gate: Tensor | None,
    shift: Tensor,
    scale: Tensor,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """(joined in the dtype of x, LayerNorm(joined) * (1 + scale) + shift in `out_dtype`)."""
    if one_row(gate, shift, scale) and not refusal("join_norm", x, update, gate, shift, scale):
        from . import library

        return library.join_norm_modulate(x, update, gate, shift, scale, eps, out_dtype or x.dtype)
    if one_row(gate, shift, scale) and not kitchen.refusal("join_norm", x, update, gate, shift, scale):
        joined = join_formula(x, update, gate)
        return joined, kitchen.norm_modulate(joined, shift, scale, eps, out_dtype or x.dtype)
    return join_norm_modulate_formula(x, update, gate, shift, scale, eps, out_dtype)


def join_norm_affine_formula(
    x: Tensor,
    update: Tensor,
    gate: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition of `join_norm_affine`, in plain PyTorch."""
    joined = join_formula(x, update, gate)
    normed = F.layer_norm(joined, joined.shape[-1:], weight.to(joined.dtype), bias.to(joined.dtype), eps)
    return joined, normed.to(out_dtype or x.dtype)


def join_norm_modulate_formula(
    x: Tensor,
    update: Tensor,
    gate: Tensor | None,
    shift: Tensor,
    scale: Tensor,
    eps: float = 1e-6,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition of `join_norm_modulate`, in plain PyTorch."""
    joined = join_formula(x, update, gate)
    return joined, norm_modulate_formula(joined, shift, scale, eps, out_dtype or x.dtype)
