"""The 18 keypoints of a posed body without its mesh, and how they move with every joint and shape parameter.

Letters: B poses, J = 24 joints, K = 18 keypoints (OpenPose order), S = 11 = the mean and ten shape parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..body.mannequin import MANNEQUIN_NAME, landmarks, load_mannequin
from ..body.parts import NUM_JOINTS, PARENTS
from ..body.smpl import BodyModel

NUM_KEYPOINTS, NUM_BETAS, HEAD = 18, 10, 15
NOSE, NECK, RIGHT_SHOULDER, LEFT_SHOULDER = 0, 1, 2, 5
FACE = (0, 14, 15, 16, 17)  # nose, right eye, left eye, right ear, left ear: points of the head's surface
FACE_NAMES = ("nose", "reye", "leye", "rear", "lear")
SMPL_FACE = (332, 6260, 2800, 4071, 583)  # vertices of SMPL, as in smplx's table
# The joint at each keypoint; a point of the face moves with the head; the neck is the middle of the shoulders.
JOINT_OF_KEYPOINT = (15, 12, 17, 19, 21, 16, 18, 20, 2, 5, 8, 1, 4, 7, 15, 15, 15, 15)


def _levels() -> list[tuple[list[int], list[int]]]:
    """Joints of the tree by depth below the root, with their parents."""
    depth = [0] * NUM_JOINTS
    for joint in range(1, NUM_JOINTS):
        depth[joint] = depth[PARENTS[joint]] + 1
    return [
        (members := [j for j in range(NUM_JOINTS) if depth[j] == level], [PARENTS[j] for j in members])
        for level in range(1, max(depth) + 1)
    ]


LEVELS = _levels()


def _ancestors() -> Tensor:
    """(J, J): [j, k] = 1 where k is j or above it."""
    above = torch.zeros(NUM_JOINTS, NUM_JOINTS)
    for joint in range(NUM_JOINTS):
        above[joint, joint] = 1
        if joint:
            above[joint] += above[PARENTS[joint]]
    return above


@dataclass(frozen=True)
class PosedKeypoints:
    """B posed bodies, linear in the shape parameters."""

    turns: Tensor  # (B, J, 3, 3), rotation of each joint in the frame of the root's parent
    joints: Tensor  # (B, J, 3, S), positions as linear functions of (1, betas)
    points: Tensor  # (B, K, 3, S), keypoints likewise

    def joints_at(self, betas: Tensor) -> Tensor:
        """(B, 10) -> (B, J, 3)"""
        return self.joints[..., 0] + torch.einsum("bjxs,bs->bjx", self.joints[..., 1:], betas)

    def points_at(self, betas: Tensor) -> Tensor:
        """(B, 10) -> (B, K, 3)"""
        return self.points[..., 0] + torch.einsum("bkxs,bs->bkx", self.points[..., 1:], betas)


@dataclass(frozen=True)
class KeypointBody:
    """Skeleton of a body with the points of its face. The pelvis of a posed body is at the origin."""

    offsets: Tensor  # (J, 3, S) from the parent joint; 0 for the pelvis
    face: Tensor  # (5, 3, S) from the head joint
    pelvis: Tensor  # (3, S) in the body's own frame
    above: Tensor  # (J, J)
    has_face: bool

    def to(self, dtype: torch.dtype) -> KeypointBody:
        offsets, face, pelvis, above = (value.to(dtype) for value in (self.offsets, self.face, self.pelvis, self.above))
        return KeypointBody(offsets, face, pelvis, above, self.has_face)

    def posed(self, rotations: Tensor) -> PosedKeypoints:
        """Local rotations (B, J, 3, 3) -> keypoints and joints."""
        turns = global_turns(rotations)
        steps = torch.einsum("bjxy,jys->bjxs", turns[:, [0, *PARENTS[1:]]], self.offsets)
        joints = torch.einsum("jk,bkxs->bjxs", self.above, steps)
        points = joints[:, list(JOINT_OF_KEYPOINT)]
        points[:, NECK] = (joints[:, 16] + joints[:, 17]) / 2
        points[:, list(FACE)] = joints[:, HEAD, None] + torch.einsum("bxy,fys->bfxs", turns[:, HEAD], self.face)
        return PosedKeypoints(turns, joints, points)


def global_turns(rotations: Tensor) -> Tensor:
    """Local rotations (B, J, 3, 3) -> global ones; joints of one depth at a time, which needs 8 products only."""
    turns: list[Tensor] = [rotations[:, 0]] + [rotations[:, 0]] * (NUM_JOINTS - 1)
    for joints, parents in LEVELS:
        product = torch.stack([turns[parent] for parent in parents], 1) @ rotations[:, joints]
        for joint, turn in zip(joints, product.unbind(1), strict=True):
            turns[joint] = turn
    return torch.stack(turns, 1)


def keypoint_body(body: BodyModel) -> KeypointBody:
    """What the keypoints of a body need. Bodies of which we know no face have none (has_face False)."""
    vertices = torch.cat([body.v_template[..., None], body.shapedirs[..., :NUM_BETAS]], -1).float()  # (V, 3, <= S)
    missing = 1 + NUM_BETAS - vertices.shape[-1]
    if missing > 0:
        vertices = torch.nn.functional.pad(vertices, (0, missing))
    joints = torch.einsum("jv,vxs->jxs", body.J_regressor.float(), vertices)
    offsets = joints - joints[[0, *PARENTS[1:]]]
    face = _face_vertices(body, vertices)
    relative = torch.zeros(len(FACE), 3, vertices.shape[-1]) if face is None else face - joints[HEAD]
    return KeypointBody(offsets, relative, joints[0], _ancestors(), face is not None)


def _face_vertices(body: BodyModel, vertices: Tensor) -> Tensor | None:
    """(5, 3, S) or None."""
    if body.shape_space == MANNEQUIN_NAME:
        return mannequin_face()
    return vertices[list(SMPL_FACE)] if len(body.v_template) == 6890 else None


@lru_cache(maxsize=1)
def mannequin_face() -> Tensor:
    """The face of the mannequin, (5, 3, S): its smaller sisters have the same face and the same shape parameters."""
    body = load_mannequin()
    index = list(_mannequin_face_vertices())
    return torch.cat([body.v_template[index][..., None], body.shapedirs[index]], -1).float()


def _mannequin_face_vertices() -> tuple[int, ...]:
    places = landmarks()
    return tuple(places[name] for name in FACE_NAMES)
