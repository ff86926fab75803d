"""RMS norm over the whole width, then rotation of channel pairs, for q and k in one launch. See ../qk_norm_rope.py.

One program per token and tensor; a row is read and written in whole 128-bit words.
The table of angles is the same for every head: (L, d/2) numbers that stay in the cache. Results may be in 8 bits, with
a scale per token.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import row_warps, store_row


@triton.jit
def qk_norm_rope_fwd_kernel(
    q_ptr, k_ptr, q_weight_ptr, k_weight_ptr, cos_ptr, sin_ptr, q_out_ptr, k_out_ptr, q_scale_ptr, k_scale_ptr,
    length, channels, head_pairs, eps, ROPE: tl.constexpr, FP8: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)  # of B * L
    first = tl.program_id(1) == 0
    x_ptr = q_ptr if first else k_ptr
    weight_ptr = q_weight_ptr if first else k_weight_ptr
    out_ptr = q_out_ptr if first else k_out_ptr
    row_scale_ptr = q_scale_ptr if first else k_scale_ptr
    columns = tl.arange(0, 2 * PAIRS)
    inside = columns < channels
    x = tl.load(x_ptr + row * channels + columns, mask=inside, other=0.0).to(tl.float32)
    inverse = 1.0 / tl.sqrt(tl.sum(x * x, axis=0) / channels + eps)
    x = x * inverse * tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    if ROPE:
        pair = tl.arange(0, PAIRS)
        angle = (row % length) * head_pairs + pair % head_pairs
        real = pair * 2 < channels
        cos = tl.load(cos_ptr + angle, mask=real, other=0.0).to(tl.float32)
        sin = tl.load(sin_ptr + angle, mask=real, other=0.0).to(tl.float32)
        even, odd = tl.split(tl.reshape(x, (PAIRS, 2)))  # both members of a pair are in one thread
        x = tl.reshape(tl.join(even * cos - odd * sin, even * sin + odd * cos), (2 * PAIRS,))
    store_row(out_ptr, row_scale_ptr, row, channels, columns, inside, x, FP8)


def qk_norm_rope(
    q: Tensor, k: Tensor, q_weight: Tensor, k_weight: Tensor, cos: Tensor, sin: Tensor, num_heads: int, eps: float,
    out_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """q, k (B, L, D), cos, sin (L, d/2) -> (B, L, N, d) each, in their own dtype or fp8 with scales (B, L)."""
    q, k, cos, sin = (tensor.contiguous() for tensor in (q, k, cos, sin))
    batch, length, channels = q.shape
    out_q, out_k = (torch.empty_like(x, dtype=out_dtype or x.dtype) for x in (q, k))
    fp8 = out_dtype == torch.float8_e4m3fn
    scales = [torch.empty((batch, length), dtype=torch.float32, device=q.device) if fp8 else None for _ in range(2)]
    pairs = triton.next_power_of_2(channels) // 2
    qk_norm_rope_fwd_kernel[(batch * length, 2)](
        q, k, q_weight, k_weight, cos, sin, out_q, out_k, *(scales if fp8 else (q, k)),
        length, channels, channels // num_heads // 2, eps,
        ROPE=True, FP8=fp8, PAIRS=pairs, num_warps=row_warps(2 * pairs),
    )  # fmt: skip
    return out_q.unflatten(-1, (num_heads, -1)), out_k.unflatten(-1, (num_heads, -1)), scales[0], scales[1]


def norm_heads(x: Tensor, weight: Tensor, num_heads: int, eps: float) -> Tensor:
    """The norm alone: (B, L, D) -> (B, L, N, d)."""
    x = x.contiguous()
    batch, length, channels = x.shape
    out = torch.empty_like(x)
    pairs = triton.next_power_of_2(channels) // 2
    qk_norm_rope_fwd_kernel[(batch * length, 1)](
        x, x, weight, weight, weight, weight, out, out, x, x, length, channels, 1, eps,
        ROPE=False, FP8=False, PAIRS=pairs, num_warps=row_warps(2 * pairs),
    )  # fmt: skip
    return out.unflatten(-1, (num_heads, -1))
