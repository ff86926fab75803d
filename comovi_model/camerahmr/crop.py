"""The square around a person that the body network reads, and where it lies in the picture.

A picture is (H, W, 3) uint8 RGB, a box x0, y0, x1, y1 in pixels. S is the side of the square: the longer side of the
box, not enlarged. Pixel (u, v) of the crop samples the picture at ((u - 128) S / 256 + c_x, (v - 128) S / 256 + c_y),
bilinear, black outside, without smoothing where it shrinks: as in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ComoviError

SIDE = 256
COLUMNS = slice(32, 224)  # what the network reads of the square: 256 x 192
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALLEST = 2.0  # pixels of a side
MARGIN = 2  # pixels around the square that sampling may touch


@dataclass(frozen=True)
class Square:
    """The square of one person, in pixels of the picture."""

    centre: tuple[float, float]
    side: float


def square_of(box: tuple[float, float, float, float] | np.ndarray | Tensor, width: int, height: int) -> Square:
    """The square of a box, which must lie at least partly in the picture."""
    x0, y0, x1, y1 = (float(number) for number in box)
    if not all(np.isfinite(number) for number in (x0, y0, x1, y1)):
        raise ComoviError(f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) holds numbers that are not finite.")
    if x1 - x0 < SMALLEST or y1 - y0 < SMALLEST:
        raise ComoviError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) is empty; expected left, top, right, bottom in pixels."
        )
    if x1 <= 0 or y1 <= 0 or x0 >= width or y0 >= height:
        raise ComoviError(
            f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies outside the picture of {width}x{height} pixels."
        )
    return Square(((x0 + x1) / 2, (y0 + y1) / 2), max(x1 - x0, y1 - y0))


def box_of_mask(mask: np.ndarray) -> tuple[float, float, float, float]:
    """The box around what is set in a mask (H, W)."""
    rows, columns = np.nonzero(mask.any(1))[0], np.nonzero(mask.any(0))[0]
    if not len(rows):
        raise ComoviError("the mask is empty, so it names nobody; paint the person white.")
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def crop(picture: np.ndarray, square: Square) -> Tensor:
    """(3, 256, 256) uint8."""
    part, left, top = _around(picture, square)
    height, width = part.shape[:2]
    if not height or not width:
        return torch.zeros(3, SIDE, SIDE, dtype=torch.uint8)
    steps = (torch.arange(SIDE, dtype=torch.float64) - SIDE // 2) * square.side / SIDE
    x, y = steps + square.centre[0] - left, steps + square.centre[1] - top  # in pixels, counted from their centres
    grid = torch.stack(torch.meshgrid(2 * (x + 0.5) / width - 1, 2 * (y + 0.5) / height - 1, indexing="xy"), -1)
    pixels = torch.from_numpy(np.array(part)).permute(2, 0, 1)[None].double()
    sampled = F.grid_sample(pixels, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)
    return sampled[0].round().clamp(0, 255).to(torch.uint8)


def _around(picture: np.ndarray, square: Square) -> tuple[np.ndarray, int, int]:
    """The part of a picture (H, W, 3) under the square and its margin, and its left and upper edge in pixels.

    A person is a small part of a photo: only that part need become numbers of 64 bits.
    """
    height, width = picture.shape[:2]
    reach = square.side / 2 + MARGIN
    (left, right), (top, bottom) = (
        (min(max(math.floor(middle - reach), 0), long), min(max(math.ceil(middle + reach) + 1, 0), long))
        for middle, long in zip(square.centre, (width, height), strict=True)
    )
    return picture[top:bottom, left:right], left, top


def normalised(pixels: Tensor) -> Tensor:
    """(..., 3, h, w) uint8 -> float32, by the mean and spread of ImageNet."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return (pixels.float() / 255 - mean) / std


def camera_condition(square: Square, focal: float, width: int, height: int) -> Tensor:
    """(3,) float32: where the square lies and how large it is, in units of the focal length."""
    numbers = (square.centre[0] - width / 2, square.centre[1] - height / 2, square.side)
    return torch.tensor([number / focal for number in numbers], dtype=torch.float32)


def translation(camera: Tensor, square: Square, focal: float, width: int, height: int) -> Tensor:
    """SMPL's transl (3,) in metres in the camera's frame, from the weak-perspective camera (3,) of the crop."""
    scale, x, y = camera.double()
    size = scale * square.side
    shift_x, shift_y = square.centre[0] - width / 2, square.centre[1] - height / 2
    return torch.stack((x + 2 * shift_x / size, y + 2 * shift_y / size, 2 * focal / size)).float()
