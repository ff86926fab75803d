"""Named poses are what their names say, and the same on both sides where they should be."""

from __future__ import annotations

import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_nano_body
from comfyui_comovi.comovi_model.body.named_poses import named_pose, pose_names, turned
from comfyui_comovi.comovi_model.body.parts import JOINT_NAMES
from comfyui_comovi.comovi_model.body.rotations import rotation_error
from comfyui_comovi.comovi_model.body.smpl import pose_body
from comfyui_comovi.comovi_model.errors import ComoviError

SYMMETRIC = ("standing", "A-pose", "T-pose", "arms raised", "hands folded", "hands on hips", "sitting", "crouching")


@pytest.fixture(scope="module")
def joints():
    """Name of a pose -> name of a joint -> its place (x to the left, y up, z to the front)."""
    body = load_nano_body()
    poses = torch.stack([named_pose(name) for name in pose_names()])
    places = pose_body(body, poses).joints
    return {
        name: dict(zip(JOINT_NAMES, place.unbind(0), strict=True))
        for name, place in zip(pose_names(), places, strict=True)
    }


def test_every_pose_is_made_of_rotations():
    assert len(pose_names()) >= 8
    for name in pose_names():
        assert float(rotation_error(named_pose(name)).max()) < 1e-5


@pytest.mark.parametrize("name", SYMMETRIC)
def test_left_and_right_mirror_each_other(joints, name):
    for side in ("shoulder", "elbow", "wrist", "hand", "knee", "ankle", "foot"):
        left, right = joints[name][f"left_{side}"], joints[name][f"right_{side}"]
        assert torch.allclose(left * torch.tensor([-1.0, 1.0, 1.0]), right, atol=0.01), side


def test_the_names_mean_what_they_say(joints):
    for name, pose in joints.items():
        assert float(pose["head"][1]) > float(pose["pelvis"][1]), name
    standing, raised, sitting = joints["standing"], joints["arms raised"], joints["sitting"]
    assert float(standing["left_wrist"][1]) < float(standing["left_elbow"][1]) < float(standing["left_shoulder"][1])
    assert float(raised["left_wrist"][1]) > float(raised["head"][1])
    assert float(joints["T-pose"]["left_wrist"][0]) > 0.6
    thigh = sitting["left_knee"] - sitting["left_hip"]
    shin = sitting["left_ankle"] - sitting["left_knee"]
    assert float(thigh[2]) > 0.9 * float(thigh.norm())  # forward
    assert float(-shin[1]) > 0.9 * float(shin.norm())  # down
    assert float(joints["waving"]["right_wrist"][1]) > float(joints["waving"]["right_shoulder"][1])
    assert float(joints["waving"]["left_wrist"][1]) < float(joints["waving"]["pelvis"][1]) + 0.1
    walking = joints["walking"]
    assert float(walking["left_ankle"][2]) > float(walking["right_ankle"][2]) + 0.3
    assert float(walking["left_wrist"][2]) < float(walking["right_wrist"][2])  # arms swing against the legs
    hips = joints["hands on hips"]
    assert float((hips["left_hand"] - hips["left_hip"]).norm()) < 0.25
    folded = joints["hands folded"]
    assert float((folded["left_hand"] - folded["right_hand"]).norm()) < 0.12
    kneeling = joints["kneeling"]
    assert float(kneeling["right_knee"][1]) < float(kneeling["left_knee"][1]) - 0.3


def test_turns_are_made_one_after_the_other():
    quarter = turned((("z", 90.0), ("x", 90.0)))
    assert torch.allclose(quarter @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)
    assert torch.allclose(turned((("y", 30.0),), True), turned((("y", 30.0),)).T, atol=1e-6)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ComoviError, match="standing, A-pose, T-pose"):
        named_pose("flying")
