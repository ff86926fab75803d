"""Measures of the nano model's clips that cannot be fooled by a frozen picture.

Shapes: T pixel frames, H x W pixels; pictures are uint8 RGB, silhouettes bool. Everything is per clip; evaluate.py
takes the means.

A person who hardly moves covers most of the place where they ought to be, so a frozen clip scores high in every overlap
of silhouettes. What a clip shows of a movement is its change: the pixels where the silhouette differs from frame 0's.
"""

from __future__ import annotations

import math

import numpy as np

from ..comovi_model.nano.scene import CLOTHES

MAP_WHITE = 0.9  # a motion-map pixel belongs to the body when its smallest channel is below this
VIDEO_DIFFERENCE = 0.10  # a video pixel belongs to the person when a channel is this far from the empty place ...
SHADOW_COLOUR, SHADOW_LEAST = 0.025, 0.45  # ... and it is not just the place, darkened to this share or more
LIT = np.linspace(0.60, 1.10, 11)  # brightness at which a garment may be seen


def map_silhouette(motion_map: np.ndarray) -> np.ndarray:
    """Where the motion map (..., H, W, 3) shows the body: (..., H, W)."""
    return motion_map.min(-1) < MAP_WHITE * 255


def video_silhouette(video: np.ndarray, plate: np.ndarray) -> np.ndarray:
    """Where the video (T, H, W, 3) shows the person; plate (H, W, 3) is the same place, empty and without shadow.

    A shadow multiplies all channels of the place alike, so it is left out by its colour, not by its darkness.
    """
    seen, empty = video.astype(np.float32) / 255, plate.astype(np.float32) / 255
    share = (seen * empty).sum(-1) / np.maximum((empty**2).sum(-1), 1e-6)
    residual = np.abs(seen - share[..., None] * empty).max(-1)
    shadow = (residual < SHADOW_COLOUR) & (share > SHADOW_LEAST) & (share < 1)
    return (np.abs(seen - empty).max(-1) > VIDEO_DIFFERENCE) & ~shadow


def change(silhouette: np.ndarray) -> np.ndarray:
    """Pixels whose state differs from frame 0's, frames 1.. : (T, H, W) -> (T - 1, H, W)."""
    return silhouette[1:] ^ silhouette[:1]


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of everything marked, all frames together; nothing marked in either counts as 0."""
    union = int((one | other).sum())
    return float((one & other).sum()) / union if union else 0.0


def frame_overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Intersection over union of silhouettes (T, H, W), mean over frames 1.. ; empty frames count as 0."""
    inter, union = (one & other)[1:].sum((1, 2)), (one | other)[1:].sum((1, 2))
    return float((inter / np.maximum(union, 1)).mean())


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 clips in dB, whole frames, one mean squared error per clip."""
    error = float(np.square(one.astype(np.float32) - other.astype(np.float32)).mean())
    return 10 * math.log10(255**2 / max(error, 1e-3))


def garment_colour(video: np.ndarray, torso: np.ndarray) -> str | None:
    """The name in CLOTHES nearest to the median colour of `torso` pixels (T, H, W) of frames 1.. ; None without pixels.

    Light dims or brightens a garment, so each name is compared at the brightness that suits it best.
    """
    pixels = video[1:][torso[1:]]
    if not len(pixels):
        return None
    seen = np.median(pixels, 0) / 255
    distance = {
        name: np.linalg.norm(LIT[:, None] * np.asarray(rgb) - seen, axis=1).min() for name, rgb in CLOTHES.items()
    }
    return min(distance, key=lambda name: float(distance[name]))


def joint_error(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance of joints (T, 24, 3) after both pelvises are put at the origin, frames 1.., millimetres."""
    difference = (one - one[:, :1]) - (other - other[:, :1])
    return 1000 * float(np.linalg.norm(difference[1:], axis=-1).mean())
