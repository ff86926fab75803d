"""The drawing loop of the synthetic clips in plain PyTorch: the same picture as draw_fast.py, where numba is missing.

Letters: F frames, V vertices, N faces, H x W pixels, P covered samples (2 x 2 of them per pixel), k = 3 shadow blobs.
All frames go through one z-buffer; what is computed per sample is then averaged into its pixel.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..body.rasterise import Pixels, visible_pixels

SAMPLES = 2


def vertex_normals(points: Tensor, faces: Tensor) -> Tensor:
    """Area-weighted unit normals (F, V, 3) of vertices (F, V, 3)."""
    a, b, c = (points[:, faces[:, i]] for i in range(3))
    face_normals = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(points)
    for i in range(3):
        total.index_add_(1, faces[:, i], face_normals)
    return normalize(total, dim=-1, eps=1e-12)


def map_attributes(normals: Tensor, semantic: Tensor) -> Tensor:
    """The motion map's unshaded colour per vertex (F, V, 3): part and side, then the normal's y and x."""
    side = torch.where(normals[..., 2] < 0, 1, 2)
    return torch.stack([(2 * semantic + side) / 48.0, normals[..., 1] * 0.5 + 0.5, normals[..., 0] * 0.5 + 0.5], -1)


def shadow_factor(floor: Tensor, blobs: Tensor) -> Tensor:
    """How much light the empty place keeps, (F, H, W); floor (H, W, 3) and blobs (F, k, 4) as in draw.py."""
    place = floor[None, None]  # (1, 1, H, W, 3)
    x, z, sharpness, strength = blobs[..., None, None].unbind(2)  # (F, k, 1, 1) each
    distance = ((place[..., 0] - x) ** 2 + (place[..., 1] - z) ** 2) * sharpness
    shade = place[..., 2] * strength * torch.exp(-distance)
    return (1 - torch.where(distance < 8, shade, 0)).prod(1)


def average(pixels: Pixels, values: Tensor) -> Tensor:
    """Values of covered samples (P, C), averaged into their pixels: (F, H, W, C), nothing where nothing is covered."""
    frames, height, width = pixels.shape
    row, column = pixels.index // width, pixels.index % width  # `row` counts through all frames; the height is even
    where = (row // SAMPLES) * (width // SAMPLES) + column // SAMPLES
    picture = values.new_zeros(frames * height * width // SAMPLES**2, values.shape[1])
    picture.index_add_(0, where, values / SAMPLES**2)
    return picture.view(frames, height // SAMPLES, width // SAMPLES, -1)


def draw_frames(vertices: np.ndarray, faces: np.ndarray, colours: np.ndarray, semantic: np.ndarray, plate: np.ndarray,
                floor: np.ndarray, blobs: np.ndarray, focal: float, cx: float, cy: float, sun: np.ndarray,
                rgb: np.ndarray, motion_map: np.ndarray) -> None:  # fmt: skip
    """Fill `rgb` and `motion_map` (F, H, W, 3) uint8. See draw.draw_clip for the meaning of the arguments."""
    height, width = plate.shape[:2]
    points, corners = torch.from_numpy(vertices), torch.from_numpy(faces)
    K = torch.tensor([[focal, 0, cx], [0, focal, cy], [0, 0, 1 / SAMPLES]]) * SAMPLES
    pixels = visible_pixels(points, corners, K, height * SAMPLES, width * SAMPLES)
    normals = vertex_normals(points, corners)
    tints = torch.from_numpy(colours).expand(len(points), -1, -1)
    attributes = torch.cat([tints, normals, map_attributes(normals, torch.from_numpy(semantic)), points], -1)
    tint, normal, attribute, place = pixels.interpolate(attributes, corners).split(3, 1)  # (P, 3) each
    normal = normalize(normal, dim=1, eps=1e-12)

    lit = 0.66 + 0.40 * (normal @ torch.from_numpy(sun)).clamp_min(0)
    to_lamp = normalize(torch.tensor([0.0, 1.0, 0.0]) - place, dim=1)
    shade = 0.5 + 0.3 * (normal * to_lamp).sum(1).clamp_min(0)
    values = [tint * lit[:, None], shade[:, None] * attribute + 0.2, torch.ones_like(shade)[:, None]]
    person, drawn_map, covered = average(pixels, torch.cat(values, 1)).split([3, 3, 1], -1)

    dark = shadow_factor(torch.from_numpy(floor), torch.from_numpy(blobs))[..., None]
    empty = (1 - covered) * dark * torch.from_numpy(plate)
    for picture, out in ((person + empty, rgb), (drawn_map + (1 - covered), motion_map)):
        out[...] = (picture.clamp_max(1) * 255 + 0.5).to(torch.uint8).numpy()
