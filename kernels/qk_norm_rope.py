"""RMS norm of queries and keys over all heads together, then rotary positions.

    y      = x * rsqrt(mean(x^2) + eps) * weight              (mean over the whole width D, before splitting heads)
    out_2i   = y_2i * cos_i - y_2i+1 * sin_i                  (adjacent channels form a pair)
    out_2i+1 = y_2i * sin_i + y_2i+1 * cos_i

B batch, L tokens, D channels, N heads, d = D / N head size, P = d / 2 pairs. `cos`, `sin` are (L, P): one angle per
token and pair, the same for every head (rope.py). All of it is in float32 (float64 for float64 inputs), rounded once
at the end. The released network was run with the reciprocal root rounded to bfloat16; that only adds noise (up to 0.4
% per row) and is not copied.
"""

from __future__ import annotations

import torch
from torch import Tensor

from . import kitchen
from .dispatch import refusal


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-6) -> Tensor:
    """(..., D) -> (..., D), float32 or wider."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    inverse_rms = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)
    return wide * inverse_rms * weight.to(wide.dtype)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each adjacent channel pair of x (B, L, N, d) by the angle of its token; cos, sin (L, P)."""
    pairs = x.unflatten(-1, (-1, 2))  # (B, L, N, P, 2)
    cos, sin = cos.to(x.dtype).unsqueeze(-2), sin.to(x.dtype).unsqueeze(-2)  # (L, 1, P)
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        # The same two lines as one complex product, in the dtype of x: 2.4 times faster with backward on a CPU.
        return torch.view_as_real(torch.view_as_complex(pairs) * torch.complex(cos, sin)).flatten(-2)
    even, odd = pairs.unbind(-1)  # (B, L, N, P) each
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def norm_heads(x: Tensor, weight: Tensor, num_heads: int, eps: float = 1e-6) -> Tensor:
    """RMS norm and split into heads: (B, L, D) -> (B, L, N, d) in the dtype of x. No rotation (cross attention)."""
    if not refusal("qk_norm_rope", x, weight):
        from . import library

        return library.norm_heads(x, weight, num_heads, eps)
    return norm_heads_formula(x, weight, num_heads, eps)


def qk_norm_rope(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_heads: int,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """q, k (B, L, D) -> normed and rotated (B, L, N, d) each, in their own dtype."""
    learned = cos.requires_grad or sin.requires_grad  # the fused form has no gradient for positions
    if not learned and not refusal("qk_norm_rope", q, k, q_weight, k_weight, cos, sin):
        from . import library

        return library.qk_norm_rope(q, k, q_weight, k_weight, cos, sin, num_heads, eps)
    if not learned and not kitchen.refusal("qk_norm_rope", q, k, q_weight, k_weight, cos, sin):
        return kitchen.qk_norm_rope(q, k, q_weight, k_weight, cos, sin, num_heads, eps)
    return qk_norm_rope_formula(q, k, q_weight, k_weight, cos, sin, num_heads, eps)


def norm_heads_formula(x: Tensor, weight: Tensor, num_heads: int, eps: float = 1e-6) -> Tensor:
    """The definition of `norm_heads`, in plain PyTorch."""
    return rms_norm(x, weight, eps).to(x.dtype).unflatten(-1, (num_heads, -1))


def qk_norm_rope_formula(
    q: Tensor,
    k: Tensor,
    q_weight: Tensor,
    k_weight: Tensor,
    cos: Tensor,
    sin: Tensor,
    num_heads: int,
    eps: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """The definition of `qk_norm_rope`, in plain PyTorch."""
    q_heads = rms_norm(q, q_weight, eps).unflatten(-1, (num_heads, -1))
    k_heads = rms_norm(k, k_weight, eps).unflatten(-1, (num_heads, -1))
    return rotate_pairs(q_heads, cos, sin).to(q.dtype), rotate_pairs(k_heads, cos, sin).to(k.dtype)
