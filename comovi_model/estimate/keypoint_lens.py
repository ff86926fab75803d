"""A focal length from keypoints alone: the lens under which a body explains them best. Rough, and only on request.

A person near a wide lens has large near limbs and small far ones, and no body of human proportions looks so through a
long lens. From far away the difference drowns in the noise of the detector; a usual lens then wins by a mild prior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..body.smpl import BodyModel
from ..errors import ComoviError
from .keypoint_fit import BODY_POINTS, LEAST_POINTS, fit_keypoints
from .people import Person
from .photo_camera import PhotoCamera, default_focal, photo_camera

LENSES = (0.42, 0.6, 0.85, 1.2, 1.7, 2.4)  # focal lengths tried, in diagonals of the picture
USUAL, SPREAD = 0.9, 1.2  # the prior: a log-normal around a usual lens, in doublings
MOST_VIEWS = 3  # of one person, spread over a video


def camera_from_keypoints(
    people: Sequence[Person],
    size: tuple[int, int],
    body: BodyModel,
    on_progress: Callable[[int, int], None] | None = None,
) -> PhotoCamera:
    """Views of one or more people through the same lens, in pictures of `size` (H, W) -> the camera.

    Views with too few points for a body tell nothing and are left out.
    """
    seen = [person.keypoints for person in people if person.keypoints is not None]
    usable = [points for points in seen if (points[list(BODY_POINTS), 2] > 0).sum() >= LEAST_POINTS]
    if not usable:
        raise ComoviError("a focal length from keypoints needs keypoints; wire those of a pose detector.")
    some = np.unique(np.linspace(0, len(usable) - 1, min(MOST_VIEWS, len(usable))).round().astype(int))
    energies = np.zeros(len(LENSES))
    for number, lens in enumerate(LENSES):
        energies[number] = 0.5 * (math.log2(lens / USUAL) / SPREAD) ** 2
        for view in some:
            energies[number] += fit_keypoints(usable[view], size, body, focal_px=lens * default_focal(size)).energy
        if on_progress is not None:
            on_progress(number + 1, len(LENSES))
    lens = 2 ** _lowest(np.log2(LENSES), energies)
    found = photo_camera(size, focal_px=lens * default_focal(size))
    return replace(found, how="the focal length was read from the keypoints, roughly: within a factor of two")


def _lowest(places: np.ndarray, values: np.ndarray) -> float:
    """Where a parabola through the lowest value and its neighbours has its minimum."""
    best = int(values.argmin())
    if best in (0, len(values) - 1):
        return float(places[best])
    a, b, _ = np.polyfit(places[best - 1 : best + 2], values[best - 1 : best + 2], 2)
    return float(np.clip(-b / (2 * a), places[best - 1], places[best + 1])) if a > 0 else float(places[best])
