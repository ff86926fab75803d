"""Keypoints of a person in the orders that detectors write, as the 18 of OpenPose.

A point is x, y and a confidence from 0 (not seen) to 1. POSE_KEYPOINT of ComfyUI is read by people_from.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ComoviError
from .people import NUM_KEYPOINTS, NobodyError, clean_keypoints

NECK, RIGHT_SHOULDER, LEFT_SHOULDER = 1, 2, 5
_NECK = -1  # in an order: this point is not detected; it is the middle of the shoulders


@dataclass(frozen=True)
class Order:
    """How a detector numbers its points: where each of our 18 stands among its own."""

    name: str
    points: int
    source: tuple[int, ...]  # 18 numbers, _NECK for the middle of the shoulders
    shares: bool = False  # coordinates are shares of the picture's width and height, not pixels


ORDERS = {
    order.name: order
    for order in (
        Order("openpose_18", 18, tuple(range(18))),
        Order("coco_17", 17, (0, _NECK, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)),
        # BODY_25 has the middle of the hips at 8, and six points of the feet after the ears.
        Order("body_25", 25, (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18)),
        # MediaPipe: three points round each eye (their middle is taken), ten of mouth and hands, six of the feet.
        Order("mediapipe_33", 33, (0, _NECK, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7), shares=True),
    )
}
LARGEST_COORDINATE = 1e6  # pixels


def openpose_18(points: Any, order: str | None = None, size: tuple[int, int] | None = None) -> np.ndarray:
    """Points (P, 3) as x, y, confidence, or (P, 2) where all are seen -> (18, 3) float64 pixels.

    The order is told from the number of points if it is not given. size (H, W) is needed where coordinates are shares
    of the picture: always for MediaPipe, else where none is above 1. The neck becomes the middle of the shoulders
    where the detector has none; missing points are 0, 0, 0.
    """
    rows = _rows(points)
    known = _order_of(rows, order)
    if rows.shape[1] == 4 and known.name == "mediapipe_33":  # x, y, depth, visibility
        rows = rows[:, [0, 1, 3]]
    if rows.shape[1] not in (2, 3):
        raise ComoviError(f"each keypoint must be x, y and a confidence, got {rows.shape[1]} numbers.")
    if rows.shape[1] == 2:
        seen = np.isfinite(rows).all(1) & (rows != 0).any(1)
        rows = np.concatenate([rows, seen[:, None]], 1)
    out = np.zeros((NUM_KEYPOINTS, 3))
    for number, source in enumerate(known.source):
        if source != _NECK:
            out[number] = rows[source]
    out = clean_keypoints(out)
    if float(np.abs(out[:, :2]).max(initial=0)) > LARGEST_COORDINATE:
        raise NobodyError(f"a keypoint lies beyond {LARGEST_COORDINATE:g} pixels; coordinates must be pixels.")
    if known.shares or (0 < out[:, :2].max() <= 1.0 and size is not None and min(size) > 1):
        if size is None:
            raise ComoviError(f"{known.name} coordinates are shares of the picture; its height and width are needed.")
        out[:, :2] *= (size[1], size[0])
    if _NECK in known.source:
        out[NECK] = _middle(out[RIGHT_SHOULDER], out[LEFT_SHOULDER])
    return out


def _middle(right: np.ndarray, left: np.ndarray) -> np.ndarray:
    """(3,): between two points if both are seen."""
    if min(right[2], left[2]) <= 0:
        return np.zeros(3)
    return np.array([*(right[:2] + left[:2]) / 2, min(right[2], left[2])])


def _rows(points: Any) -> np.ndarray:
    try:
        rows = np.asarray(points.detach().cpu() if hasattr(points, "detach") else points, np.float64)
    except (ValueError, TypeError):
        raise ComoviError("keypoints must be numbers: x, y and a confidence for each point.") from None
    if rows.ndim == 3 and len(rows) == 1:
        rows = rows[0]
    if rows.ndim == 1 and rows.size and rows.size % 3 == 0:  # x, y, confidence of each point in turn
        rows = rows.reshape(-1, 3)
    if rows.ndim != 2:
        raise ComoviError(f"keypoints of one person must be rows of x, y, confidence, got shape {rows.shape}.")
    return rows


def _order_of(rows: np.ndarray, order: str | None) -> Order:
    if order is not None and order not in ORDERS:
        raise ComoviError(f"there is no keypoint order {order!r}; the orders are {', '.join(ORDERS)}.")
    fitting = [ORDERS[order]] if order else [known for known in ORDERS.values() if known.points == len(rows)]
    if not fitting or fitting[0].points != len(rows):
        wanted = ", ".join(f"{known.points} ({known.name})" for known in (fitting or ORDERS.values()))
        raise ComoviError(f"{len(rows)} keypoints came, expected {wanted}; whole-body sets must be cut to the body.")
    return fitting[0]
