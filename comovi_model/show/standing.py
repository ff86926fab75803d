"""A motion put upright on the floor, for all views of it; its surface is posed piece by piece, as it is needed.

Letters: F frames, V vertices. World: y up, floor at y = 0, metres.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..body.frames import check_same_body, in_frame, on_floor, pelvis_at_rest
from ..body.motion import BodyMotion
from ..body.rotations import axis_angle_to_matrix
from ..body.smpl import BodyModel, pose_body, pose_joints
from ..body.upright import levelled

AT_ONCE = 16  # frames


@dataclass(frozen=True)
class Standing:
    """A motion on the floor. A clip of an hour would not fit into memory as vertices, so they are not kept."""

    motion: BodyMotion  # frame "yup"
    body: BodyModel
    joints: Tensor  # (F, 24, 3)
    low: Tensor  # (3,) corner of the box that holds the whole clip
    high: Tensor  # (3,) its other corner
    reach: float  # metres: the farthest that a vertex is from the pelvis of its frame, seen from above

    def vertices(self, frames: Sequence[int]) -> Tensor:
        """(N, V, 3) of the frames named."""
        motion, chosen = self.motion, torch.tensor(frames)
        return pose_body(self.body, motion.rotations[chosen], motion.betas, motion.transl[chosen]).vertices

    def each(self) -> Iterator[Tensor]:
        """Yields the vertices (V, 3) of every frame."""
        for start in range(0, len(self.motion), AT_ONCE):
            yield from self.vertices(range(start, min(start + AT_ONCE, len(self.motion))))


def stand(motion: BodyMotion, body: BodyModel, turned: bool = True) -> Standing:
    """Puts a motion of any frame upright on the floor, with the first pelvis above the origin; turned=True lets the
    person of the first valid pose look along +z. A camera is taken to be level, unless the motion says where up is."""
    body, motion = body.to("cpu"), motion.to("cpu")
    check_same_body(body, motion)
    upright = on_floor(in_frame(levelled(motion, body), body, "yup"), body)
    if turned:
        turn = axis_angle_to_matrix(torch.tensor([0.0, -heading(upright), 0.0]))
        upright = upright.moved(turn, torch.zeros(3), pelvis_at_rest(body, upright))
    joints = pose_joints(body, upright.rotations, upright.betas, upright.transl)
    bare = Standing(upright, body, joints, joints[0, 0], joints[0, 0], 0.0)
    low, high, reach = torch.full((3,), torch.inf), torch.full((3,), -torch.inf), 0.0
    for frame, vertices in enumerate(bare.each()):
        low, high = torch.minimum(low, vertices.amin(0)), torch.maximum(high, vertices.amax(0))
        reach = max(reach, float((vertices - joints[frame, 0])[:, [0, 2]].norm(dim=1).max()))
    return Standing(upright, body, joints, low, high, reach)


def heading(motion: BodyMotion) -> float:
    """Radians about y of the first valid pose of a motion in frame "yup": 0 looks along +z, pi/2 along +x."""
    assert motion.valid is not None
    ahead = motion.rotations[int(motion.valid.float().argmax()), 0, :, 2]
    return math.atan2(float(ahead[0]), float(ahead[2]))
