"""A video's pictures at the size of a clip, and the camera that sees them so.

The window is the largest of the wanted shape; pictures are cut and scaled in one step, and the same window is folded
into the camera's matrix, so a motion map is drawn at the clip's size and never cut or scaled itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...comovi_model.body.cameras import Camera


@dataclass(frozen=True)
class Window:
    """A part of a picture, in its pixels, that becomes height x width pixels."""

    left: float
    top: float
    scale: float  # pixels of the result per pixel of the picture
    width: int
    height: int

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in the picture."""
        return (self.left, self.top, self.left + self.width / self.scale, self.top + self.height / self.scale)


def cover(source: tuple[int, int], width: int, height: int, centre: tuple[float, float] | None = None) -> Window:
    """The largest window of the shape width : height in a picture of size `source` (width, height).

    In the middle, or as near to `centre` (x, y in pixels) as the picture allows.
    """
    scale = max(width / source[0], height / source[1])
    wide, high = width / scale, height / scale
    x, y = centre or (source[0] / 2, source[1] / 2)
    left = min(max(x - wide / 2, 0.0), max(source[0] - wide, 0.0))
    top = min(max(y - high / 2, 0.0), max(source[1] - high, 0.0))
    return Window(left, top, scale, width, height)


def picture_through(window: Window, picture: np.ndarray) -> np.ndarray:
    """(h, w, 3) uint8 -> (H, W, 3) uint8; smaller pictures are averaged, larger ones interpolated (bicubic)."""
    size = (window.width, window.height)
    if size == (picture.shape[1], picture.shape[0]) and window.scale == 1:
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture))
    right, bottom = min(window.box[2], picture.shape[1]), min(window.box[3], picture.shape[0])
    box = (window.left, window.top, right, bottom)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC, box=box))


def camera_through(window: Window, camera: Camera, source: tuple[int, int]) -> Camera:
    """The camera of the whole picture, of size `source` (width, height) in pixels, seen through the window."""
    whole = camera if (camera.width, camera.height) == source else camera.resized(*source)
    moved: Tensor = torch.tensor(
        [[window.scale, 0.0, -window.scale * window.left], [0.0, window.scale, -window.scale * window.top], [0, 0, 1]],
        dtype=torch.float64,
    )
    return replace(whole, K=(moved @ whole.K.double()).float(), width=window.width, height=window.height)
