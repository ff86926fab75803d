"""What the launchers and the kernels share."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


def frame_rows(row: Tensor, batch: int, frames: int) -> Tensor:
    """A modulation row (B or 1, F or 1, 1, D) as a view (B, F, D): one row per latent frame, nothing copied."""
    return row.expand(batch, frames, 1, row.shape[-1]).squeeze(2)


def row_warps(block: int) -> int:
    """Warps of a program that holds one row: 16 numbers or more for every thread."""
    return min(max(block // 512, 1), 16)


@triton.jit
def store_row(out_ptr, row_scale_ptr, row, channels, columns, inside, values, FP8: tl.constexpr):
    """One row of results; with FP8 as e4m3 (largest 448) with one float32 scale, value = stored * scale."""
    if FP8:
        largest = tl.max(tl.abs(values), axis=0)  # columns outside hold 0
        scale = tl.maximum(largest, 1e-12) / 448.0
        tl.store(row_scale_ptr + row, scale)
        values = tl.minimum(tl.maximum(values * (1.0 / scale), -448.0), 448.0)
    tl.store(out_ptr + row * channels + columns, values.to(out_ptr.dtype.element_ty), mask=inside)
