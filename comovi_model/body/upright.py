"""Which way is up for a motion seen by a camera, also where that camera looks down a little.

A camera alone does not know where up is, so it is taken to be level, unless whoever made the motion wrote the
direction into its provenance: "camera_up", the world's y axis in the camera frame.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .cameras import frame_rotation
from .frames import pelvis_at_rest
from .motion import BodyMotion
from .rotations import skew
from .smpl import BodyModel

LEVEL = (0.0, -1.0, 0.0)  # up in a level camera's frame, whose y points down
CAMERA_UP = "camera_up"


def with_camera_up(motion: BodyMotion, up: Tensor) -> BodyMotion:
    """The motion with the direction of up (3,) in its camera frame written down."""
    return replace(motion, provenance={**motion.provenance, CAMERA_UP: [round(float(value), 6) for value in up]})


def camera_up(motion: BodyMotion) -> Tensor:
    """(3,) unit length: up in the camera frame, as the provenance says, else that of a level camera."""
    value = motion.provenance.get(CAMERA_UP)
    known = (
        isinstance(value, (list, tuple))
        and len(value) == 3
        and all(isinstance(v, (int, float)) and abs(v) < 1e3 for v in value)
        and math.hypot(*value) > 1e-3
    )
    return F.normalize(torch.tensor(value if known else LEVEL, dtype=torch.float32), dim=0)


def levelling(motion: BodyMotion) -> Tensor:
    """The rotation (3, 3) from the camera frame of a motion to "yup", as level as is known."""
    level = frame_rotation("camera", "yup")
    return shortest_turn(level @ camera_up(motion), torch.tensor([0.0, 1.0, 0.0])) @ level


def levelled(motion: BodyMotion, model: BodyModel) -> BodyMotion:
    """A motion in the camera frame -> frame "yup", seen level, origin unchanged, no camera; others as they are."""
    if motion.frame != "camera":
        return motion
    turned = motion.moved(levelling(motion), torch.zeros(3), pelvis_at_rest(model, motion))
    known = {key: value for key, value in motion.provenance.items() if key != CAMERA_UP}
    return replace(turned, frame="yup", camera=None, provenance=known)


def shortest_turn(start: Tensor, end: Tensor) -> Tensor:
    """The rotation (3, 3) by the least angle that takes one unit vector to another.

    Opposites are a camera held upside down: half a turn about the line of sight, or about x where they lie along it.
    """
    cross, cosine = torch.linalg.cross(start, end), start @ end
    if cosine < -1 + 1e-6:
        side = torch.tensor([0.0, 0.0, 1.0] if abs(start[2]) < 0.9 else [1.0, 0.0, 0.0])
        side = F.normalize(side - (side @ start) * start, dim=0)
        return 2 * torch.outer(side, side) - torch.eye(3)
    return torch.eye(3) + skew(cross) + skew(cross) @ skew(cross) / (1 + cosine)
