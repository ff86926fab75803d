"""Losses: squared error of velocities, and of bodies as rotations, vertices and joints.

B clips, N layers that feed the pose head, P poses per clip (frames 1..), V vertices, 24 joints of 6 numbers.

The paper has one term for bodies, the mean squared error of the SMPL parameters (Eq. 11). The released code has three:
rotations, vertices and pelvis-relative joints, with the true shape for both sides. Skinning runs in float32 whatever
the network computes in: in bfloat16 a vertex is off by millimetres.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from torch import Tensor

from ..comovi_model.body.rotations import matrix_from_6d_rows
from ..comovi_model.body.smpl import BodyModel, pose_body
from ..comovi_model.errors import ComoviError

BODY_TERMS = ("pose", "vertices", "joints")


def velocity_loss(prediction: Tensor, target: Tensor, sigma: Tensor, outlier: float = 0.0) -> Tensor:
    """Mean squared error over latent frames 1..; a scalar.

    prediction (B, C, F, h, w), of which frame 0 is not read; target (B, C, F - 1, h, w); sigma (B,): clips at 0 were
    given clean, so there is nothing to predict. outlier: elements off by more are left out; 0 leaves none out.
    """
    difference = prediction[:, :, 1:].float() - target.float()
    weight = (sigma > 0).to(difference).view(-1, 1, 1, 1, 1).expand_as(difference)
    if outlier > 0:
        weight = weight * (difference.detach().abs() <= outlier)
    return (difference.square() * weight).sum() / weight.sum().clamp_min(1)


def body_losses(
    prediction: Tensor,
    truth: Tensor,
    betas: Tensor | None,
    body: BodyModel | None,
    weights: Mapping[str, float],
    outlier: float = 0.0,
) -> dict[str, Tensor]:
    """Scalars by name, those whose weight is not 0. prediction (B, N, P, 144), truth (B, P, 24, 6), betas (B, K)."""
    unknown = sorted(set(weights) - set(BODY_TERMS))
    if unknown:
        raise ComoviError(f"there is no body loss {unknown[0]!r}; choose of {', '.join(BODY_TERMS)}.")
    with nullcontext() if prediction.is_meta else torch.autocast(prediction.device.type, enabled=False):
        guess = prediction.float().unflatten(-1, (24, 6))  # (B, N, P, 24, 6)
        right = truth.float()[:, None].expand_as(guess)
        losses = {}
        if weights.get("pose", 0):
            losses["pose"] = _mean_square(guess - right, outlier)
        if weights.get("vertices", 0) or weights.get("joints", 0):
            if body is None:
                raise ComoviError("losses of vertices and joints need a body; give one, or set their weights to 0.")
            found = _posed(body, guess, betas)
            wanted = _posed(body, right[:, :1], betas)
            if weights.get("vertices", 0):
                losses["vertices"] = _mean_square(found[0] - wanted[0], outlier)
            if weights.get("joints", 0):
                relative = (found[1] - found[1][..., :1, :]) - (wanted[1] - wanted[1][..., :1, :])
                losses["joints"] = _mean_square(relative, outlier)
    return losses


def _mean_square(difference: Tensor, outlier: float) -> Tensor:
    if outlier <= 0:
        return difference.square().mean()
    kept = (difference.detach().abs() <= outlier).to(difference)
    return (difference.square() * kept).sum() / kept.sum().clamp_min(1)


def _posed(body: BodyModel, rows: Tensor, betas: Tensor | None) -> tuple[Tensor, Tensor]:
    """6D rows (B, N, P, 24, 6) -> vertices (B, N, P, V, 3) and joints (B, N, P, 24, 3), metres, without translation."""
    batch, layers, poses = rows.shape[:3]
    shape = None if betas is None else betas.float()[:, None, None].expand(-1, layers, poses, -1).flatten(0, 2)
    posed = pose_body(body, matrix_from_6d_rows(rows).flatten(0, 2), shape)
    size = (batch, layers, poses)
    return posed.vertices.unflatten(0, size), posed.joints.unflatten(0, size)
