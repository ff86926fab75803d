"""The similarity (scale, turn, shift; no reflection) that lays joints best on others: what PA-MPJPE forgives."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def best_turn(found: Tensor, true: Tensor) -> Tensor:
    """Joints (B, J, 3) twice, both centred -> scaled rotation (B, 3, 3) float64 by which found @ turn is nearest."""
    x, y = found.double(), true.double()
    left, size, right = torch.linalg.svd(x.transpose(1, 2) @ y)
    sign = torch.linalg.det(left @ right).sign()
    last = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    scale = (size * last).sum(1) / x.square().sum((1, 2)).clamp_min(1e-12)
    return scale[:, None, None] * (left * last[:, None]) @ right
