"""How wide the camera sees, from the whole picture: focal length in pixels.

A picture is (H, W, 3) uint8. The network was trained on RGB; CoMoVi's data were made with BGR by mistake of its
preparation, so `bgr` is what released weights expect behind them.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from .crop import normalised
from .hrnet import HRNet

SIDE = 256
CHANNEL_ORDERS = ("bgr", "rgb")
ROWS = 256  # of a picture that is shrunk, at a time


class FieldOfViewNet(nn.Module):
    """HRNet, and two linear layers without activation between them."""

    def __init__(self, width: int = 48, hidden: int = 1024):
        super().__init__()
        self.backbone = HRNet(width)
        self.fc1, self.fc3 = nn.Linear(15 * width, hidden), nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 256, 256) -> (B, 2); the second number is the vertical field of view in radians."""
        return self.fc3(self.fc1(self.backbone(x)))


def letterbox(picture: np.ndarray) -> np.ndarray:
    """The picture in a white square of 256 pixels: (H, W, 3) -> (256, 256, 3) uint8."""
    height, width = picture.shape[:2]
    wide = width > height
    size = (max(1, int(SIDE * height / width)), SIDE) if wide else (SIDE, max(1, int(SIDE * width / height)))
    square = np.full((SIDE, SIDE, 3), 255, np.uint8)
    top, left = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    square[top : top + size[0], left : left + size[1]] = resized(picture, *size)
    return square


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W, 3) -> (height, width, 3) uint8. Shrunk, a pixel is the mean of what it covers; enlarged, bilinear."""
    if max(picture.shape[:2]) < SIDE:
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
    rows, columns = covered(picture.shape[0], height), covered(picture.shape[1], width)
    mean = np.zeros((height, width, 3))
    for start in range(0, len(picture), ROWS):  # a large photo as numbers of 64 bits would take half a gigabyte
        band = slice(start, start + ROWS)
        part = picture[band].astype(np.float64)
        mean += np.einsum("yi,ijc,xj->yxc", rows[:, band], part, columns, optimize=True)
    return np.rint(mean).clip(0, 255).astype(np.uint8)


def covered(before: int, after: int) -> np.ndarray:
    """(after, before): the share that each old pixel has in each new one."""
    edges = np.arange(after + 1) * before / after
    pixels = np.arange(before)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return overlap.clip(0) * after / before


def network_picture(picture: np.ndarray, channels: str = "bgr") -> Tensor:
    """What the network reads of a picture: (1, 3, 256, 256) float32."""
    square = letterbox(picture)
    ordered = square[..., ::-1] if channels == "bgr" else square
    return normalised(torch.from_numpy(ordered.copy()).permute(2, 0, 1))[None]


def focal_from_field_of_view(radians: float, height: int) -> float:
    """Focal length in pixels of a picture of this height."""
    return height / (2 * math.tan(radians / 2))
