"""The sizes that clips come in. Clips of one size make a bucket, and a batch holds clips of one bucket.

T frames, H x W pixels; latents have 1 + (T - 1) / 4 frames of H / 16 x W / 16 cells (Wan2.2's autoencoder).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...comovi_model.errors import ComoviError

TIME_STRIDE, SPACE_STRIDE = 4, 16
PATCH = 2  # latent cells per token and side, so sides are multiples of 32


@dataclass(frozen=True, order=True)
class Bucket:
    """One size of clips."""

    frames: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.frames < 5 or (self.frames - 1) % TIME_STRIDE:
            raise ComoviError(f"a clip must have 1 + 4 k frames (5, 9, ... 81), got {self.frames}.")
        side = SPACE_STRIDE * PATCH
        if min(self.height, self.width) < side or self.height % side or self.width % side:
            raise ComoviError(
                f"height and width of a clip must be multiples of {side} pixels, got {self.height}x{self.width} "
                f"(height x width); the nearest is {_round(self.height, side)}x{_round(self.width, side)}."
            )

    @property
    def latent(self) -> tuple[int, int, int]:
        """(F, h, w)."""
        return (1 + (self.frames - 1) // TIME_STRIDE, self.height // SPACE_STRIDE, self.width // SPACE_STRIDE)

    def __str__(self) -> str:
        return f"{self.frames}x{self.height}x{self.width}"


def _round(side: int, multiple: int) -> int:
    return max(multiple, round(side / multiple) * multiple)


def parse_bucket(text: str) -> Bucket:
    """ "81x704x1280": frames, height, width."""
    try:
        frames, height, width = (int(number) for number in text.lower().split("x"))
    except ValueError:
        raise ComoviError(f"a size is written frames x height x width, as 81x704x1280, got {text!r}.") from None
    return Bucket(frames, height, width)


def choose_bucket(buckets: Sequence[Bucket], width: int, height: int) -> Bucket:
    """The bucket of the most similar shape, so that cropping loses least; of equal ones the largest."""
    shape = math.log(width / height)
    return min(
        buckets,
        key=lambda b: (round(abs(math.log(b.width / b.height) - shape), 6), -b.height * b.width, -b.frames),
    )
