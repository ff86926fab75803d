"""A body of another stature, put where the keypoints see the person: rotations and shape stay, the place is found.

An estimator's body and the one that is drawn may differ in height; at the same place the drawn one would stick out of
the person in the picture.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from ..body.motion import BodyMotion
from ..body.smpl import BodyModel, pose_joints
from .lifter_body import JOINT_OF_KEYPOINT

LEAST = 6  # keypoints of shoulders, arms, hips and legs
ROUNDS = 4
WIDTH = 0.02  # of the person's size in the picture: where a keypoint has lost half its pull
FARTHEST = 1.5  # times as far or as near as before, at most; more is a wrong keypoint


def settled(motion: BodyMotion, body: BodyModel, keypoints: np.ndarray | None) -> BodyMotion:
    """A motion of one frame with a camera, keypoints (18, 3) in pixels of its picture -> the same, moved.

    Unchanged where too few keypoints are seen, or where they would carry the body far away.
    """
    camera = motion.camera
    points = list(range(2, 14))  # shoulders, arms, hips, legs: the face is no joint
    if keypoints is None or camera is None or int((keypoints[points, 2] > 0).sum()) < LEAST:
        return motion
    seen = torch.from_numpy(keypoints[points]).double()
    K = camera.K.reshape(-1, 3, 3)[0].double()
    rays = (seen[:, :2] - K[:2, 2]) / K[[0, 1], [0, 1]]  # (P, 2)
    joints = pose_joints(body, motion.rotations, motion.betas, motion.transl)[0].double()
    place = joints[0].clone()
    offsets = joints[[JOINT_OF_KEYPOINT[point] for point in points]] - place  # (P, 3) from the pelvis
    size = WIDTH * float((rays[seen[:, 2] > 0].amax(0) - rays[seen[:, 2] > 0].amin(0)).max())
    found = place.clone()
    for _ in range(ROUNDS):
        at = found + offsets
        missed = (at[:, :2] / at[:, 2:].clamp_min(1e-3) - rays).norm(dim=-1)
        trust = seen[:, 2] / (1 + (missed / size) ** 2) / at[:, 2].clamp_min(1e-3)
        # x + o_x = u (z + o_z), and the same for y: linear in the place
        ones, zeros = torch.ones(len(points), dtype=torch.float64), torch.zeros(len(points), dtype=torch.float64)
        rows = torch.cat([torch.stack([ones, zeros, -rays[:, 0]], 1), torch.stack([zeros, ones, -rays[:, 1]], 1)])
        sides = torch.cat([rays[:, axis] * offsets[:, 2] - offsets[:, axis] for axis in (0, 1)])
        weights = trust.repeat(2)[:, None]
        found = torch.linalg.lstsq(rows * weights, sides * weights[:, 0]).solution
    ratio = float(found[2] / place[2])
    if not 1 / FARTHEST < ratio < FARTHEST:
        return motion
    return replace(motion, transl=motion.transl + (found - place).float())
