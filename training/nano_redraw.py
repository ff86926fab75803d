"""Draws the motion of the pose head where the generated motion map shows the body.

Shapes: T frames, V vertices, H x W pixels. The pose head gives rotations without a place, so the place is found frame
by frame: the silhouette of the drawn body is brought to the centroid (x, y) and the size (depth) of the map's.
The size of a silhouette depends on the pose as well, so depth follows in damped rounds and rests in the last one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..comovi_model.body.rasterise import visible_pixels
from ..comovi_model.nano.scene import Camera, NanoBody, skin

TORSO_PARTS = (6, 7, 20)  # the three spine parts of the motion map's numbering
DEPTH_DAMPING = (0.5, 0.5, 0.0)  # one number per round


@dataclass(frozen=True)
class Redraw:
    """`silhouette` and `torso` (T, H, W) bool; `transl` (T, 3), camera frame."""

    silhouette: np.ndarray
    torso: np.ndarray
    transl: np.ndarray


def redraw_motion(body: NanoBody, betas: np.ndarray, rotations: np.ndarray, first_transl: np.ndarray, camera: Camera,
                  target: np.ndarray) -> Redraw:  # fmt: skip
    """Rotations (T, 24, 3, 3) in the camera frame, drawn onto the silhouettes `target` (T, H, W); frame 0 stays put."""
    first = np.broadcast_to(first_transl, (len(rotations), 3))
    vertices = torch.from_numpy(skin(body, betas, rotations, first)[0])
    faces, K = torch.from_numpy(body.faces), torch.from_numpy(camera.K)
    wanted = torch.from_numpy(target)
    shift = torch.zeros(len(rotations), 1, 3, dtype=torch.float64)
    for damping in DEPTH_DAMPING:
        drawn = visible_pixels(vertices + shift, faces, K, camera.height, camera.width).mask()
        shift[1:, 0] += _correction(drawn, wanted, shift[:, 0, 2] + float(first_transl[2]), camera, damping)[1:]
    pixels = visible_pixels(vertices + shift, faces, K, camera.height, camera.width)
    part = torch.from_numpy(body.part_of_vertex)[faces[:, 0]]
    torso = pixels.image(torch.isin(part, torch.tensor(TORSO_PARTS))[pixels.face][:, None], False)[..., 0]
    return Redraw(pixels.mask().numpy(), torso.numpy(), first + shift[:, 0].numpy())


def _correction(drawn: Tensor, wanted: Tensor, depth: Tensor, camera: Camera, damping: float) -> Tensor:
    """How far (T, 3) in metres the body must move; nothing where either silhouette is empty."""
    (x, y, area), (wanted_x, wanted_y, wanted_area) = _moments(drawn), _moments(wanted)
    usable = (area > 20) & (wanted_area > 20)
    scale = torch.where(usable, (area / wanted_area.clamp_min(1)).sqrt().clamp(0.8, 1.25), 1.0)
    new_depth = depth * scale**damping
    per_pixel = new_depth / camera.focal_px
    centre = [(value - size / 2) / camera.focal_px for value, size in ((x, camera.width), (y, camera.height))]
    move = torch.stack([
        (wanted_x - x) * per_pixel + centre[0] * (new_depth - depth),  # moving away along its own ray
        (wanted_y - y) * per_pixel + centre[1] * (new_depth - depth),
        new_depth - depth,
    ], -1)  # fmt: skip
    return torch.where(usable[:, None], move, 0.0)


def _moments(mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centroid x, y (pixel centres at i + 0.5) and area of masks (T, H, W), (T,) float64 each."""
    mask = mask.double()
    area = mask.sum((1, 2))
    columns, rows = (torch.arange(n, dtype=torch.float64) + 0.5 for n in (mask.shape[2], mask.shape[1]))
    safe = area.clamp_min(1)
    return (mask.sum(1) @ columns) / safe, (mask.sum(2) @ rows) / safe, area
