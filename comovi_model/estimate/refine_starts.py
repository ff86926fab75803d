"""Hypotheses to refine: the lifter's answer, what it would be seen from behind the picture, and poses from nowhere.

One picture cannot tell a limb that points to the camera from one that points away. Letters: B bodies, J = 24 joints.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..body.cameras import frame_rotation
from ..body.parts import NUM_JOINTS, PARENTS
from ..body.rotations import axis_angle_to_matrix
from .lifter_body import global_turns
from .pose_prior import PosePrior
from .refine import Bodies

LIMBS = {
    "trunk": (0, 3, 6, 9, 12, 13, 14, 15),
    "right arm": (17, 19, 21, 23),
    "left arm": (16, 18, 20, 22),
    "right leg": (2, 5, 8, 11),
    "left leg": (1, 4, 7, 10),
}
FLIPS = (
    ("right arm",), ("left arm",), ("right leg",), ("left leg",), ("right arm", "left arm"), ("right leg", "left leg"),
    tuple(LIMBS),
)  # fmt: skip
HEADINGS = 8


def flipped(rotations: Tensor, limbs: tuple[str, ...]) -> Tensor:
    """Local rotations (J, 3, 3) -> the same with limbs mirrored in the picture plane, so that they look alike in it."""
    flip = torch.tensor([1.0, 1.0, -1.0]).to(rotations)
    turns = global_turns(rotations[None])[0].clone()
    for limb in limbs:
        for joint in LIMBS[limb]:
            turns[joint] = flip[:, None] * turns[joint] * flip  # a proper rotation again
    return local_turns(turns)


def local_turns(turns: Tensor) -> Tensor:
    """Global rotations (J, 3, 3) -> local ones."""
    parents = turns[list(PARENTS[1:])]
    return torch.cat([turns[:1], parents.transpose(-1, -2) @ turns[1:]])


def alternatives(rotations: Tensor) -> Tensor:
    """(J, 3, 3) -> (1 + len(FLIPS), J, 3, 3): itself first, the whole body mirrored last."""
    return torch.stack([rotations, *(flipped(rotations, limbs) for limbs in FLIPS)])


def blind_starts(prior: PosePrior, depth: float) -> Bodies:
    """The commonest arms and legs of the prior, upright, at HEADINGS headings, `depth` metres away."""
    level = frame_rotation("yup", "camera").double()
    poses = []
    for number in range(HEADINGS):
        turn = axis_angle_to_matrix(torch.tensor([0.0, 2 * math.pi * number / HEADINGS, 0.0], dtype=torch.float64))
        for mean in prior.common():
            poses.append(torch.cat([(level @ turn)[None], mean]))
    rotations = torch.stack(poses)
    assert rotations.shape[1] == NUM_JOINTS
    pelvis = torch.tensor([0.0, 0.0, depth], dtype=torch.float64).expand(len(rotations), 3)
    return Bodies(rotations, pelvis, torch.zeros(len(rotations), 10, dtype=torch.float64))
