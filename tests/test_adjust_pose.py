"""Joints turned by hand: about which axes, and on which side."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.body.adjust_pose import ADJUSTABLE, adjust_pose
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.body.named_poses import named_pose
from comfyui_comovi.comovi_model.body.parts import JOINT_NAMES
from comfyui_comovi.comovi_model.body.smpl import pose_joints
from comfyui_comovi.comovi_model.errors import ComoviError

BODY = load_mannequin_body()


def posed(name: str) -> BodyMotion:
    return BodyMotion(named_pose(name)[None], torch.zeros(10), torch.zeros(1, 3), "yup", body_model=BODY.name)


def places(motion: BodyMotion) -> dict[str, torch.Tensor]:
    joints = pose_joints(BODY, motion.rotations, motion.betas, motion.transl)[0]
    return dict(zip(JOINT_NAMES, joints, strict=True))


def test_an_elbow_bends_to_the_front_and_mirrored_on_both_sides():
    still, bent = places(posed("T-pose")), places(adjust_pose(posed("T-pose"), "left elbow", (0, -90, 0), True))
    for side in ("left", "right"):
        forearm = bent[f"{side}_wrist"] - bent[f"{side}_elbow"]
        assert float(forearm[2]) > 0.9 * float(forearm.norm())
        assert torch.allclose(bent[f"{side}_elbow"], still[f"{side}_elbow"], atol=1e-5)
    alone = places(adjust_pose(posed("T-pose"), "left elbow", (0, -90, 0)))
    assert torch.allclose(alone["right_wrist"], still["right_wrist"], atol=1e-5)


def test_an_arm_is_raised_and_lowered():
    for degrees, sign in ((60, 1), (-60, -1)):
        arm = places(adjust_pose(posed("T-pose"), "left shoulder", (0, 0, degrees)))
        assert sign * float(arm["left_wrist"][1] - arm["left_shoulder"][1]) > 0.3


def test_the_pelvis_turns_about_its_own_axis_and_stays():
    leaning = adjust_pose(posed("standing"), "pelvis", (40, 0, 0))
    turned = adjust_pose(leaning, "pelvis", (0, 90, 0))
    before, after = places(leaning), places(turned)
    assert torch.allclose(before["pelvis"], after["pelvis"], atol=1e-6)
    spine = [joints["neck"] - joints["pelvis"] for joints in (before, after)]
    assert torch.allclose(spine[0], spine[1], atol=0.03)  # about the trunk, so the trunk stays
    assert float((after["left_hip"] - after["right_hip"]) @ (before["left_hip"] - before["right_hip"])) < 1e-3


def test_there_and_back_is_the_same_pose():
    pose = posed("walking")
    there = adjust_pose(pose, "right knee", (35, 0, 0))
    assert torch.allclose(adjust_pose(there, "right knee", (-35, 0, 0)).rotations, pose.rotations, atol=1e-6)
    assert not torch.allclose(there.rotations, pose.rotations, atol=0.1)


def test_joints_and_angles_that_are_none_are_refused():
    assert "left hand" not in ADJUSTABLE and len(ADJUSTABLE) == 22
    with pytest.raises(ComoviError, match="there is no joint 'tail'"):
        adjust_pose(posed("T-pose"), "tail", (0, 0, 0))
    with pytest.raises(ComoviError, match="must be degrees"):
        adjust_pose(posed("T-pose"), "neck", (float("nan"), 0, 0))
