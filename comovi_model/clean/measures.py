"""Numbers that say how good a motion is: jitter, and distance from another motion.

Letters: F frames, J = 24 joints.
"""

from __future__ import annotations

import math

from torch import Tensor

from ..body.motion import BodyMotion
from ..body.rotations import rotation_angle
from ..body.smpl import BodyModel, joint_transforms, rest_joints
from ..errors import ComoviError


def joint_positions(motion: BodyMotion, model: BodyModel) -> Tensor:
    """(F, J, 3) metres in the motion's axes, float64."""
    rest = rest_joints(model, motion.betas).double()
    return joint_transforms(motion.rotations.double(), rest, motion.transl.double())[..., :3, 3]


def jitter(motion: BodyMotion, model: BodyModel) -> float:
    """Mean size of the joints' third derivative, m/s^3: the usual measure of shaking. 0 below four frames."""
    if len(motion) < 4:
        return 0.0
    return float(joint_positions(motion, model).diff(n=3, dim=0).norm(dim=-1).mean() * motion.fps**3)


def mean_distance_mm(motion: BodyMotion, other: BodyMotion, model: BodyModel) -> float:
    """Mean distance of the joints, root path included."""
    _same_length(motion, other)
    return float((joint_positions(motion, model) - joint_positions(other, model)).norm(dim=-1).mean() * 1000)


def mean_angle_degrees(motion: BodyMotion, other: BodyMotion) -> float:
    """Mean angle between the joints' local rotations."""
    _same_length(motion, other)
    between = motion.rotations.double().transpose(-1, -2) @ other.rotations.double()
    return math.degrees(float(rotation_angle(between).mean()))


def _same_length(motion: BodyMotion, other: BodyMotion) -> None:
    if len(motion) != len(other):
        raise ComoviError(f"the motions have {len(motion)} and {len(other)} frames; resample or trim one of them.")
