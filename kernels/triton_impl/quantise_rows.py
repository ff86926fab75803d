"""Rows to 8 bits with one scale each, one program per row; with the tanh form of GELU before it where asked.

Reads a row once and writes it once. Formula and letters: ../fp8.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import row_warps, store_row


@triton.jit
def quantise_rows_fwd_kernel(x_ptr, out_ptr, row_scale_ptr, channels, GELU: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    inside = columns < channels
    x = tl.load(x_ptr + row * channels + columns, mask=inside, other=0.0).to(tl.float32)
    if GELU:  # x (1 + tanh u) / 2 = x / (1 + exp(-2 u))
        x = x / (1.0 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)))
    store_row(out_ptr, row_scale_ptr, row, channels, columns, inside, x, True)


def quantise_rows(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """(..., D) -> values (..., D) in e4m3, scales (...)."""
    x = x.contiguous()
    channels = x.shape[-1]
    out = torch.empty_like(x, dtype=torch.float8_e4m3fn)
    scales = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    block = triton.next_power_of_2(channels)
    quantise_rows_fwd_kernel[(scales.numel(),)](
        x, out, scales, channels, GELU=gelu, BLOCK=block, num_warps=row_warps(block)
    )
    return out, scales
