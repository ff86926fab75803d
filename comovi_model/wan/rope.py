"""Rotary positions: tables of cosines and sines from positions that may be fractions.

L tokens, P = d/2 channel pairs of a head of size d. The pairs of a head are shared out between the three axes:
floor(P/3) each for row and column, the rest for the frame (22, 21, 21 pairs for d = 128). Within an axis of n pairs,
pair j turns by position * 10000^(-j/n). Angles are made in float64; the tables in float32 differ from a complex128
product by 2.4e-6 at the output of the network.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

# Apple's GPUs, some of Intel's and DirectML have no float64.
WITHOUT_FLOAT64 = ("mps", "xpu", "privateuseone")


def exact_device(device: torch.device) -> torch.device:
    """Where float64 is computed for this device: there, or on the CPU."""
    return torch.device("cpu") if device.type in WITHOUT_FLOAT64 else device


class RopeTable(NamedTuple):
    """The angle of every token and channel pair, as cosine and sine."""

    cos: Tensor  # (L, P)
    sin: Tensor  # (L, P)


def pairs_per_axis(head_dim: int) -> tuple[int, int, int]:
    """Channel pairs that turn with the frame, the row and the column."""
    pairs = head_dim // 2
    return pairs - 2 * (pairs // 3), pairs // 3, pairs // 3


def axis_angles(positions: Tensor, num_pairs: int) -> Tensor:
    """(n,) positions -> (n, num_pairs) angles in radians, float64."""
    exponents = torch.arange(num_pairs, dtype=torch.float64, device=positions.device) / max(num_pairs, 1)
    return positions.to(torch.float64)[:, None] * torch.pow(10000.0, -exponents)


def rope_angles(frames: Tensor, rows: Tensor, columns: Tensor, head_dim: int) -> Tensor:
    """Angles (L, P) for tokens in the order frame, row, column; each axis is a 1-D tensor of positions."""
    shape = (len(frames), len(rows), len(columns))
    by_frame, by_row, by_column = (
        axis_angles(positions, pairs)
        for positions, pairs in zip((frames, rows, columns), pairs_per_axis(head_dim), strict=True)
    )
    return torch.cat(
        (
            by_frame[:, None, None].expand(*shape, -1),
            by_row[None, :, None].expand(*shape, -1),
            by_column[None, None, :].expand(*shape, -1),
        ),
        dim=-1,
    ).flatten(0, 2)


@lru_cache(maxsize=16)
def grid_rope(grid: tuple[int, int, int], head_dim: int, device: torch.device, dtype: torch.dtype) -> RopeTable:
    """The table of a whole grid (frames, rows, columns) of tokens counted from 0, kept for the next call."""
    with torch.inference_mode(False), torch.no_grad():  # the kept table must also serve a later training step
        exact = exact_device(device)
        frames, rows, columns = (torch.arange(count, dtype=torch.float64, device=exact) for count in grid)
        angles = rope_angles(frames, rows, columns, head_dim)
        return RopeTable(angles.cos().to(dtype).to(device), angles.sin().to(dtype).to(device))
