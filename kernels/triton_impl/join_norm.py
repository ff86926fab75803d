"""joined = x + gate * update, and the norm of it, in one pass. Formula and letters: ../join_norm.py.

Reads x and update once, writes joined and normed once: 3 passes over the stream where separate operations take 7.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import frame_rows, row_warps, store_row


@triton.jit
def join_norm_fwd_kernel(
    x_ptr, update_ptr, gate_ptr, weight_ptr, bias_ptr, joined_ptr, normed_ptr, row_scale_ptr, frames, tokens, channels,
    eps, stride_gate_b, stride_gate_f, stride_weight_b, stride_weight_f, stride_bias_b, stride_bias_f,
    GATE: tl.constexpr, AFFINE: tl.constexpr, FP8: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    # AFFINE: normed * weight + bias, one row for all tokens; otherwise normed * (1 + weight) + bias, a row per frame.
    row = tl.program_id(0).to(tl.int64)  # of B * F * S
    frame = (row // tokens) % frames
    batch = row // tokens // frames
    columns = tl.arange(0, BLOCK)
    inside = columns < channels
    x = tl.load(x_ptr + row * channels + columns, mask=inside, other=0.0).to(tl.float32)
    update = tl.load(update_ptr + row * channels + columns, mask=inside, other=0.0).to(tl.float32)
    if GATE:
        gate_at = gate_ptr + batch * stride_gate_b + frame * stride_gate_f + columns
        update = update * tl.load(gate_at, mask=inside, other=0.0).to(tl.float32)
    joined = x + update
    tl.store(joined_ptr + row * channels + columns, joined.to(joined_ptr.dtype.element_ty), mask=inside)
    mean = tl.sum(joined, axis=0) / channels
    centred = tl.where(inside, joined - mean, 0.0)
    inverse = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=0) / channels + eps)
    if AFFINE:
        weight = tl.load(weight_ptr + columns, mask=inside, other=0.0).to(tl.float32)
        bias = tl.load(bias_ptr + columns, mask=inside, other=0.0).to(tl.float32)
    else:
        weight_at = weight_ptr + batch * stride_weight_b + frame * stride_weight_f + columns
        bias_at = bias_ptr + batch * stride_bias_b + frame * stride_bias_f + columns
        weight = 1.0 + tl.load(weight_at, mask=inside, other=0.0).to(tl.float32)
        bias = tl.load(bias_at, mask=inside, other=0.0).to(tl.float32)
    normed = centred * inverse * weight + bias
    store_row(normed_ptr, row_scale_ptr, row, channels, columns, inside, normed, FP8)


def join_norm(
    x: Tensor, update: Tensor, gate: Tensor | None, weight: Tensor, bias: Tensor, affine: bool, eps: float,
    out_dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor | None]:  # fmt: skip
    """x, update (B, F, S, D); gate (B, 1 or F, 1, D) or None; weight and bias (D,) if affine, else rows like gate.

    -> joined, normed, and the scales (B, F, S) where normed is in 8 bits.
    """
    batch, frames, tokens, channels = x.shape
    x, update = x.contiguous(), update.contiguous()
    joined, normed = torch.empty_like(x), torch.empty_like(x, dtype=out_dtype)
    fp8 = out_dtype == torch.float8_e4m3fn
    row_scales = torch.empty(x.shape[:3], dtype=torch.float32, device=x.device) if fp8 else None
    gates = weight if gate is None else frame_rows(gate, batch, frames)  # a pointer that is not read
    rows = [tensor if affine else frame_rows(tensor, batch, frames) for tensor in (weight, bias)]
    strides = [tensor.stride()[:2] if tensor.dim() == 3 else (0, 0) for tensor in (gates, *rows)]
    block = triton.next_power_of_2(channels)
    warps = row_warps(block)
    if fp8 and x.dtype != torch.float32:
        warps = max(warps // 2, 1)  # with 8 warps one variant spills on sm_90
    join_norm_fwd_kernel[(batch * frames * tokens,)](
        x, update, gates, *rows, joined, normed, row_scales if fp8 else x, frames, tokens, channels, eps,
        *strides[0], *strides[1], *strides[2],
        GATE=gate is not None, AFFINE=affine, FP8=fp8, BLOCK=block, num_warps=warps,
    )  # fmt: skip
    return joined, normed, row_scales
