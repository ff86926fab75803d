"""Gated residual sum, and the layer norm that follows it.

    joined = x + gate * update                     (gate may be absent: joined = x + update)
    normed = LayerNorm(joined) * weight + bias     (affine form, before cross attention)
    normed = LayerNorm(joined) * (1 + scale) + shift       (modulated form, before the feed-forward network)

B batch, F latent frames, S tokens of one frame, D channels. The residual stream `x` stays in float32 even where the
matrix products run in bfloat16: thirty layers of additions would otherwise lose the small updates. Gate, shift and
scale have one row per frame, (B, F, 1, D) or (B, 1, 1, D).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .dispatch import one_row, refusal
from .norm_modulate import norm_modulate_formula


def join(x: Tensor, update: Tensor, gate: Tensor | None = None) -> Tensor:
    """x + gate * update, in the dtype of x. (B, F, S, D) -> (B, F, S, D)."""
    if x.dim() == 4 and one_row(gate) and not refusal("join_norm", x, update, gate):
        from . import library

        return library.join(x, update, gate)
    return join_formula(x, update, gate)


def join_formula(x: Tensor, update: Tensor, gate: Tensor | None = None) -> Tensor:
    """The definition of `join`, in plain PyTorch."""
    if gate is None:
        return x + update
    return torch.addcmul(x, update.to(x.dtype), gate)


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
