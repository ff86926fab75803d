"""Small corrections of a pose by hand: one joint, turned by degrees about the axes of the body, on one side or both.

The axes are those of the T-pose: x to the person's left, y up, z to the front. A limb is turned about them as its
parent holds them, so that "y" bends an elbow of a hanging arm as it does in the T-pose; the pelvis about its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..errors import ComoviError
from .motion import BodyMotion
from .parts import JOINT_NAMES
from .rotations import axis_angle_to_matrix

ADJUSTABLE = tuple(name.replace("_", " ") for name in JOINT_NAMES if not name.endswith("hand"))
LARGEST = 360.0  # degrees


def adjust_pose(motion: BodyMotion, joint: str, degrees: Sequence[float], mirrored: bool = False) -> BodyMotion:
    """Joint of ADJUSTABLE turned about x, then y, then z by so many degrees, in every frame.

    mirrored: the same joint of the other side turns the mirrored way; joints in the middle have no other side.
    """
    if joint not in ADJUSTABLE:
        raise ComoviError(f"there is no joint {joint!r} to adjust; choose one of {', '.join(ADJUSTABLE)}.")
    if len(degrees) != 3 or not all(math.isfinite(angle) and abs(angle) <= LARGEST for angle in degrees):
        raise ComoviError(f"angles about x, y and z must be degrees from -{LARGEST:g} to {LARGEST:g}, got {degrees}.")
    rotations = motion.rotations.clone()
    _turn(rotations, joint, degrees)
    other = _other_side(joint)
    if mirrored and other is not None:
        _turn(rotations, other, (degrees[0], -degrees[1], -degrees[2]))
    return replace(motion, rotations=rotations)


def _turn(rotations: Tensor, joint: str, degrees: Sequence[float]) -> None:
    """In place."""
    turns = torch.diag(torch.tensor([math.radians(angle) for angle in degrees], dtype=torch.float64))
    about_x, about_y, about_z = axis_angle_to_matrix(turns)
    turn = (about_z @ about_y @ about_x).to(rotations)
    number = JOINT_NAMES.index(joint.replace(" ", "_"))
    old = rotations[:, number].clone()
    rotations[:, number] = old @ turn if number == 0 else turn @ old


def _other_side(joint: str) -> str | None:
    side, _, name = joint.partition(" ")
    return f"{({'left': 'right', 'right': 'left'})[side]} {name}" if side in ("left", "right") else None
