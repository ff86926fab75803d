"""What the launchers share."""

from __future__ import annotations

from torch import Tensor


def frame_rows(row: Tensor, batch: int, frames: int) -> Tensor:
    """A modulation row (B or 1, F or 1, 1, D) as a view (B, F, D): one row per latent frame, nothing copied."""
    return row.expand(batch, frames, 1, row.shape[-1]).squeeze(2)


def row_warps(block: int) -> int:
    """Warps of a program that holds one row: 16 numbers or more for every thread."""
    return min(max(block // 512, 1), 16)
