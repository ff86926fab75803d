"""Placing a motion in its map works at any size, refuses maps of something else, and tells its progress."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from comfyui_comovi.comovi_model.body.before_camera import Placement, stand_before_camera
from comfyui_comovi.comovi_model.body.cameras import Camera
from comfyui_comovi.comovi_model.body.map_colours import to_uint8
from comfyui_comovi.comovi_model.body.map_render import render_motion_map
from comfyui_comovi.comovi_model.body.motion import BodyMotion
from comfyui_comovi.comovi_model.errors import ComoviError
from comfyui_comovi.comovi_model.nano import start
from comfyui_comovi.comovi_model.nano.actions import ACTION_NAMES, ActionRequest
from comfyui_comovi.comovi_model.nano.examples import example_motion
from comfyui_comovi.comovi_model.nano.people import load_nano_body
from comfyui_comovi.comovi_model.nano.scene import HEIGHT, WIDTH, sample_scene
from comfyui_comovi.comovi_model.place_in_map import place_in_map, reduced


@pytest.fixture(scope="module")
def truth() -> BodyMotion:
    """A step to the left, every third frame."""
    body = load_nano_body()
    scene = sample_scene(11, body, ActionRequest(ACTION_NAMES.index("step_aside"), "left", ""))
    rotations, transl = (torch.from_numpy(array).float()[::3] for array in scene.camera_motion(body))
    camera = Camera(torch.from_numpy(scene.camera.K).float(), WIDTH, HEIGHT)
    return BodyMotion(rotations, torch.from_numpy(scene.betas).float(), transl, "camera", camera, 16.0, start.BODY_NAME)


def still(motion: BodyMotion) -> BodyMotion:
    return replace(motion, transl=motion.transl[:1].expand(len(motion), -1))


@pytest.mark.parametrize("scale", [1, 3])
def test_the_path_is_found_at_any_size(truth, scale):
    model = start._body_model()
    large = replace(truth, camera=truth.camera.resized(WIDTH * scale, HEIGHT * scale))
    drawn = to_uint8(render_motion_map(model, large, HEIGHT * scale, WIDTH * scale))
    told: list[int] = []
    found = place_in_map(model, still(large), drawn, progress=lambda done, total: told.append(total - done))
    assert float((found.transl - truth.transl).abs()[:, 0].max()) < 0.03
    assert float((truth.transl - truth.transl[:1])[:, 0].abs().max()) > 0.2  # there was something to find
    assert found.camera is large.camera
    assert told[-1] == 0 and len(told) == len(set(told))


def test_a_walk_near_the_camera_is_followed_beyond_the_search():
    """0.8 m towards a camera at 2.7 m is three times as far as one search goes."""
    model, walk = start._body_model(), example_motion("walk").slice(0, 33)
    camera = Camera.from_fov(40.0, 176, 320)
    truth = stand_before_camera(model, walk, camera, Placement())
    drawn = to_uint8(render_motion_map(model, truth, 320, 176))
    found = place_in_map(model, still(truth), drawn)
    error = (found.transl - truth.transl).abs()
    assert float((truth.transl[-1] - truth.transl[0])[2]) < -0.5
    assert float(error[:, :2].max()) < 0.03
    assert float(error[:, 2].max()) < 0.08


def test_a_moving_camera_is_followed(truth):
    model = start._body_model()
    moving = replace(truth, camera=replace(truth.camera, K=truth.camera.K.expand(len(truth), 3, 3).clone()))
    drawn = to_uint8(render_motion_map(model, moving, HEIGHT, WIDTH))
    found = place_in_map(model, still(moving), drawn, floor=False)
    assert float((found.transl - truth.transl).abs()[:, 0].max()) < 0.05


def test_maps_of_something_else_are_refused(truth):
    model, blank = start._body_model(), torch.full((len(truth), HEIGHT, WIDTH, 3), 255, dtype=torch.uint8)
    with pytest.raises(ComoviError, match=f"{len(truth)} frames and the motion map 2"):
        place_in_map(model, truth, blank[:2])
    with pytest.raises(ComoviError, match="128 x 128 pixels, and the motion's camera sees 128 x 192"):
        place_in_map(model, truth, blank[:, :128])
    with pytest.raises(ComoviError, match="needs its camera"):
        place_in_map(model, replace(truth, camera=None), blank)
    with pytest.raises(ComoviError, match="betas mean nothing"):
        place_in_map(model, replace(truth, body_model="smpl_neutral"), blank)


def test_reducing_averages_areas():
    picture = torch.zeros(1, 384, 256, 3, dtype=torch.uint8)
    picture[:, ::2] = 100
    assert torch.equal(reduced(picture), torch.full((1, 192, 128, 3), 50, dtype=torch.uint8))
    assert reduced(picture[:, :192, :128]) is not None and reduced(picture[:, :192, :128]).shape == (1, 192, 128, 3)
