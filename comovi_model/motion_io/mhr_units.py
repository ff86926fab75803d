"""Metres or centimetres? What pose data of MHR are written in, told from the size of the person.

MHR itself counts in centimetres, SAM 3D Body's answers are metres, and converters between the two lose track. The
length of a leg does not depend on the pose, and no person is ten times as large as another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import ComoviError
from .smpl_fields import numbers

UNITS = {"metres": 1.0, "centimetres": 0.01, "millimetres": 0.001}
LEG, LONG = 0.8, 1.6  # of an adult, metres: hip to ankle, diagonal of the box around most of the skin
FARTHEST = 3.0  # times as large or small as an adult, at most
LEGS = {"pred_joint_coords": ((2, 3, 4), (18, 19, 20)), "pred_keypoints_3d": ((9, 11, 13), (10, 12, 14))}


def unit_of_record(record: Mapping[str, Any]) -> tuple[float, str]:
    """Metres in one unit of a person's record, and the unit's name."""
    sizes = []
    for name, legs in LEGS.items():
        if record.get(name) is not None:
            points = numbers(record[name], name)
            if points.ndim == 2 and points.shape[1] == 3 and len(points) > max(map(max, legs)):
                bones = [points[list(leg)] for leg in legs]
                sizes.append(np.mean([np.linalg.norm(np.diff(leg, axis=0), axis=1).sum() for leg in bones]) / LEG)
    if not sizes and record.get("pred_vertices") is not None:
        points = numbers(record["pred_vertices"], "pred_vertices").reshape(-1, 3)
        low, high = np.percentile(points, (1, 99), axis=0)
        sizes.append(float(np.linalg.norm(high - low)) / LONG)
    if not sizes:
        return 1.0, "metres"
    size = max(float(np.median(sizes)), 1e-12)
    name = min(UNITS, key=lambda unit: abs(np.log(size * UNITS[unit])))
    if abs(np.log(size * UNITS[name])) > np.log(FARTHEST):
        raise ComoviError(
            f"the person in the pose data is {size:.3g} times as large as an adult if its numbers are metres, and "
            "neither centimetres nor millimetres make it a person; look at the node that made it."
        )
    return UNITS[name], name


def place_of_record(record: Mapping[str, Any], points: np.ndarray, unit: float) -> np.ndarray:
    """pred_cam_t (3,) in metres; points (P, 3) are the person around it, in metres.

    It is usually in the unit of the rest. Where the box in the picture and the focal length are known, the depth at
    which the person fills that box decides.
    """
    place = numbers(record.get("pred_cam_t", (0, 0, 0)), "pred_cam_t").ravel()
    if place.shape != (3,):
        raise ComoviError("pred_cam_t must be three numbers.")
    if unit == 1.0 or not place.any():
        return place
    units = [unit, 1.0]
    if record.get("bbox") is not None and record.get("focal_length") is not None:
        box, focal = numbers(record["bbox"], "bbox").ravel(), float(numbers(record["focal_length"], "focal_length"))
        high = box[3] - box[1] if box.shape == (4,) else 0.0
        if high > 0:
            depth = focal * float(np.ptp(points[:, 1])) / high
            units.sort(key=lambda one: abs(np.log(max(place[2] * one, 1e-9) / depth)))
    elif place[2] * unit < 0.3:  # metres: nobody is that near
        units.reverse()
    return place * units[0]
