"""The square round a person's keypoints, and how a picture's camera looks from inside it.

The lifter reads keypoints in such a square, as CameraHMR reads pixels in one. Letters: B people, K = 18 keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MARGIN = 1.2  # side of the square over the longer side of the box round the trusted keypoints
FAR = 3.5  # a keypoint this many median distances from the middle of all has no say in where the square is
LIMIT = 3.0  # half sides from the middle of the square to which positions are clipped before a network reads them
SMALLEST = 1e-3  # pixels; a square is never smaller


@dataclass(frozen=True)
class Square:
    """Where the keypoints lie, in pixels."""

    centre: Tensor  # (B, 2)
    side: Tensor  # (B,)

    def inside(self, pixels: Tensor) -> Tensor:
        """(B, K, 2) pixels -> positions from -1 to 1 in the square."""
        return 2 * (pixels - self.centre[:, None]) / self.side[:, None, None]


def keypoint_square(keypoints: Tensor) -> Square:
    """(B, K, 3) pixels and confidence, 0 = missing -> the square, which single wild keypoints do not move far."""
    missing = keypoints[..., 2] <= 0
    points = keypoints[..., :2].masked_fill(missing[..., None], torch.nan)
    middle = points.nanmedian(1, keepdim=True).values
    away = (points - middle).norm(dim=-1)  # (B, K)
    usual = away.nanmedian(1, keepdim=True).values
    trusted = away <= FAR * usual + SMALLEST  # False where missing
    low = points.masked_fill(~trusted[..., None], torch.inf).amin(1)
    high = points.masked_fill(~trusted[..., None], -torch.inf).amax(1)
    seen = trusted.any(1)  # else nothing is there, and any square will do
    side = torch.where(seen, MARGIN * (high - low).amax(-1), torch.ones_like(low[:, 0]))
    centre = torch.where(seen[:, None], (low + high) / 2, torch.zeros_like(low))
    return Square(centre, side.clamp_min(SMALLEST))


def camera_condition(square: Square, focal: Tensor, size: Tensor) -> Tensor:
    """Focal length (B,) px and picture size (B, 2) as (height, width) -> (B, 3).

    Direction of the square's middle and its side, over the focal length: the condition of CLIFF in the form of
    CameraHMR (its camera has the middle of the picture as principal point).
    """
    middle = size.flip(-1) / 2
    return torch.cat([square.centre - middle, square.side[:, None]], -1) / focal[:, None]


def pelvis_place(scale_shift: Tensor, square: Square, focal: Tensor, size: Tensor) -> Tensor:
    """Crop camera (B, 3) = (s, tx, ty) -> where the pelvis is, (B, 3) metres in the camera frame."""
    scale, shift = scale_shift[:, :1], scale_shift[:, 1:]
    middle = size.flip(-1) / 2
    across = 2 * (square.centre - middle) / (scale * square.side[:, None])
    return torch.cat([shift + across, 2 * focal[:, None] / (square.side[:, None] * scale)], -1)


def crop_camera(pelvis: Tensor, square: Square, focal: Tensor, size: Tensor) -> Tensor:
    """The inverse of `pelvis_place`: (B, 3) metres -> (s, tx, ty)."""
    scale = 2 * focal / (square.side * pelvis[:, 2])
    middle = size.flip(-1) / 2
    across = 2 * (square.centre - middle) / (scale * square.side)[:, None]
    return torch.cat([scale[:, None], pelvis[:, :2] - across], -1)
