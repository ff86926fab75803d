"""A motion in another frame, or standing on the floor; both need the body, because bodies turn about the pelvis."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import ComoviError
from .motion import BodyMotion
from .smpl import BodyModel, pose_body, rest_joints


def pelvis_at_rest(model: BodyModel, motion: BodyMotion) -> Tensor:
    """(3,) metres: where the pelvis is when transl is 0."""
    check_same_body(model, motion)
    return rest_joints(model, motion.betas)[0]


def check_same_body(model: BodyModel, motion: BodyMotion) -> None:
    """Betas of two bodies mean different things, so mixing them is refused unless they are all 0."""
    same = model.shape_space == motion.body_model.removesuffix("-nano")
    if not same and bool((motion.betas != 0).any()):
        raise ComoviError(
            f"the motion was made for body {motion.body_model!r} and its betas mean nothing to body {model.name!r}; "
            "load that body, or set the betas to zero."
        )


def in_frame(motion: BodyMotion, model: BodyModel, frame: str) -> BodyMotion:
    """The same motion in the axes of "camera", "yup" or "zup", origin unchanged."""
    return motion.to_frame(frame, pelvis_at_rest(model, motion))


def on_floor(motion: BodyMotion, model: BodyModel) -> BodyMotion:
    """Shifted as a whole: the lowest point of the clip at height 0, the first pelvis above the origin."""
    if motion.frame == "camera":
        raise ComoviError('a motion in the camera frame has no floor; convert it to "yup" or "zup" first.')
    up = 1 if motion.frame == "yup" else 2
    pelvis = pelvis_at_rest(model, motion)
    shift = -(pelvis + motion.transl[0])
    shift[up] = -lowest_height(motion, model, up)
    return motion.moved(torch.eye(3), shift, pelvis)


def lowest_height(motion: BodyMotion, model: BodyModel, up: int) -> float:
    """Lowest vertex of the clip along axis `up`, metres."""
    lowest = float("inf")
    for start in range(0, len(motion), 16):
        piece = motion.slice(start, start + 16)
        lowest = min(
            lowest, float(pose_body(model, piece.rotations, piece.betas, piece.transl).vertices[..., up].min())
        )
    return lowest
