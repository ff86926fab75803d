"""Layer norm followed by a time modulation.

    out = LayerNorm(x) * (1 + scale) + shift

B batch, F latent frames, S tokens of one frame, D channels. The norm runs over D without parameters. `shift` and
`scale` depend on the diffusion time only, so they hold one row per frame, (B, F, 1, D) or (B, 1, 1, D), and broadcast
over the tokens; a row per token is never needed unless every token has a time of its own.

Statistics and products are in float32 (float64 for float64 inputs); the result is rounded once, to `out_dtype`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from . import kitchen
from .dispatch import one_row, refusal


def norm_modulate(
    x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6, out_dtype: torch.dtype | None = None
) -> Tensor:
    """(B, F, S, D) -> (B, F, S, D) in `out_dtype` (default: that of x)."""
    if one_row(shift, scale) and not refusal("norm_modulate", x, shift, scale):
        from . import library

        return library.norm_modulate(x, shift, scale, eps, out_dtype or x.dtype)
    if one_row(shift, scale) and not kitchen.refusal("norm_modulate", x, shift, scale):
        return kitchen.norm_modulate(x, shift, scale, eps, out_dtype or x.dtype)
    return norm_modulate_formula(x, shift, scale, eps, out_dtype)


def norm_modulate_formula(
    x: Tensor, shift: Tensor, scale: Tensor, eps: float = 1e-6, out_dtype: torch.dtype | None = None
) -> Tensor:
    """The definition, in plain PyTorch; float64 for float64 inputs."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    normed = F.layer_norm(wide, wide.shape[-1:], eps=eps)
    return torch.addcmul(shift, normed, 1 + scale).to(out_dtype or x.dtype)
