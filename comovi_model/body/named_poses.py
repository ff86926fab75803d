"""Poses that a person can ask for by name, each written as the joint angles an anatomist would name.

Angles are degrees, in the axes of the T-pose (x to the person's left, y up, z to the front). A joint's list is read
from the left: the limb is turned about the first axis, then about the second. What is written for the left side
holds for the right side mirrored.

    about x: + leans the trunk forward, lifts a hanging leg backward (- lifts it forward), bends the knee
    about y: + turns to the person's left; the left forearm bends to the front with -
    about z: the left arm sinks from the T-pose with -, rises with +
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..errors import ComoviError
from .parts import JOINT_NAMES, NUM_JOINTS
from .rotations import axis_angle_to_matrix

Turns = tuple[tuple[str, float], ...]  # (axis, degrees), the first one first
_AXES = {"x": (1.0, 0.0, 0.0), "y": (0.0, 1.0, 0.0), "z": (0.0, 0.0, 1.0)}

# Keys name a joint ("left_knee") or, without a side, both of them ("knee").
POSES: dict[str, Mapping[str, Turns]] = {
    "standing": {
        "shoulder": (("x", 8), ("z", -76)),
        "elbow": (("y", -14),),
        "hip": (("z", 2),),
    },
    "A-pose": {"shoulder": (("z", -45),)},
    "T-pose": {},
    "arms raised": {
        "collar": (("z", 18),),
        "shoulder": (("y", -8), ("z", 58)),
        "elbow": (("y", -12),),
    },
    "hands folded": {
        "shoulder": (("x", 20), ("z", -66), ("y", -24)),
        "elbow": (("y", -104),),
    },
    "hands on hips": {
        "shoulder": (("x", 62), ("z", -44), ("y", 14)),
        "elbow": (("y", -98),),
    },
    "waving": {
        "left_shoulder": (("x", 8), ("z", -76)),
        "left_elbow": (("y", -14),),
        "right_collar": (("z", -8),),
        "right_shoulder": (("x", -70), ("z", 14)),
        "right_elbow": (("y", 100),),
    },
    "walking": {
        "spine1": (("x", 4),),
        "left_hip": (("x", -27),),
        "left_knee": (("x", 8),),
        "left_ankle": (("x", 4),),
        "right_hip": (("x", 16),),
        "right_knee": (("x", 22),),
        "right_ankle": (("x", 14),),
        "right_foot": (("x", -24),),
        "left_shoulder": (("z", -78), ("x", 24)),
        "right_shoulder": (("z", 78), ("x", -24)),
        "elbow": (("y", -24),),
    },
    "running": {
        "pelvis": (("x", 8),),
        "spine1": (("x", 8),),
        "left_hip": (("x", -68),),
        "left_knee": (("x", 86),),
        "right_hip": (("x", 14),),
        "right_knee": (("x", 34),),
        "right_ankle": (("x", 24),),
        "left_shoulder": (("z", -74), ("x", 46)),
        "right_shoulder": (("z", 74), ("x", -34)),
        "elbow": (("y", -88),),
    },
    "sitting": {
        "hip": (("z", 5), ("x", -86)),
        "knee": (("x", 86),),
        "shoulder": (("z", -80), ("x", -30)),
        "elbow": (("y", -26),),
    },
    "crouching": {
        "pelvis": (("x", 18),),
        "spine1": (("x", 10),),
        "hip": (("z", 10), ("x", -112)),
        "knee": (("x", 118),),
        "ankle": (("x", -24),),
        "shoulder": (("z", -76), ("x", -48)),
        "elbow": (("y", -24),),
    },
    "kneeling": {
        "left_hip": (("x", -84),),
        "left_knee": (("x", 88),),
        "right_hip": (("x", 2),),
        "right_knee": (("x", 88),),
        "right_ankle": (("x", 52),),
        "shoulder": (("x", 8), ("z", -76)),
        "elbow": (("y", -14),),
    },
}


def pose_names() -> tuple[str, ...]:
    return tuple(POSES)


def named_pose(name: str) -> Tensor:
    """Joint rotations (24, 3, 3) float32 of a named pose; the body faces +z, y is up."""
    if name not in POSES:
        raise ComoviError(f"there is no pose {name!r}; the poses are {', '.join(POSES)}.")
    rotations = torch.eye(3).repeat(NUM_JOINTS, 1, 1)
    for joint, turns in POSES[name].items():
        for number, mirror in _joints(joint):
            rotations[number] = turned(turns, mirror)
    return rotations


def turned(turns: Turns, mirrored: bool = False) -> Tensor:
    """The rotation (3, 3) of turns made one after the other; mirrored in the plane between left and right."""
    result = torch.eye(3)
    for axis, degrees in turns:
        sign = -1 if mirrored and axis != "x" else 1  # a mirror at x = 0 keeps turns about x
        result = axis_angle_to_matrix(torch.tensor(_AXES[axis]) * torch.deg2rad(torch.tensor(sign * degrees))) @ result
    return result


def _joints(name: str) -> list[tuple[int, bool]]:
    """Joint numbers that a key of POSES means, each with whether its turns are to be mirrored."""
    if name in JOINT_NAMES:
        return [(JOINT_NAMES.index(name), False)]
    return [(JOINT_NAMES.index(f"left_{name}"), False), (JOINT_NAMES.index(f"right_{name}"), True)]
