"""A mask of a person as SAM3 hands it on: small, eight pixels per byte; enlarged only when somebody looks at it.

A film of a minute at 24 frames a second is 1440 masks a person: 3 GB at 1920 x 1080. Letters: h x w pixels of the
small mask, H x W of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PackedMask:
    """np.asarray(mask) is (H, W) bool; a pixel is that of the small mask under its middle."""

    packed: np.ndarray  # (h, w / 8) uint8, the lowest bit of a byte first
    size: tuple[int, int]  # H, W

    @property
    def shape(self) -> tuple[int, int]:
        return self.size

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        rows, columns = self._places()
        mask = np.unpackbits(self.packed, axis=-1, bitorder="little")[rows][:, columns].astype(bool, copy=False)
        return mask if dtype is None else mask.astype(dtype)

    def box(self) -> np.ndarray | None:
        """(4,) float64 left, top, right, bottom in pixels of the picture, None where nothing is set."""
        rows, columns = self._places()
        across = np.unpackbits(np.bitwise_or.reduce(self.packed, axis=0), bitorder="little")[columns]
        down = np.bitwise_or.reduce(self.packed, axis=1)[rows]
        if not across.any() or not down.any():
            return None
        x, y = (np.nonzero(line)[0] for line in (across, down))
        return np.array([x[0], y[0], x[-1] + 1, y[-1] + 1], np.float64)

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Which row (H,) and column (W,) of the small mask each of the picture shows."""
        small = (self.packed.shape[0], 8 * self.packed.shape[1])
        rows, columns = (
            ((np.arange(long) + 0.5) * short / long).astype(np.int64)
            for long, short in zip(self.size, small, strict=True)
        )
        return rows, columns
