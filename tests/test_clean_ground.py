"""The floor under a motion, and the tilt of the camera that saw it."""

from __future__ import annotations

import math

import pytest
import torch
from comfyui_comovi.comovi_model.body.body_files import load_mannequin_body
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.frames import lowest_height, on_floor
from comfyui_comovi.comovi_model.body.rotations import axis_angle_to_matrix
from comfyui_comovi.comovi_model.body.smpl import rest_joints
from comfyui_comovi.comovi_model.body.upright import with_camera_up
from comfyui_comovi.comovi_model.clean.benchmark import true_contacts
from comfyui_comovi.comovi_model.clean.feet import skate
from comfyui_comovi.comovi_model.clean.ground import find_floor, ground
from comfyui_comovi.comovi_model.clean.known_motion import LEVELS, noisy, synthetic_motion
from comfyui_comovi.comovi_model.clean.measures import joint_positions, mean_distance_mm
from comfyui_comovi.comovi_model.clean.pipeline import CleanSettings, clean_motion


@pytest.fixture(scope="module")
def body():
    return load_mannequin_body()


def seen_by_tilted_camera(motion, body, degrees: float):
    pelvis = rest_joints(body, motion.betas)[0]
    tilt = axis_angle_to_matrix(torch.tensor([math.radians(degrees), 0.0, 0.0]))
    camera = Camera.from_focal(600.0, 352, 640)
    seen = motion.to_frame("camera", pelvis).moved(tilt, torch.tensor([0.1, 1.0, 4.0]), pelvis)
    return type(seen)(**{**seen.__dict__, "camera": camera}), tilt @ torch.tensor([0.0, -1.0, 0.0])


def angle(a, b) -> float:
    return math.degrees(math.acos(float((a * b).sum().clamp(-1, 1))))


@pytest.mark.parametrize("frame", ["yup", "zup"])
def test_a_lifted_motion_is_put_back(body, frame):
    walk = synthetic_motion(body, "walk", 0, 30.0)
    pelvis = rest_joints(body, walk.betas)[0]
    lifted = walk.moved(torch.eye(3), torch.tensor([3.0, 0.7, -2.0]), pelvis).to_frame(frame, pelvis)
    stood = ground(lifted, body)
    up = 1 if frame == "yup" else 2
    assert stood.frame == frame
    assert abs(lowest_height(stood, body, up)) < 0.003
    start = joint_positions(stood, body)[0, 0]
    assert start[[0, 3 - up]].abs().max() < 1e-5
    assert mean_distance_mm(stood, on_floor(lifted, body), body) < 3


def test_without_centring_only_the_height_changes(body):
    walk = synthetic_motion(body, "walk", 0, 30.0)
    lifted = walk.moved(torch.eye(3), torch.tensor([3.0, 0.7, -2.0]), rest_joints(body, walk.betas)[0])
    stood = ground(lifted, body, centre=False)
    assert torch.equal(stood.transl[:, [0, 2]], lifted.transl[:, [0, 2]])


def test_noise_does_not_lift_the_person(body):
    """The lowest vertex of a noisy clip is 5 cm below the floor; standing feet are within 2 cm of it."""
    walk = noisy(synthetic_motion(body, "walk", 0, 30.0), LEVELS["medium"], 2)
    assert abs(float((ground(walk, body).transl - walk.transl)[0, 1])) < 0.025
    assert float((on_floor(walk, body).transl - walk.transl)[0, 1]) > 0.04


@pytest.mark.parametrize("degrees", [-10.0, 0.0, 12.0])
def test_the_tilt_of_the_camera_shows_in_a_walk(body, degrees):
    walk = synthetic_motion(body, "walk", 1, 30.0)
    seen, up = seen_by_tilted_camera(walk, body, degrees)
    assert angle(find_floor(seen, body).up, up) < 0.6  # measured 0.0 .. 0.2
    stood = ground(seen, body)
    assert (stood.frame, stood.camera) == ("yup", None)
    assert mean_distance_mm(stood, ground(walk, body), body) < 6


def test_who_stands_in_one_place_leaves_a_level_camera_level(body):
    wave = synthetic_motion(body, "wave", 1, 30.0)
    seen, up = seen_by_tilted_camera(wave, body, 0.0)
    assert angle(find_floor(seen, body).up, up) < 0.5


def test_a_tilt_that_is_written_down_is_believed(body):
    wave = synthetic_motion(body, "wave", 1, 30.0)
    seen, up = seen_by_tilted_camera(wave, body, 20.0)
    assert angle(find_floor(with_camera_up(seen, up), body).up, up) < 0.1
    assert mean_distance_mm(ground(with_camera_up(seen, up), body), ground(wave, body), body) < 3


def test_what_was_found_is_written_down(body):
    seen, _ = seen_by_tilted_camera(synthetic_motion(body, "walk", 1, 30.0), body, 10.0)
    note = ground(seen, body).provenance["edits"][-1]
    assert abs(note["tilt_degrees"] - 10) < 0.6
    assert note["contacts"] > 50


def test_a_single_pose_can_be_grounded(body):
    one = synthetic_motion(body, "walk", 1, 30.0).slice(0, 1)
    lifted = one.moved(torch.eye(3), torch.tensor([0.0, 0.4, 0.0]), rest_joints(body, one.betas)[0])
    assert abs(lowest_height(ground(lifted, body), body, 1)) < 0.003


def test_feet_are_locked_before_a_camera_that_looks_down(body):
    """The walk goes two metres along the line of sight, so the floor rises by half a metre in the camera's frame."""
    walk = synthetic_motion(body, "walk", 1, 30.0)
    seen, up = seen_by_tilted_camera(noisy(walk, LEVELS["mild"], 3), body, 15.0)
    standing = true_contacts(walk, body)
    result = clean_motion(seen, body, CleanSettings(foot_lock=True))
    before, after = (skate(with_camera_up(m, up), body, standing) for m in (seen, result.motion))
    assert after.metres_per_second < 0.2 * before.metres_per_second  # measured 0.03
    assert result.motion.frame == "camera"
    assert result.motion.camera is not None
    assert "camera_up" not in result.motion.provenance
