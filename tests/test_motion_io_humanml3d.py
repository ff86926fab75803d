"""HumanML3D's features: numbers of the published code, laws of the way back, joints onto our body."""

from __future__ import annotations

from itertools import pairwise

import motion_files
import numpy as np
import pytest
import torch
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.body.toy import JOINTS, toy_body
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.motion_io import read_motion, write_motion
from comfyui_comovi.comovi_model.motion_io.humanml3d import CHAINS, features_of, joints_of
from comfyui_comovi.comovi_model.motion_io.joint_fit import motion_from_joints

# Columns of three rows, as the data set's published code (process_file, float32) makes them from `swinging` below with
# the pose of frame 7, 1.1 times as large, as its target skeleton.
COLUMNS = (0, 1, 2, 3, 4, 40, 66, 67, 100, 150, 192, 193, 230, 258, 259, 260, 261, 262)
PUBLISHED = {
    0: (0.00845, 0.01916, 0.01305, 1.29781, 0.11191, 0.10103, -0.0952, 0.64349, -0.7095, -0.02342, 0.33255, 0.01894,
        0.0488, 0.05348, 1, 1, 1, 1),
    17: (-0.00498, 0.00564, 0.02741, 1.20697, 0.03064, 0.29493, -0.30599, 0.24539, 0.88648, -0.09444, 0.50158, 0.00591,
         0.03604, 0.12272, 1, 0, 1, 0),
    38: (-0.00304, 0.00877, 0.02016, 1.26321, 0.1526, 0.23683, -0.28145, 0.57958, -0.53265, -0.07326, -0.41713, 0.00889,
         0.03558, 0.04938, 1, 0, 0, 0),
}  # fmt: skip


def swinging(frames: int = 40) -> np.ndarray:
    """22 joints, each swung by sines, walking away."""
    time, joint, axis = np.arange(frames)[:, None, None], np.arange(22)[None, :, None], np.arange(3)[None, None]
    swing = 0.05 * np.sin(0.13 * time * (1 + 0.1 * joint) + 1.7 * axis + 0.9 * joint)
    return JOINTS[:22].double().numpy()[None] + swing + np.array([0.01, 0, 0.02]) * time


def test_the_features_are_those_of_the_published_code():
    joints = swinging()
    features = features_of(joints, joints[7] * 1.1)
    assert features.shape == (39, 263)
    for row, wanted in PUBLISHED.items():
        assert np.abs(features[row, list(COLUMNS)] - wanted).max() < 2e-5


def test_joints_come_back_up_to_place_and_heading():
    joints = swinging()
    found = joints_of(features_of(joints))
    for start, end in ((0, 15), (7, 8), (20, 21), (0, 10)):
        wanted = np.linalg.norm(joints[:-1, end] - joints[:-1, start], axis=1)
        assert np.allclose(np.linalg.norm(found[:, end] - found[:, start], axis=1), wanted)
    assert np.allclose(np.diff(found[:, 0, 1]), np.diff(joints[:-1, 0, 1]))
    assert np.allclose(found[0, 0, [0, 2]], 0)
    assert np.allclose(features_of(np.append(found, found[-1:], 0))[:-1], features_of(found), atol=1e-9)


def test_a_turn_past_the_back_does_not_turn_the_way_home():
    """Facing is a turn from +z of at most half a circle; walking round in a circle passes its end."""
    joints = swinging(100)
    angle = np.linspace(0, 9, 100)
    turn = np.zeros((100, 3, 3))
    turn[:, 0, 0], turn[:, 0, 2], turn[:, 1, 1] = np.cos(angle), np.sin(angle), 1
    turn[:, 2, 0], turn[:, 2, 2] = -np.sin(angle), np.cos(angle)
    joints = np.einsum("fij,fkj->fki", turn, joints)
    found = joints_of(features_of(joints))
    path, wanted = (np.linalg.norm(p[-1, 0, [0, 2]] - p[:, 0][:, [0, 2]], axis=1) for p in (found, joints[:-1]))
    assert np.abs(path - wanted).max() < 1e-6


def test_a_target_gives_every_frame_its_bones():
    joints = swinging()
    target = joints[3] * np.array([1, 1.3, 1])
    found = joints_of(features_of(joints, target))
    for chain in CHAINS:
        for start, end in pairwise(chain):
            length = np.linalg.norm(target[end] - target[start])
            assert np.allclose(np.linalg.norm(found[:, end] - found[:, start], axis=1), length)
    with pytest.raises(ComoviError, match="target must be the 22 joint positions"):
        features_of(joints, target[:5])


def test_motions_of_other_rates_are_resampled_to_twenty(tmp_path):
    body = toy_body(segments=4)
    motion = motion_files.smooth_motion(body, 31, fps=30.0)
    features = np.load(write_motion(tmp_path / "a", motion, body, "humanml3d"))
    assert features.shape == (20, 263) and features.dtype == np.float32  # 21 samples of one second
    imported = read_motion(tmp_path / "a.npy", body=body)
    assert imported.motion.fps == 20 and len(imported.motion) == 20


def test_joint_positions_of_another_body_are_followed_bone_by_bone():
    body = toy_body(segments=4)
    motion = motion_files.smooth_motion(body, 12)
    seen = pose_joints(body, motion.rotations, motion.betas, motion.transl).double().numpy()
    larger = 1.2 * seen + np.random.default_rng(0).normal(size=seen.shape) * 0.003
    found, notes = motion_from_joints(larger, body, frame="yup", fps=30)
    ours = pose_joints(body, found.rotations, found.betas, found.transl).double().numpy()
    for end, start in ((4, 1), (7, 4), (18, 16), (21, 19)):
        a, b = ours[:, end] - ours[:, start], larger[:, end] - larger[:, start]
        assert ((a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)).min() > 0.9999
    assert any("fitted to the file's bone lengths" in note for note in notes)


def test_bent_knees_and_elbows_tell_how_limbs_are_twisted():
    """A thigh turned about itself with a bent knee: joints alone give the twist back."""
    body = toy_body(segments=4)
    from comfyui_comovi.comovi_model.body.motion import BodyMotion
    from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix, rotation_angle

    rotations = torch.eye(3).repeat(3, 24, 1, 1)
    rotations[:, 1] = axis_angle_to_matrix(torch.tensor([[0.0, 0.8, 0], [0, -0.5, 0], [0, 0.3, 0]]))
    rotations[:, 4] = axis_angle_to_matrix(torch.tensor([1.2, 0, 0]))
    rotations[:, 18] = axis_angle_to_matrix(torch.tensor([0, -1.2, 0]))
    rotations[:, 16] = axis_angle_to_matrix(torch.tensor([[0.6, 0, 0], [-0.4, 0, 0], [0.2, 0, 0]]))
    motion = BodyMotion(rotations, torch.zeros(10), torch.zeros(3, 3), frame="yup", body_model="toy")
    seen = pose_joints(body, motion.rotations, motion.betas, motion.transl).double().numpy()
    found, _ = motion_from_joints(seen, body, frame="yup", fps=30)
    apart = rotation_angle(found.rotations.transpose(-1, -2) @ rotations)
    assert apart[:, [1, 4, 16, 18]].max() < 0.15  # the toy's limbs are not quite straight at rest
