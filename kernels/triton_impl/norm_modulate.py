"""out = LayerNorm(x) * (1 + scale) + shift, one program per token. Formula and letters: ../norm_modulate.py.

Reads x once and writes the result once, in the dtype that was asked for or in 8 bits with a scale per token; shift and
scale have one row per latent frame and stay in the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import frame_rows, row_warps, store_row


@triton.jit
def norm_modulate_fwd_kernel(
    x_ptr, shift_ptr, scale_ptr, out_ptr, row_scale_ptr, frames, tokens, channels, eps,
    stride_shift_b, stride_shift_f, stride_scale_b, stride_scale_f, FP8: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # of B * F * S
    frame = (row // tokens) % frames
    batch = row // tokens // frames
    columns = tl.arange(0, BLOCK)
    inside = columns < channels
    x = tl.load(x_ptr + row * channels + columns, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, axis=0) / channels
    centred = tl.where(inside, x - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / channels + eps)
    shift_at = shift_ptr + batch * stride_shift_b + frame * stride_shift_f + columns
    scale_at = scale_ptr + batch * stride_scale_b + frame * stride_scale_f + columns
    shift = tl.load(shift_at, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(scale_at, mask=inside, other=0.0).to(tl.float32)
    out = centred * inverse * (1.0 + scale) + shift
    store_row(out_ptr, row_scale_ptr, row, channels, columns, inside, out, FP8)


def norm_modulate(
    x: Tensor, shift: Tensor, scale: Tensor, eps: float, out_dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """x (B, F, S, D); shift, scale (B, 1 or F, 1, D) of any stride over B and F -> result, scales (B, F, S) of fp8."""
    batch, frames, tokens, channels = x.shape
    x = x.contiguous()
    out = torch.empty_like(x, dtype=out_dtype)
    fp8 = out_dtype == torch.float8_e4m3fn
    row_scales = torch.empty(x.shape[:3], dtype=torch.float32, device=x.device) if fp8 else None
    shift, scale = frame_rows(shift, batch, frames), frame_rows(scale, batch, frames)
    block = triton.next_power_of_2(channels)
    norm_modulate_fwd_kernel[(batch * frames * tokens,)](
        x, shift, scale, out, row_scales if fp8 else x, frames, tokens, channels, eps,
        *shift.stride()[:2], *scale.stride()[:2], FP8=fp8, BLOCK=block, num_warps=row_warps(block),
    )  # fmt: skip
    return out, row_scales
